// SPDX-License-Identifier: GPL-2.0

//! LNet's ping: a node tells who it is to whoever asks.
//!
//! The question is a GET on portal 0 with match bits 1 << 63. The answer is a description of the
//! node: a head, and a record for each of its NIDs, the loopback interface first. It is in the byte
//! order of the node that answers, which is told by its magic; this node writes little-endian.
//!
//! A record has 8 bytes for a NID. Longer ones are in records of another form behind all those, which
//! the head does not count: a feature says that there are some, and the last word of the first record
//! how many bytes the whole description has. That form is not from captures, which have only IPv4.
//!
//! Nodes that do discovery also put their own description there ("push"), and wait for the ACK, which
//! says how much of it was taken. This node does not use what others say unasked: it is received into
//! memory that nobody reads, where descriptions of several nodes overwrite each other.
//!
//! What a node is changes: it gets and loses NIDs, links, and the task to forward. So each answer is
//! written when the question comes, from what is so then. It belongs to the message that carries it;
//! the asking thread owns the memory for what it is told.

use super::{
    md::{
        self,
        Access,
        Md,
        Placement,
        Reuse, //
    },
    node::Node,
    op::Outcome,
    outgoing::Get,
    table::{
        Criteria,
        Position,
        Request, //
    },
    Core, //
};
use crate::{
    lib_linux::{
        page::{
            PageRange,
            Pages, //
        },
        time, //
    },
    upper::{
        Link,
        LndNi,
        NiRef, //
    },
    wire::{
        Nid,
        WireError,
        PID_LUSTRE, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    }, //
};

const PORTAL: u32 = 0;
const MATCH_BITS: u64 = 1 << 63;

const MAGIC: u32 = 0x7069_6e67;
const HEAD_LEN: usize = 16;
const RECORD_LEN: usize = 16;
/// A status, and a NID in its form of 20 bytes.
const LONG_RECORD_LEN: usize = 24;

/// The most NIDs that are asked for.
pub(crate) const MAX_NIS: usize = 16;
const MAX_LEN: usize = HEAD_LEN + RECORD_LEN + MAX_NIS * LONG_RECORD_LEN;

/// The most NIDs of its own that a node tells of, so that all fits into a page of the asker's.
const MAX_OWN: usize = 128;

/// As much of what is pushed is taken. Nobody has so many NIDs.
const PUSH_LEN: usize = 4096;

/// The records say whether an interface is up.
const FEATURE_NI_STATUS: u32 = 1 << 1;
/// The node does not forward.
const FEATURE_NOT_A_ROUTER: u32 = 1 << 2;
/// The records are all NIDs that the node has.
const FEATURE_MULTI_RAIL: u32 = 1 << 3;
/// The node acknowledges descriptions that are pushed to it.
const FEATURE_DISCOVERY: u32 = 1 << 4;
/// There are long NIDs.
const FEATURE_LONG: u32 = 1 << 5;
/// The NID by which the node wants to be known is the first of the long ones.
const FEATURE_PRIMARY_LONG: u32 = 1 << 6;

/// The NID of the loopback interface, `0@lo`: network type 9.
const NID_LOOPBACK: u64 = 9 << 48;
/// In its record, the status is the version of the description.
const VERSION: u32 = 1;
/// The status of an interface that is up.
const STATUS_UP: u32 = 0x15aa_c0de;
/// The status of an interface without a link.
const STATUS_DOWN: u32 = 0xdead_face;

/// A description that is being written.
struct Writer(KVec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) -> Result {
        Ok(self.0.extend_from_slice(bytes, GFP_KERNEL)?)
    }

    fn u32(&mut self, value: u32) -> Result {
        self.bytes(&value.to_le_bytes())
    }

    fn record(&mut self, nid: u64, status: u32, whole: u32) -> Result {
        self.bytes(&nid.to_le_bytes())?;
        self.u32(status)?;
        self.u32(whole)
    }

    fn long_record(&mut self, nid: Nid, status: u32) -> Result {
        self.u32(status)?;
        self.bytes(&nid.to_bytes20())
    }
}

/// The description of a node with the NIDs `all`, the one by which it wants to be known first. May
/// sleep.
fn describe(all: &[PingNi], forwards: bool) -> Result<KVec<u8>> {
    let own = all.get(..MAX_OWN).unwrap_or(all);
    let mut features = FEATURE_NI_STATUS | FEATURE_DISCOVERY;
    if !forwards {
        features |= FEATURE_NOT_A_ROUTER;
    }
    if own.len() == all.len() {
        features |= FEATURE_MULTI_RAIL;
    }
    let short = own.iter().filter(|ni| ni.nid.to_nid4().is_some()).count();
    let long = own.len() - short;
    let mut len = 0;
    if long > 0 {
        features |= FEATURE_LONG;
        len = HEAD_LEN + (1 + short) * RECORD_LEN + long * LONG_RECORD_LEN;
    }
    if own.first().is_some_and(|ni| ni.nid.to_nid4().is_none()) {
        features |= FEATURE_PRIMARY_LONG;
    }
    let mut to = Writer(KVec::new());
    to.u32(MAGIC)?;
    to.u32(features)?;
    to.u32(PID_LUSTRE)?;
    // CAST: At most `MAX_OWN` and one, and what so many take.
    to.u32((1 + short) as u32)?;
    to.record(NID_LOOPBACK, VERSION, len as u32)?;
    for ni in own {
        if let Some(nid4) = ni.nid.to_nid4() {
            to.record(nid4, ni.status, 0)?;
        }
    }
    for ni in own.iter().filter(|ni| ni.nid.to_nid4().is_none()) {
        to.long_record(ni.nid, ni.status)?;
    }
    Ok(to.0)
}

/// Whether somebody asks who this node is.
pub(super) fn is_question(request: &Request) -> bool {
    request.access == Access::Get && request.portal == PORTAL && request.match_bits == MATCH_BITS
}

/// The answer to `request`, which has come to `ni`. May sleep.
///
/// # Errors
///
/// `ENOMEM`; `EINVAL` if it asks for what is behind the end.
pub(super) fn answer(node: &Node, ni: NiRef<'_>, request: &Request) -> Result<PageRange> {
    let status = |ni: &dyn LndNi| PingNi {
        nid: ni.nid(),
        status: match ni.link() {
            Link::Up => STATUS_UP,
            Link::Down => STATUS_DOWN,
        },
    };
    let locals = node.locals()?;
    let mut own = KVec::with_capacity(locals.len().saturating_add(1), GFP_KERNEL)?;
    if !locals.iter().any(|local| local.nid() == ni.nid()) {
        // It is about to be listed, or is no longer.
        own.push(status(&*ni), GFP_KERNEL)?;
    }
    for local in locals.iter() {
        own.push(status(&*local.ni), GFP_KERNEL)?;
    }
    let description = describe(&own, node.forwarder().is_on())?;
    let length = md::fit(description.len(), true, request.offset, request.length);
    let pages = Pages::alloc(description.len())?;
    pages.copy_in(0, &description)?;
    PageRange::new(
        Arc::new(pages, GFP_KERNEL)?,
        request.offset as usize,
        length.ok_or(EINVAL)? as usize,
    )
}

/// Lets `core` take what is pushed. Pings need no match entry, see [`answer`]. May sleep.
pub(super) fn serve(core: &Core) -> Result {
    let criteria = Criteria {
        portal: PORTAL,
        match_bits: MATCH_BITS,
        ignore_bits: 0,
        source: None,
    };
    let pushed = Md {
        range: PageRange::new(Arc::new(Pages::alloc(PUSH_LEN)?, GFP_KERNEL)?, 0, PUSH_LEN)?,
        access: Access::Put,
        truncate: true,
        placement: Placement::Remote,
        reuse: Reuse::Always,
        handler: None,
    };
    core.attach(criteria, Position::Last, &Arc::new(pushed, GFP_KERNEL)?)?;
    Ok(())
}

/// One NID of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PingNi {
    /// The NID.
    pub(crate) nid: Nid,
    /// Whether it is up, as nodes say it.
    pub(crate) status: u32,
}

/// What a node says about itself.
pub(crate) struct PingReport {
    /// From the question to the answer, connecting included.
    pub(crate) rtt_ns: u64,
    /// Its process number.
    pub(crate) pid: u32,
    /// Its set of features.
    pub(crate) features: u32,
    /// Its NIDs on TCP networks, at most [`MAX_NIS`].
    pub(crate) nis: KVec<PingNi>,
}

/// Memory that is read from its beginning, in the order of a node that may be of the other kind.
struct Reader<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.bytes.split_first_chunk().ok_or(EPROTO)?;
        self.bytes = rest;
        Ok(*bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        let bytes = self.take()?;
        Ok(if self.is_big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    fn u64(&mut self) -> Result<u64> {
        let bytes = self.take()?;
        Ok(if self.is_big_endian {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        })
    }
}

/// Reads a description. `EPROTO` if it is none.
fn understand(bytes: &[u8]) -> Result<PingReport> {
    let mut from = Reader {
        bytes,
        is_big_endian: false,
    };
    let magic = from.u32()?;
    from.is_big_endian = magic == MAGIC.swap_bytes();
    if magic != MAGIC && !from.is_big_endian {
        return Err(EPROTO);
    }
    let features = from.u32()?;
    let pid = from.u32()?;
    let said = from.u32()? as usize;
    // A node may have more than there was room for.
    let count = said.min(from.bytes.len() / RECORD_LEN);
    let mut nis = KVec::with_capacity(MAX_NIS, GFP_KERNEL)?;
    for _ in 0..count {
        let nid = from.u64()?;
        let status = from.u32()?;
        from.u32()?;
        // Other kinds of networks, loopback among them, are nothing that could be asked for here.
        if let Ok(nid) = Nid::from_nid4(nid) {
            let _ = nis.push_within_capacity(PingNi { nid, status });
        }
    }
    if features & FEATURE_LONG != 0 && count == said {
        // Less than a record is left of one that did not fit.
        while from.bytes.len() >= LONG_RECORD_LEN {
            let status = from.u32()?;
            let bytes = from.take()?;
            match Nid::from_bytes20(&bytes) {
                Ok(nid) => {
                    let _ = nis.push_within_capacity(PingNi { nid, status });
                }
                // On another kind of network: nothing that could be asked for here either.
                Err(WireError::NetType(_)) if bytes.first() == Some(&12) => {}
                // One of another length: where the next one begins is not known.
                Err(_) => break,
            }
        }
    }
    Ok(PingReport {
        rtt_ns: 0,
        pid,
        features,
        nis,
    })
}

/// See [`super::Local::ping`].
pub(super) fn ping(
    core: &Arc<Core>,
    ni: NiRef<'_>,
    to: Nid,
    timeout_ms: u32,
) -> Result<PingReport> {
    let deadline_ms = time::monotonic_ms().saturating_add(u64::from(timeout_ms));
    let pages = Arc::new(Pages::alloc(MAX_LEN)?, GFP_KERNEL)?;
    let sink = PageRange::new(pages.clone(), 0, MAX_LEN)?;
    let start = Instant::<Monotonic>::now();
    let get = Get {
        to,
        portal: PORTAL,
        match_bits: MATCH_BITS,
        offset: 0,
        sink,
    };
    let Outcome { result, at, .. } = core.get_and_wait(ni, get, deadline_ms)?;
    let mut bytes = [0; MAX_LEN];
    pages.copy_out(0, &mut bytes)?;
    let mut report = understand(bytes.get(..result? as usize).ok_or(EPROTO)?)?;
    report.rtt_ns = u64::try_from((at - start).as_nanos()).unwrap_or(0);
    Ok(report)
}

#[kunit_tests(socklnd_portals_ping)]
mod tests {
    use super::*;

    /// What a node running Lustre 2.17 answered.
    const CAPTURED: [u8; HEAD_LEN + 2 * RECORD_LEN] = [
        0x67, 0x6e, 0x69, 0x70, 0x1e, 0x00, 0x00, 0x00, 0x39, 0x30, 0x00, 0x00, 0x02, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x02, 0x4d, 0xa8, 0xc0, 0x00, 0x00, 0x02, 0x00, 0xde, 0xc0, 0xaa, 0x15, 0x00,
        0x00, 0x00, 0x00,
    ];

    fn nid() -> Nid {
        Nid::tcp(0, [192, 168, 77, 2])
    }

    fn up(nid: Nid) -> PingNi {
        PingNi {
            nid,
            status: STATUS_UP,
        }
    }

    #[test]
    fn answers_as_captured() -> Result {
        assert!(describe(&[up(nid())], false)?.eq(&CAPTURED[..]));
        Ok(())
    }

    #[test]
    fn says_what_is_so() -> Result {
        let down = PingNi {
            nid: Nid::tcp(7, [10, 0, 0, 1]),
            status: STATUS_DOWN,
        };
        let all = [up(nid()), up(long_nid()), down];
        let told = describe(&all, true)?;
        let report = understand(&told)?;
        assert_eq!(report.features, 0x3a);
        // Short ones come first.
        assert!(report.nis.eq(&[all[0], all[2], all[1]][..]));
        assert_eq!(
            told.get(28..32),
            Some(&(told.len() as u32).to_le_bytes()[..])
        );
        // The first one is a long one, and more than are told of.
        let mut many = KVec::from_elem(down, MAX_OWN + 1, GFP_KERNEL)?;
        *many.first_mut().ok_or(EINVAL)? = up(long_nid());
        let told = describe(&many, false)?;
        assert_eq!(understand(&told)?.features, 0x76);
        let len = HEAD_LEN + MAX_OWN * RECORD_LEN + LONG_RECORD_LEN;
        assert_eq!(told.len(), len);
        Ok(())
    }

    /// Written down by hand, for fd00::2@tcp7.
    const LONG_LEN: usize = HEAD_LEN + RECORD_LEN + LONG_RECORD_LEN;
    const LONG: [u8; LONG_LEN] = *b"\x67\x6e\x69\x70\x7e\0\0\0\x39\x30\0\0\x01\0\0\0\
           \0\0\0\0\0\0\x09\0\x01\0\0\0\x38\0\0\0\
           \xde\xc0\xaa\x15\x0c\x02\0\x07\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02";

    fn long_nid() -> Nid {
        Nid::tcp(7, [0xfd00u16, 0, 0, 0, 0, 0, 0, 2])
    }

    #[test]
    fn long_nids() -> Result {
        assert!(describe(&[up(long_nid())], false)?.eq(&LONG[..]));
        let report = understand(&LONG)?;
        assert!(report.nis.eq(&[up(long_nid())][..]));

        // Cut off; without the feature; and with more short records said than there are.
        let short = LONG.get(..LONG_LEN - 1).ok_or(EINVAL)?;
        assert_eq!(understand(short)?.nis.len(), 0);
        for (at, value) in [(4, 0x1e), (12, 200)] {
            let mut bytes = LONG;
            *bytes.get_mut(at).ok_or(EINVAL)? = value;
            assert_eq!(understand(&bytes)?.nis.len(), 0);
        }
        // NIDs of no known length end the list; those on another kind of network are not in it.
        for (at, value) in [(36, 13), (37, 0), (37, 5)] {
            let mut bytes = LONG;
            *bytes.get_mut(at).ok_or(EINVAL)? = value;
            assert_eq!(understand(&bytes)?.nis.len(), 0);
        }
        // As many as were asked for, and no more.
        let mut to = Writer(KVec::new());
        to.bytes(LONG.first_chunk::<32>().ok_or(EINVAL)?)?;
        for _ in 0..MAX_NIS + 1 {
            to.long_record(long_nid(), STATUS_UP)?;
        }
        assert_eq!(understand(&to.0)?.nis.len(), MAX_NIS);
        Ok(())
    }

    #[test]
    fn understands_what_was_captured() -> Result {
        let report = understand(&CAPTURED)?;
        assert_eq!(report.pid, PID_LUSTRE);
        assert_eq!(report.features, 0x1e);
        assert_eq!(report.nis.len(), 1);
        assert!(report.nis.first() == Some(&up(nid())));
        Ok(())
    }

    #[test]
    fn understands_the_other_byte_order() -> Result {
        let mut to = Writer(KVec::new());
        for word in [MAGIC, 0x06, PID_LUSTRE, 1, 0x0002_0000, 0xc0a8_4d02] {
            to.bytes(&word.to_be_bytes())?;
        }
        to.bytes(&STATUS_UP.to_be_bytes())?;
        to.u32(0)?;
        let report = understand(&to.0)?;
        assert_eq!(report.pid, PID_LUSTRE);
        assert_eq!(report.features, 0x06);
        assert!(report.nis.first().is_some_and(|ni| ni.nid == nid()));
        Ok(())
    }

    #[test]
    fn cut_off_and_garbage() -> Result {
        for len in 0..HEAD_LEN {
            let bytes = CAPTURED.get(..len).ok_or(EINVAL)?;
            assert_eq!(understand(bytes).err(), Some(EPROTO));
        }
        for len in HEAD_LEN..CAPTURED.len() {
            let bytes = CAPTURED.get(..len).ok_or(EINVAL)?;
            assert_eq!(understand(bytes)?.nis.len(), 0);
        }
        assert_eq!(understand(&[0xff; LONG_LEN]).err(), Some(EPROTO));
        // A count that is a lie.
        let mut bytes = CAPTURED;
        if let Some(count) = bytes.get_mut(12..16) {
            count.copy_from_slice(&[0xff; 4]);
        }
        assert_eq!(understand(&bytes)?.nis.len(), 1);
        Ok(())
    }
}
