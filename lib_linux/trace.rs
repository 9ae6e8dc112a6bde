// SPDX-License-Identifier: GPL-2.0

//! Tracepoints, as `trace.h` defines them.
//!
//! Each is a function that does nothing, at the price of a no-op instruction, unless somebody has
//! switched the event on. What it tells is put together only then. No state of our own: nothing to
//! protect, nothing to free.

use super::{
    socket::RawAddr,
    sys, //
};
use core::{
    fmt::{
        self,
        Write, //
    },
    net::SocketAddr, //
};
use kernel::prelude::*;

/// Bytes of the longest NID in text, and some more.
const NAME_SIZE: usize = 64;

/// A short text for C. What does not fit is cut off.
struct Name([u8; NAME_SIZE]);

impl Name {
    fn new(value: impl fmt::Display) -> Self {
        let mut name = Self([0; NAME_SIZE]);
        let mut cursor = Cursor {
            // The last byte stays zero.
            room: name.0.split_last_mut().map_or(&mut [], |(_, room)| room),
        };
        let _ = write!(cursor, "{value}");
        name
    }

    fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }
}

/// What is left of a buffer.
struct Cursor<'a> {
    room: &'a mut [u8],
}

impl Write for Cursor<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = core::mem::take(&mut self.room);
        let len = text.len().min(room.len());
        let (now, later) = room.split_at_mut_checked(len).ok_or(fmt::Error)?;
        for (to, from) in now.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        self.room = later;
        Ok(())
    }
}

/// A connection, as events show it.
pub(crate) struct Subject {
    nid: Name,
    peer: Name,
    local: RawAddr,
    remote: RawAddr,
    kind: c_int,
}

impl Subject {
    /// The connection of type `kind` between these NIDs and addresses.
    pub(crate) fn new(
        nid: impl fmt::Display,
        peer: impl fmt::Display,
        local: SocketAddr,
        remote: SocketAddr,
        kind: c_int,
    ) -> Self {
        Self {
            nid: Name::new(nid),
            peer: Name::new(peer),
            local: RawAddr::from(&local),
            remote: RawAddr::from(&remote),
            kind,
        }
    }
}

/// A number for an error, as C has them: negative, or zero for none.
fn errno(error: Option<Error>) -> c_int {
    error.map_or(0, |e| e.to_errno())
}

/// Whether somebody has switched a tracepoint on.
macro_rules! is_enabled {
    ($tracepoint:ident) => {{
        #[cfg(CONFIG_TRACEPOINTS)]
        {
            // SAFETY: It is a tracepoint that C defines.
            unsafe {
                kernel::jump_label::static_branch_unlikely!(
                    sys::$tracepoint,
                    kernel::bindings::tracepoint,
                    key
                )
            }
        }
        #[cfg(not(CONFIG_TRACEPOINTS))]
        {
            false
        }
    }};
}

/// Defines events that concern connections.
macro_rules! conn_events {
    ($($(#[$meta:meta])* $name:ident: $tracepoint:ident, $fire:ident;)+) => {
        $(
            $(#[$meta])*
            ///
            /// Any context.
            #[inline(always)]
            pub(crate) fn $name(
                subject: impl FnOnce() -> Subject,
                bytes: u64,
                error: Option<Error>,
            ) {
                if is_enabled!($tracepoint) {
                    #[cold]
                    #[inline(never)]
                    fn fire(subject: &Subject, bytes: u64, error: Option<Error>) {
                        let conn = sys::socklnd_trace_conn {
                            nid: subject.nid.as_ptr(),
                            peer: subject.peer.as_ptr(),
                            local: subject.local.as_ptr().cast(),
                            remote: subject.remote.as_ptr().cast(),
                            type_: subject.kind,
                        };
                        #[cfg(CONFIG_TRACEPOINTS)]
                        // SAFETY: Texts and addresses are valid during the call; the texts end with
                        // a zero, and the addresses have room for those of any family.
                        unsafe {
                            sys::$fire(&conn, bytes, errno(error))
                        };
                        #[cfg(not(CONFIG_TRACEPOINTS))]
                        let _ = (conn, bytes, errno(error));
                    }
                    fire(&subject(), bytes, error);
                }
            }
        )+
    };
}

conn_events! {
    /// A connection is there.
    connect: __tracepoint_socklnd_connect, rust_do_trace_socklnd_connect;
    /// A connection is gone, over which so many bytes went.
    close: __tracepoint_socklnd_close, rust_do_trace_socklnd_close;
    /// TCP has accepted a message of so many bytes.
    send: __tracepoint_socklnd_send, rust_do_trace_socklnd_send;
    /// The header of a message of so many bytes has come.
    receive: __tracepoint_socklnd_receive, rust_do_trace_socklnd_receive;
    /// A connection made no progress for too long; so many bytes are still on their way out.
    timeout: __tracepoint_socklnd_timeout, rust_do_trace_socklnd_timeout;
}

/// A handshake of `nid` with `remote` led to no connection. Any context.
#[inline(always)]
pub(crate) fn handshake_fail(
    nid: impl fmt::Display,
    remote: SocketAddr,
    active: bool,
    error: Error,
) {
    if is_enabled!(__tracepoint_socklnd_handshake_fail) {
        #[cold]
        #[inline(never)]
        fn fire(nid: &Name, remote: &RawAddr, active: bool, error: Error) {
            #[cfg(CONFIG_TRACEPOINTS)]
            // SAFETY: Text and address are valid during the call; the text ends with a zero, and
            // the address has room for one of any family.
            unsafe {
                sys::rust_do_trace_socklnd_handshake_fail(
                    nid.as_ptr(),
                    remote.as_ptr().cast(),
                    active,
                    errno(Some(error)),
                )
            };
            #[cfg(not(CONFIG_TRACEPOINTS))]
            let _ = (nid, remote, active, errno(Some(error)));
        }
        fire(&Name::new(nid), &RawAddr::from(&remote), active, error);
    }
}

#[kunit_tests(socklnd_lib_linux_trace)]
mod tests {
    use super::*;

    #[test]
    fn names_end_with_a_zero() {
        let name = Name::new("10.0.0.1@tcp");
        assert!(name.0.starts_with(b"10.0.0.1@tcp\0"));
        let long = [b'x'; 100];
        let name = Name::new(core::str::from_utf8(&long).unwrap_or(""));
        assert_eq!(name.0.first(), Some(&b'x'));
        assert!(name.0.ends_with(b"xx\0"));
    }
}
