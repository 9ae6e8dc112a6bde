// SPDX-License-Identifier: GPL-2.0

//! Tracepoints, as `trace/events.h` defines them.
//!
//! Each is a function that does nothing, at the price of a no-op instruction, unless somebody has
//! switched the event on. What it tells is put together only then. No state of our own: nothing to
//! protect, nothing to free.

#[allow(unsafe_code)]
mod ffi;

use self::ffi::ConnArgs;
use crate::{
    lib_linux::socket::RawAddr,
    wire::{
        ConnType,
        Nid, //
    }, //
};
use core::{
    fmt::{
        self,
        Write, //
    },
    net::SocketAddr, //
};
use kernel::{
    prelude::*,
    str::CStr, //
};

/// Bytes of the longest NID in text, and some more.
const NID_TEXT_SIZE: usize = 64;

/// A NID as text for C. What does not fit is cut off.
///
/// # Invariants
///
/// The last byte is zero.
struct NidText([u8; NID_TEXT_SIZE]);

impl NidText {
    fn new(value: impl fmt::Display) -> Self {
        let mut text = [0; NID_TEXT_SIZE];
        let mut cursor = Cursor {
            // The last byte stays zero.
            room: text.split_last_mut().map_or(&mut [], |(_, room)| room),
        };
        let _ = write!(cursor, "{value}");
        // INVARIANT: The cursor did not have the last byte.
        Self(text)
    }

    fn as_c_str(&self) -> &CStr {
        // By the invariant there is a zero.
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
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
pub(crate) struct TracedConn {
    nid: NidText,
    peer: NidText,
    local: RawAddr,
    remote: RawAddr,
    kind: c_int,
}

impl TracedConn {
    /// The connection of type `kind` between these NIDs and addresses.
    pub(crate) fn new(
        nid: Nid,
        peer: Nid,
        local: SocketAddr,
        remote: SocketAddr,
        kind: ConnType,
    ) -> Self {
        Self {
            nid: NidText::new(nid),
            peer: NidText::new(peer),
            local: RawAddr::from(&local),
            remote: RawAddr::from(&remote),
            // CAST: Small numbers, which `events.h` knows.
            kind: kind as c_int,
        }
    }

    fn args(&self) -> ConnArgs<'_> {
        ConnArgs {
            nid: self.nid.as_c_str(),
            peer: self.peer.as_c_str(),
            local: &self.local,
            remote: &self.remote,
            kind: self.kind,
        }
    }
}

/// Defines events that concern connections.
macro_rules! conn_events {
    ($($(#[$meta:meta])* $name:ident;)+) => { $(
        $(#[$meta])*
        ///
        /// Any context.
        #[inline(always)]
        pub(crate) fn $name(
            conn: impl FnOnce() -> TracedConn,
            bytes: u64,
            error: Option<Error>,
        ) {
            #[cold]
            #[inline(never)]
            fn fire(conn: &TracedConn, bytes: u64, error: Option<Error>) {
                ffi::$name::fire(&conn.args(), bytes, error);
            }
            if ffi::$name::is_enabled() {
                fire(&conn(), bytes, error);
            }
        }
    )+ };
}

conn_events! {
    /// A connection is there.
    connect;
    /// A connection is gone, over which so many bytes went.
    close;
    /// TCP has accepted a message of so many bytes.
    send;
    /// The header of a message of so many bytes has come.
    receive;
    /// A connection made no progress for too long; so many bytes are still on their way out.
    timeout;
}

/// A handshake of `nid` with `remote` led to no connection. Any context.
#[inline(always)]
pub(crate) fn handshake_fail(nid: Nid, remote: SocketAddr, active: bool, error: Error) {
    #[cold]
    #[inline(never)]
    fn fire(nid: Nid, remote: SocketAddr, active: bool, error: Error) {
        let nid = NidText::new(nid);
        ffi::handshake_fail::fire(nid.as_c_str(), &RawAddr::from(&remote), active, error);
    }
    if ffi::handshake_fail::is_enabled() {
        fire(nid, remote, active, error);
    }
}

#[kunit_tests(socklnd_trace)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_with_a_zero() {
        let text = NidText::new("10.0.0.1@tcp");
        assert_eq!(text.as_c_str().to_bytes(), b"10.0.0.1@tcp");
        let long = [b'x'; 100];
        let text = NidText::new(core::str::from_utf8(&long).unwrap_or(""));
        assert_eq!(text.as_c_str().to_bytes(), &long[..NID_TEXT_SIZE - 1]);
    }
}
