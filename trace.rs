// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of `trace/events.h`.
//!
//! Each is a function that costs a no-op instruction while the event is disabled. Its arguments are only
//! formatted when it is enabled. There is no state to protect or to free.

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
use core::net::SocketAddr;
use kernel::{
    fmt::{
        self,
        Write, //
    },
    prelude::*,
    str::CStr, //
};

/// Room for any NID.
type NidText = Text<64>;

/// Room for the reason of a failure.
type ReasonText = Text<160>;

/// A value as a C string. What does not fit is cut off.
///
/// # Invariants
///
/// The last byte is zero.
struct Text<const SIZE: usize>([u8; SIZE]);

impl<const SIZE: usize> Text<SIZE> {
    fn new(value: impl fmt::Display) -> Self {
        let mut text = [0; SIZE];
        let mut cursor = Cursor {
            // The last byte stays zero.
            room: text.split_last_mut().map_or(&mut [], |(_, room)| room),
        };
        // The cursor reports no error.
        let _ = cursor.write_fmt(fmt!("{value}"));
        // INVARIANT: The cursor does not have the last byte.
        Self(text)
    }

    fn as_c_str(&self) -> &CStr {
        // There is a zero, by the invariant.
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// Writes into the rest of a buffer.
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

/// Defines the events of the class `socklnd_conn`.
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
    /// A handshake has succeeded: there is a new connection.
    connect;
    /// A connection has ended. `bytes` counts both directions.
    close;
    /// TCP has accepted a message. `bytes` includes headers.
    send;
    /// The header of a message was received. `bytes` includes headers.
    receive;
    /// A connection made no progress for too long. `bytes` counts those that were not sent yet.
    timeout;
}

/// A connection has failed with `error`, because of `reason`. Any context.
#[inline(always)]
pub(crate) fn conn_fail(
    conn: impl FnOnce() -> TracedConn,
    error: Error,
    reason: impl fmt::Display,
) {
    #[cold]
    #[inline(never)]
    fn fire(conn: &TracedConn, error: Error, reason: impl fmt::Display) {
        let reason = ReasonText::new(reason);
        ffi::conn_fail::fire(&conn.args(), error, reason.as_c_str());
    }
    if ffi::conn_fail::is_enabled() {
        fire(&conn(), error, reason);
    }
}

/// Which side of a connection or a handshake this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It connects.
    Active,
    /// It accepts.
    Passive,
}

/// A handshake of `nid` with `remote` has failed with `error`, because of `reason`. Any context.
#[inline(always)]
pub(crate) fn handshake_fail(
    nid: Nid,
    remote: SocketAddr,
    side: Side,
    error: Error,
    reason: impl fmt::Display,
) {
    #[cold]
    #[inline(never)]
    fn fire(nid: Nid, remote: SocketAddr, side: Side, error: Error, reason: impl fmt::Display) {
        let (nid, reason) = (NidText::new(nid), ReasonText::new(reason));
        ffi::handshake_fail::fire(
            nid.as_c_str(),
            &RawAddr::from(&remote),
            side == Side::Active,
            error,
            reason.as_c_str(),
        );
    }
    if ffi::handshake_fail::is_enabled() {
        fire(nid, remote, side, error, reason);
    }
}

#[kunit_tests(socklnd_trace)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_terminated_by_a_zero() {
        let text = NidText::new("10.0.0.1@tcp");
        assert_eq!(text.as_c_str().to_bytes(), b"10.0.0.1@tcp");
        let long = [b'x'; 100];
        let text = NidText::new(core::str::from_utf8(&long).unwrap_or(""));
        assert_eq!(text.as_c_str().to_bytes(), &long[..63]);
    }
}
