// SPDX-License-Identifier: GPL-2.0

//! Which part of the kernel has claimed a socket. Plain values without state.

use super::super::sys;
use kernel::{
    fmt,
    prelude::*, //
};

/// The part of the kernel that has claimed a socket.
///
/// # Examples
///
/// ```
/// use kernel::str::CString;
///
/// let text = CString::try_from_fmt(fmt!("taken by {}", Owner::Other))?;
/// assert_eq!(text.to_bytes(), b"taken by another kernel module");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A BPF program, by a sockmap.
    Sockmap,
    /// A protocol on top of TCP, such as TLS.
    Protocol,
    /// Another module.
    Other,
}

impl Owner {
    /// Converts the result of `socklnd_helper_sk_claim`: `None` if it has succeeded.
    pub(super) fn from_raw(raw: c_int) -> Option<Self> {
        match c_uint::try_from(raw).unwrap_or(sys::socklnd_owner_SOCKLND_OWNER_OTHER) {
            sys::socklnd_owner_SOCKLND_OWNER_NONE => None,
            sys::socklnd_owner_SOCKLND_OWNER_PSOCK => Some(Self::Sockmap),
            sys::socklnd_owner_SOCKLND_OWNER_ULP => Some(Self::Protocol),
            _ => Some(Self::Other),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sockmap => "a BPF program (sockmap)",
            Self::Protocol => "a protocol on top of TCP (ULP)",
            Self::Other => "another kernel module",
        })
    }
}
