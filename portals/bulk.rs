// SPDX-License-Identifier: GPL-2.0

//! The bulk service: moves data between nodes, for tests and measurements.
//!
//! A client opens a session with a node that offers the service. It moves messages of one size in one
//! direction, up to an agreed number at a time, and closes the session. No message needs memory that
//! another one may be using:
//!
//! - For PUTs, the client has as many slots as the window is large, and the server has memory for each slot. The slot
//!   is in the match bits. The memory is for one message at a time, and its event is handled before the
//!   ACK is sent. So a client that waits for the ACK before it uses the slot again always finds it
//!   free. The PUT contains the hash of its payload, which the server compares with that of what it has received.
//! - For GETs, the server has one piece of memory that is only read. It contains a pattern that the client can
//!   compute too.
//!
//! The requests to open and to close a session fit into the match bits and the eight bytes of `hdr_data`. The
//! client GETs a [`SessionState`] from the server: whether there is a session, how large its window is, and what
//! has been received.
//!
//! | portal | match bits | what |
//! |---|---|---|
//! | 50 | `OPEN`, session | empty PUT with [`SessionParams`]: opens a session |
//! | 50 | `DATA`, session, slot | PUT of a message |
//! | 50 | `CLOSE`, session | empty PUT: closes the session |
//! | 51 | `DATA`, session | GET of a message |
//! | 51 | `STATE`, session | GET of the [`SessionState`] |
//!
//! The client chooses a random number as the session's ID. A message with that ID belongs to the session whatever
//! NID it comes from, as a client may have several NIDs. The server bounds sessions and memory. When it
//! needs room, it evicts sessions of clients that are down or idle.
//!
//! Not only slots have different contents, messages have too: each is a part of a longer pattern, at one of
//! [`NPATTERNS`] offsets in turn. So data that is stale or in the wrong place is detected.

mod client;
mod memory;
mod server;

use crate::{
    lib_linux::page::Pages,
    wire::{
        Nid,
        MAX_PAYLOAD, //
    }, //
};
use kernel::{
    prelude::*,
    time::Delta, //
};

pub(super) use self::{
    client::run,
    server::BulkService, //
};
pub(crate) use self::{
    memory::BulkMemory,
    server::Service, //
};

/// The portal for PUTs to the server.
const PORTAL_PUT: u32 = 50;
/// The portal for GETs from the server.
const PORTAL_GET: u32 = 51;

/// The most messages of a session at a time.
const MAX_WINDOW: u32 = 256;
/// The most memory for the messages of a session, in bytes.
const MAX_SESSION_BYTES: u32 = 32 << 20;

/// The number of offsets in the pattern at which the messages of a slot begin.
const NPATTERNS: u32 = 16;
/// The distance between these, in bytes.
const PATTERN_STEP: u32 = 64;
/// The difference between the lengths of the pattern and of a message, in bytes.
const PATTERN_EXTRA: u32 = NPATTERNS * PATTERN_STEP;

/// The number of bits of a session's ID.
const SESSION_ID_BITS: u32 = 40;
const SESSION_ID_MASK: u64 = (1 << SESSION_ID_BITS) - 1;
const SLOT_BITS: u32 = 16;
const KIND_SHIFT: u32 = SESSION_ID_BITS + SLOT_BITS;

/// What a message of the service is: the highest byte of its match bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum RequestKind {
    Open = 1,
    Close = 2,
    Data = 3,
    State = 4,
}

impl RequestKind {
    /// The match bits of a message.
    fn match_bits(self, session_id: u64, slot: u32) -> u64 {
        ((self as u64) << KIND_SHIFT)
            | ((session_id & SESSION_ID_MASK) << SLOT_BITS)
            | u64::from(slot & ((1 << SLOT_BITS) - 1))
    }

    /// Whether these are match bits of this kind.
    fn matches(self, bits: u64) -> bool {
        bits >> KIND_SHIFT == self as u64
    }
}

/// All match bits but the kind.
const ANY_SESSION: u64 = (1 << KIND_SHIFT) - 1;

/// The session's ID in match bits.
fn session_id_in(bits: u64) -> u64 {
    (bits >> SLOT_BITS) & SESSION_ID_MASK
}

/// The direction of the data, from the client's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BulkOp {
    /// To the server.
    Put,
    /// From the server.
    Get,
}

/// What a client does.
pub(crate) struct BulkSpec {
    /// The server.
    pub(crate) peer: Nid,
    /// The direction.
    pub(crate) op: BulkOp,
    /// Bytes per message, at most 1 MiB; may be 0.
    pub(crate) size: u32,
    /// The number of messages, at least 1.
    pub(crate) count: u64,
    /// The number of messages at a time, 1 to 256. The server may allow fewer.
    pub(crate) in_flight: u32,
    /// Whether contents are compared.
    pub(crate) verify: bool,
    /// How long all of it may take. Positive.
    pub(crate) timeout: Delta,
}

/// The result of what a client has done.
#[derive(Default)]
pub(crate) struct BulkResult {
    /// Messages that succeeded.
    pub(crate) messages: u64,
    /// Bytes of their payload.
    pub(crate) bytes: u64,
    /// From the start of the first message to the end of the last one.
    pub(crate) elapsed_ns: u64,
    /// Messages that failed.
    pub(crate) errors: u64,
    /// The error of the first message that failed.
    pub(crate) first_error: Option<Error>,
    /// Messages that succeeded with wrong contents.
    pub(crate) verify_failures: u64,
    /// The shortest time from a message's start to its end, 0 if none succeeded.
    pub(crate) latency_min_ns: u64,
    /// The mean of these times.
    pub(crate) latency_mean_ns: u64,
    /// The longest of these times.
    pub(crate) latency_max_ns: u64,
}

/// The parameters of a session, which the client chooses: `hdr_data` of the PUT that opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SessionParams {
    op: BulkOp,
    verify: bool,
    size: u32,
    in_flight: u32,
}

impl SessionParams {
    /// The version of the service, in the highest byte.
    const VERSION: u64 = 1;
    const GET: u64 = 1 << 40;
    const VERIFY: u64 = 1 << 41;

    fn encode(self) -> u64 {
        let mut word = (Self::VERSION << 56) | u64::from(self.size & 0xff_ffff);
        word |= u64::from(self.in_flight & 0xffff) << 24;
        if self.op == BulkOp::Get {
            word |= Self::GET;
        }
        if self.verify {
            word |= Self::VERIFY;
        }
        word
    }

    /// `None` if it is invalid.
    fn decode(word: u64) -> Option<Self> {
        let params = Self {
            op: if word & Self::GET != 0 {
                BulkOp::Get
            } else {
                BulkOp::Put
            },
            verify: word & Self::VERIFY != 0,
            // CAST: both are masked.
            size: (word & 0xff_ffff) as u32,
            in_flight: ((word >> 24) & 0xffff) as u32,
        };
        // Differs from `word` if that has another version or unknown bits.
        (params.encode() == word && params.is_valid()).then_some(params)
    }

    fn is_valid(&self) -> bool {
        self.size <= MAX_PAYLOAD && (1..=MAX_WINDOW).contains(&self.in_flight)
    }

    /// The number of messages at a time, at least one, as the memory of a session is bounded.
    fn window(&self) -> u32 {
        let room = MAX_SESSION_BYTES / self.size.max(1);
        self.in_flight.min(room).max(1)
    }

    /// Bytes of memory that the server needs for the session.
    fn server_bytes(&self) -> usize {
        match self.op {
            BulkOp::Put => self.size as usize * self.window() as usize,
            BulkOp::Get => pattern_len(self.size),
        }
    }
}

/// Bytes of the pattern that messages of `size` bytes are parts of.
fn pattern_len(size: u32) -> usize {
    size as usize + PATTERN_EXTRA as usize
}

/// Allocates such a pattern. May sleep.
fn pattern(size: u32, seed: u64) -> Result<Pages> {
    let len = pattern_len(size);
    let pages = Pages::alloc(len)?;
    pages.fill_pattern(0, len, seed)?;
    Ok(pages)
}

/// The state of a session at the server. Little-endian on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SessionState {
    /// 0, or [`NO_SESSION`].
    status: u32,
    /// Bytes per message.
    size: u32,
    /// The number of messages at a time.
    window: u32,
    /// Messages that were received with the right contents, or sent.
    good: u64,
    /// Messages that were received with wrong contents.
    bad: u64,
    /// Messages that were not received, or sent, completely.
    broken: u64,
    /// Bytes that were received or sent.
    bytes: u64,
}

/// Bytes of a [`SessionState`].
const STATE_LEN: usize = 48;
const STATE_MAGIC: u32 = 0x6b6c_7562;
/// Status: there is no such session.
const NO_SESSION: u32 = 1;

impl SessionState {
    fn to_bytes(self) -> [u8; STATE_LEN] {
        let mut bytes = [0; STATE_LEN];
        let words = [
            u64::from(STATE_MAGIC) | (u64::from(self.status) << 32),
            u64::from(self.size) | (u64::from(self.window) << 32),
            self.good,
            self.bad,
            self.broken,
            self.bytes,
        ];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None` if it has no magic.
    fn from_bytes(bytes: &[u8; STATE_LEN]) -> Option<Self> {
        let mut words = [0u64; STATE_LEN / 8];
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(from.try_into().ok()?);
        }
        let [magic, sizes, good, bad, broken, bytes] = words;
        // CAST: the lower half each.
        (magic as u32 == STATE_MAGIC).then_some(Self {
            status: (magic >> 32) as u32,
            size: sizes as u32,
            window: (sizes >> 32) as u32,
            good,
            bad,
            broken,
            bytes,
        })
    }
}

#[kunit_tests(socklnd_portals_bulk)]
mod tests {
    use super::*;

    const PARAMS: SessionParams = SessionParams {
        op: BulkOp::Put,
        verify: true,
        size: 4096,
        in_flight: 8,
    };

    #[test]
    fn session_params_survive_the_wire() {
        for op in [BulkOp::Put, BulkOp::Get] {
            for verify in [false, true] {
                for size in [0, 1, 4096, MAX_PAYLOAD] {
                    let params = SessionParams {
                        op,
                        verify,
                        size,
                        in_flight: MAX_WINDOW,
                    };
                    assert!(SessionParams::decode(params.encode()) == Some(params));
                }
            }
        }
    }

    #[test]
    fn malformed_session_params() {
        let good = PARAMS.encode();
        assert!(SessionParams::decode(good).is_some());
        assert!(SessionParams::decode(0).is_none());
        assert!(SessionParams::decode(u64::MAX).is_none());
        // Another version, unknown flags.
        for bit in 42..64 {
            assert!(SessionParams::decode(good ^ (1 << bit)).is_none());
        }
        for (size, in_flight) in [
            (MAX_PAYLOAD + 1, 1),
            (0xff_ffff, 1),
            (0, 0),
            (0, MAX_WINDOW + 1),
            (0, 0xffff),
        ] {
            let params = SessionParams {
                size,
                in_flight,
                ..PARAMS
            };
            assert!(SessionParams::decode(params.encode()).is_none());
        }
    }

    #[test]
    fn windows_are_bounded_by_memory() {
        let window = |size, in_flight| {
            SessionParams {
                size,
                in_flight,
                ..PARAMS
            }
            .window()
        };
        assert_eq!(window(0, 256), 256);
        assert_eq!(window(1, 1), 1);
        assert_eq!(window(MAX_PAYLOAD, 8), 8);
        assert_eq!(window(MAX_PAYLOAD, 256), 32);
    }

    #[test]
    fn match_bits() {
        let bits = RequestKind::Data.match_bits(0x12_3456_789a, 0xbcde);
        assert_eq!(bits, 0x0312_3456_789a_bcde);
        assert!(RequestKind::Data.matches(bits));
        assert!(!RequestKind::Open.matches(bits));
        assert_eq!(session_id_in(bits), 0x12_3456_789a);
        assert_eq!(
            RequestKind::Open.match_bits(u64::MAX, u32::MAX) & ANY_SESSION,
            ANY_SESSION
        );
    }

    #[test]
    fn states_survive_the_wire() {
        let state = SessionState {
            status: 1,
            size: 2,
            window: 3,
            good: 4,
            bad: 5,
            broken: 6,
            bytes: 7,
        };
        let mut bytes = state.to_bytes();
        assert!(SessionState::from_bytes(&bytes) == Some(state));
        bytes[0] ^= 1;
        assert!(SessionState::from_bytes(&bytes).is_none());
    }
}
