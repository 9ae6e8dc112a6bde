// SPDX-License-Identifier: GPL-2.0

//! The bulk service: something to move data to and from, for tests and measurements.
//!
//! A client opens a session with a node that offers the service, moves messages of one size in one
//! direction, as many at a time as were agreed on, and closes it. No message needs a buffer that
//! another one may be using:
//!
//! - To PUT, the client has as many slots as the window is large, and the server has memory for
//!   each. The slot is in the match bits. The memory takes one message at a time, and is looked at
//!   before the ACK leaves; so a client that waits for the ACK before it uses the slot again always
//!   finds it free. The PUT carries the hash of its contents, which the server compares with that
//!   of what it received.
//! - To GET, the server has one piece of memory that is only read, with a pattern that the client
//!   can make as well.
//!
//! What is asked of the server, to open and to close, fits into the match bits and the eight bytes
//! of `hdr_data`. What the server has to say is a [`State`], which the client gets: whether there
//! is a session, how large its window is, and what has arrived.
//!
//! | portal | match bits | what |
//! |---|---|---|
//! | 50 | `OPEN`, session | empty PUT with an [`Offer`]: opens a session |
//! | 50 | `DATA`, session, slot | PUT of a message |
//! | 50 | `CLOSE`, session | empty PUT: closes it |
//! | 51 | `DATA`, session | GET of a message |
//! | 51 | `STATE`, session | GET of the [`State`] |
//!
//! A session is named by a random number that the client makes up. Who knows it may use the session: a
//! client may have several NIDs, and each of its messages come from another one. The server bounds
//! sessions and memory, and when it needs room it forgets the sessions of clients that are gone or silent.
//!
//! Contents differ from message to message, not only from slot to slot: each is a part of a longer
//! pattern, which begins somewhere else each [`TURNS`] times. So data that is stale or in the wrong
//! place is found.

mod client;
mod memory;
mod server;

use crate::wire::{
    Nid,
    MAX_PAYLOAD, //
};
use kernel::prelude::*;

pub(super) use client::run;
pub(crate) use memory::BulkMemory;
pub(super) use server::BulkService;
pub(crate) use server::Service;

/// Where the service receives.
const PORTAL_PUT: u32 = 50;
/// Where the service is read from.
const PORTAL_GET: u32 = 51;

/// The most messages of a session that are under way at a time.
const MAX_WINDOW: u32 = 256;
/// The most memory for the messages of a session, in bytes.
const MAX_SESSION_BYTES: u32 = 32 << 20;

/// How many different contents the messages of a slot have.
const TURNS: u32 = 16;
/// How far apart these begin in the pattern, in bytes.
const TURN_BYTES: u32 = 64;
/// By how much the pattern is longer than a message.
const SPREAD: u32 = TURNS * TURN_BYTES;

/// Bits of a session's number.
const NONCE_BITS: u32 = 40;
const NONCE_MASK: u64 = (1 << NONCE_BITS) - 1;
const SLOT_BITS: u32 = 16;
const KIND_SHIFT: u32 = NONCE_BITS + SLOT_BITS;

/// What a message of the service is about: the highest byte of its match bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Open = 1,
    Close = 2,
    Data = 3,
    State = 4,
}

impl Kind {
    /// The match bits of a message.
    fn bits(self, nonce: u64, slot: u32) -> u64 {
        ((self as u64) << KIND_SHIFT)
            | ((nonce & NONCE_MASK) << SLOT_BITS)
            | u64::from(slot & ((1 << SLOT_BITS) - 1))
    }

    /// Whether these are match bits of this kind.
    fn is_in(self, bits: u64) -> bool {
        bits >> KIND_SHIFT == self as u64
    }
}

/// All match bits but the kind.
const ANY_SESSION: u64 = (1 << KIND_SHIFT) - 1;

/// The session in match bits.
fn nonce_in(bits: u64) -> u64 {
    (bits >> SLOT_BITS) & NONCE_MASK
}

/// In which direction data goes, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BulkOp {
    /// To the server.
    Put,
    /// From the server.
    Get,
}

/// What a client wants to do.
pub(crate) struct BulkSpec {
    /// The server.
    pub(crate) peer: Nid,
    /// The direction.
    pub(crate) op: BulkOp,
    /// Bytes a message, at most 1 MiB; may be 0.
    pub(crate) size: u32,
    /// Messages in all, at least 1.
    pub(crate) count: u64,
    /// Messages at a time, 1 to 256. The server may allow fewer.
    pub(crate) in_flight: u32,
    /// Whether contents are compared.
    pub(crate) verify: bool,
    /// How long all of it may take.
    pub(crate) timeout_ms: u32,
}

/// How it went.
#[derive(Default)]
pub(crate) struct BulkResult {
    /// Messages that went through.
    pub(crate) messages: u64,
    /// Their payload.
    pub(crate) bytes: u64,
    /// From the start of the first message to the end of the last one.
    pub(crate) elapsed_ns: u64,
    /// Messages that failed.
    pub(crate) errors: u64,
    /// What the first of these failed with.
    pub(crate) first_error: Option<Error>,
    /// Messages that went through with wrong contents.
    pub(crate) verify_failures: u64,
    /// Shortest time from a message's start to its end, 0 if none went through.
    pub(crate) latency_min_ns: u64,
    /// Mean of these.
    pub(crate) latency_mean_ns: u64,
    /// Longest of these.
    pub(crate) latency_max_ns: u64,
}

/// What a client asks for when it opens a session: `hdr_data` of the PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    op: BulkOp,
    verify: bool,
    size: u32,
    in_flight: u32,
}

impl Offer {
    /// In the highest byte: whether the two sides mean the same by all this.
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

    /// `None` if it makes no sense.
    fn decode(word: u64) -> Option<Self> {
        let offer = Self {
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
        // Encoding it again shows whether there was anything else in it.
        (offer.encode() == word && offer.is_sane()).then_some(offer)
    }

    fn is_sane(&self) -> bool {
        self.size <= MAX_PAYLOAD && (1..=MAX_WINDOW).contains(&self.in_flight)
    }

    /// How many messages may be under way, so that there is memory for them: at least one.
    fn window(&self) -> u32 {
        let room = MAX_SESSION_BYTES / self.size.max(1);
        self.in_flight.min(room).max(1)
    }

    /// Bytes of memory for the session at the server.
    fn server_bytes(&self) -> usize {
        match self.op {
            BulkOp::Put => self.size as usize * self.window() as usize,
            BulkOp::Get => self.pattern_len(),
        }
    }

    /// Bytes of a pattern, of which messages are parts.
    fn pattern_len(&self) -> usize {
        self.size as usize + SPREAD as usize
    }
}

/// What the server says about a session. All little-endian on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// 0, or why there is no session.
    status: u32,
    /// Bytes a message.
    size: u32,
    /// Messages that may be under way at a time.
    window: u32,
    /// Messages that arrived with the right contents, or were sent.
    good: u64,
    /// Messages that arrived with wrong ones.
    bad: u64,
    /// Messages that did not arrive, or were not sent, completely.
    broken: u64,
    /// Bytes that arrived or were sent.
    bytes: u64,
}

/// Bytes of a [`State`].
const STATE_LEN: usize = 48;
const STATE_MAGIC: u32 = 0x6b6c_7562;
/// Status: there is no such session.
const NO_SESSION: u32 = 1;

impl State {
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

    /// `None` if it is none.
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

    const OFFER: Offer = Offer {
        op: BulkOp::Put,
        verify: true,
        size: 4096,
        in_flight: 8,
    };

    #[test]
    fn offers_survive_the_wire() {
        for op in [BulkOp::Put, BulkOp::Get] {
            for verify in [false, true] {
                for size in [0, 1, 4096, MAX_PAYLOAD] {
                    let offer = Offer {
                        op,
                        verify,
                        size,
                        in_flight: MAX_WINDOW,
                    };
                    assert!(Offer::decode(offer.encode()) == Some(offer));
                }
            }
        }
    }

    #[test]
    fn hostile_offers() {
        let good = OFFER.encode();
        assert!(Offer::decode(good).is_some());
        assert!(Offer::decode(0).is_none());
        assert!(Offer::decode(u64::MAX).is_none());
        // Another version, unknown flags.
        for bit in 42..64 {
            assert!(Offer::decode(good ^ (1 << bit)).is_none());
        }
        for (size, in_flight) in [
            (MAX_PAYLOAD + 1, 1),
            (0xff_ffff, 1),
            (0, 0),
            (0, MAX_WINDOW + 1),
            (0, 0xffff),
        ] {
            let offer = Offer {
                size,
                in_flight,
                ..OFFER
            };
            assert!(Offer::decode(offer.encode()).is_none());
        }
    }

    #[test]
    fn windows_are_bounded_by_memory() {
        let window = |size, in_flight| {
            Offer {
                size,
                in_flight,
                ..OFFER
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
        let bits = Kind::Data.bits(0x12_3456_789a, 0xbcde);
        assert_eq!(bits, 0x0312_3456_789a_bcde);
        assert!(Kind::Data.is_in(bits));
        assert!(!Kind::Open.is_in(bits));
        assert_eq!(nonce_in(bits), 0x12_3456_789a);
        assert_eq!(
            Kind::Open.bits(u64::MAX, u32::MAX) & ANY_SESSION,
            ANY_SESSION
        );
    }

    #[test]
    fn states_survive_the_wire() {
        let state = State {
            status: 1,
            size: 2,
            window: 3,
            good: 4,
            bad: 5,
            broken: 6,
            bytes: 7,
        };
        let mut bytes = state.to_bytes();
        assert!(State::from_bytes(&bytes) == Some(state));
        bytes[0] ^= 1;
        assert!(State::from_bytes(&bytes).is_none());
    }
}
