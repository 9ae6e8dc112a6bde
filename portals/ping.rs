// SPDX-License-Identifier: GPL-2.0

//! LNet's ping: a node sends its ping info, a description of itself, to any node that asks for it.
//!
//! A ping is a GET on portal 0 with match bits 1 << 63. The ping info is a head and a record for each NID of
//! the node, the loopback NI first. It is in the byte order of the node that sends it, which its
//! magic tells; this node writes little-endian.
//!
//! A record has 8 bytes for a NID. Longer NIDs are in long records behind all of these, which are not counted
//! in the head: a feature bit says that there are some, and the last word of the first record is the
//! length of the whole ping info. This form is not from captures, which have only IPv4.
//!
//! Nodes that do discovery also send ("push") their own ping info to the same portal and match bits, and wait for the
//! ACK, which says how much of it was received. This node does not use it: it is received into memory that is
//! not read, where the ping info of several nodes overwrites each other.
//!
//! What a node is changes: its NIDs, their links, and whether it forwards. So the ping info is made when the
//! ping comes in. It is owned by the REPLY; memory for the ping info of others is owned by the thread that pings.

use super::{
    md::{
        Access,
        Md,
        Placement,
        Reuse,
        TooLong, //
    },
    op::OpEvent,
    outgoing::Get,
    table::{
        Criteria,
        MatchInfo,
        Position, //
    },
    PortalsInner, //
};
use crate::{
    lib_linux::page::{
        PageRange,
        Pages, //
    },
    upper::{
        Link,
        LndNi,
        NiRef, //
    },
    wire::{
        ByteOrder,
        Nid,
        Reader,
        WireError,
        Writer,
        PID_LUSTRE, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        Delta,
        Instant, //
    }, //
};

const PORTAL: u32 = 0;
const MATCH_BITS: u64 = 1 << 63;

const MAGIC: u32 = 0x7069_6e67;
const HEAD_LEN: usize = 16;
const RECORD_LEN: usize = 16;
/// Bytes of a long record: a status, and a NID in its form of 20 bytes.
const LONG_RECORD_LEN: usize = 24;

/// The most NIDs of another node that are read.
pub(crate) const MAX_NIS: usize = 16;
const MAX_LEN: usize = HEAD_LEN + RECORD_LEN + MAX_NIS * LONG_RECORD_LEN;

/// The most NIDs in the ping info of this node, so that it fits into a page.
const MAX_OWN: usize = 128;

/// The most bytes of another node's ping info that are received when it is pushed.
const PUSH_LEN: usize = 4096;

/// The status in a record says whether the NI is up.
const FEATURE_NI_STATUS: u32 = 1 << 1;
/// The node does not forward.
const FEATURE_NOT_A_ROUTER: u32 = 1 << 2;
/// The records are of all NIDs of the node.
const FEATURE_MULTI_RAIL: u32 = 1 << 3;
/// The node acknowledges ping info that is pushed to it.
const FEATURE_DISCOVERY: u32 = 1 << 4;
/// There are long records.
const FEATURE_LONG: u32 = 1 << 5;
/// The primary NID of the node is the first of the long ones.
const FEATURE_PRIMARY_LONG: u32 = 1 << 6;

/// The NID of the loopback NI, `0@lo`: network type 9.
const NID_LOOPBACK: u64 = 9 << 48;
/// In its record, the status is the version of the ping info.
const VERSION: u32 = 1;
/// The status of an NI that is up.
const STATUS_UP: u32 = 0x15aa_c0de;
/// The status of an NI without a link.
const STATUS_DOWN: u32 = 0xdead_face;

/// Whether a node forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Routing {
    Enabled,
    Disabled,
}

/// Writes a record. `len` is the length of the ping info if there are long records, in the first record; else 0.
fn put_record(to: &mut Writer<'_>, nid: u64, status: u32, len: u32) -> Result<(), WireError> {
    to.u64(nid)?;
    to.u32(status)?;
    to.u32(len)
}

fn put_long_record(to: &mut Writer<'_>, nid: Nid, status: u32) -> Result<(), WireError> {
    to.u32(status)?;
    to.put(nid.to_bytes20())
}

/// The ping info of a node with the NIDs `all`, its primary NID first. May sleep.
fn build_ping_info(all: &[PingNi], routing: Routing) -> Result<KVec<u8>> {
    let own = all.get(..MAX_OWN).unwrap_or(all);
    let mut features = FEATURE_NI_STATUS | FEATURE_DISCOVERY;
    if routing == Routing::Disabled {
        features |= FEATURE_NOT_A_ROUTER;
    }
    if own.len() == all.len() {
        features |= FEATURE_MULTI_RAIL;
    }
    let nshort = own.iter().filter(|ni| ni.nid.to_nid4().is_some()).count();
    let nlong = own.len() - nshort;
    let len = HEAD_LEN + (1 + nshort) * RECORD_LEN + nlong * LONG_RECORD_LEN;
    if nlong > 0 {
        features |= FEATURE_LONG;
    }
    if own.first().is_some_and(|ni| ni.nid.to_nid4().is_none()) {
        features |= FEATURE_PRIMARY_LONG;
    }
    let mut bytes = KVec::from_elem(0, len, GFP_KERNEL)?;
    write_ping_info(&mut bytes, own, features, nshort).map_err(|_| EINVAL)?;
    Ok(bytes)
}

/// Writes the ping info of a node with the NIDs `own`, of which `nshort` are short, into `bytes`, which has the
/// right length.
fn write_ping_info(
    bytes: &mut [u8],
    own: &[PingNi],
    features: u32,
    nshort: usize,
) -> Result<(), WireError> {
    // CAST: The length of at most `MAX_OWN` records and one.
    let len = match features & FEATURE_LONG {
        0 => 0,
        _ => bytes.len() as u32,
    };
    let mut to = Writer::new(bytes, ByteOrder::Little);
    to.u32(MAGIC)?;
    to.u32(features)?;
    to.u32(PID_LUSTRE)?;
    // CAST: At most `MAX_OWN` and one.
    to.u32((1 + nshort) as u32)?;
    put_record(&mut to, NID_LOOPBACK, VERSION, len)?;
    for ni in own {
        if let Some(nid4) = ni.nid.to_nid4() {
            put_record(&mut to, nid4, ni.status, 0)?;
        }
    }
    for ni in own.iter().filter(|ni| ni.nid.to_nid4().is_none()) {
        put_long_record(&mut to, ni.nid, ni.status)?;
    }
    Ok(())
}

/// Whether a message is a ping.
pub(super) fn is_ping(info: &MatchInfo) -> bool {
    info.access == Access::Get && info.portal == PORTAL && info.match_bits == MATCH_BITS
}

/// The payload of the REPLY to a ping, from a node with the NIs `nis`. May sleep.
///
/// # Errors
///
/// `ENOMEM`; `EINVAL` if its offset is behind the end.
pub(super) fn reply(nis: &[PingNi], routing: Routing, info: &MatchInfo) -> Result<PageRange> {
    let bytes = build_ping_info(nis, routing)?;
    let length = TooLong::Truncate.fit(bytes.len(), info.offset, info.length);
    let pages = Pages::alloc(bytes.len())?;
    pages.copy_in(0, &bytes)?;
    PageRange::new(
        Arc::new(pages, GFP_KERNEL)?,
        info.offset as usize,
        length.ok_or(EINVAL)? as usize,
    )
}

/// Posts the memory for ping info that other nodes push. Pings need no match entry, see [`reply`]. May sleep.
pub(super) fn post_push_buffer(portals: &PortalsInner) -> Result {
    let criteria = Criteria {
        portal: PORTAL,
        match_bits: MATCH_BITS,
        ignore_bits: 0,
        source: None,
    };
    let md = Md {
        range: PageRange::new(Arc::new(Pages::alloc(PUSH_LEN)?, GFP_KERNEL)?, 0, PUSH_LEN)?,
        access: Access::Put,
        too_long: TooLong::Truncate,
        placement: Placement::Remote,
        reuse: Reuse::Always,
        handler: None,
    };
    portals.attach(criteria, Position::Last, &Arc::new(md, GFP_KERNEL)?)?;
    Ok(())
}

/// One NID of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PingNi {
    /// The NID.
    pub(crate) nid: Nid,
    /// The status in its record: [`STATUS_UP`], [`STATUS_DOWN`], or what another node has sent.
    pub(crate) status: u32,
}

impl PingNi {
    /// The NID of an NI of this node, with its status now. Thread context.
    pub(super) fn of(ni: &dyn LndNi) -> Self {
        Self {
            nid: ni.nid(),
            status: match ni.link() {
                Link::Up => STATUS_UP,
                Link::Down => STATUS_DOWN,
            },
        }
    }
}

/// The ping info of another node.
pub(crate) struct PingReport {
    /// The time from the request to the response, including that for connecting.
    pub(crate) rtt: Delta,
    /// Its LNet process number.
    pub(crate) pid: u32,
    /// Its feature bits.
    pub(crate) features: u32,
    /// Its NIDs on TCP networks, at most [`MAX_NIS`].
    pub(crate) nis: KVec<PingNi>,
}

/// Parses ping info that was received.
///
/// # Errors
///
/// `ENOMEM`; `EPROTO` if it has no magic, or not all of a head.
fn parse_ping_info(bytes: &[u8]) -> Result<PingReport> {
    let order = if Reader::new(bytes, ByteOrder::Little).u32() == Ok(MAGIC) {
        ByteOrder::Little
    } else {
        ByteOrder::Big
    };
    let mut nis = KVec::with_capacity(MAX_NIS, GFP_KERNEL)?;
    let head = read_ping_info(Reader::new(bytes, order), &mut nis);
    let (features, pid) = head.map_err(|_| EPROTO)?;
    Ok(PingReport {
        rtt: Delta::ZERO,
        pid,
        features,
        nis,
    })
}

/// Reads ping info: returns the features and the process number, and adds the NIDs on TCP networks to `nis` while
/// there is room.
fn read_ping_info(mut from: Reader<'_>, nis: &mut KVec<PingNi>) -> Result<(u32, u32), WireError> {
    let magic = from.u32()?;
    if magic != MAGIC {
        return Err(WireError::Magic(magic));
    }
    let features = from.u32()?;
    let pid = from.u32()?;
    let nrecords = from.u32()? as usize;
    // A node may have more records than there was room for.
    let count = nrecords.min(from.rest().len() / RECORD_LEN);
    for _ in 0..count {
        let nid = from.u64()?;
        let status = from.u32()?;
        from.u32()?;
        // NIDs of other networks, such as loopback, can't be reached from here.
        if let Ok(nid) = Nid::from_nid4(nid) {
            let _ = nis.push_within_capacity(PingNi { nid, status });
        }
    }
    if features & FEATURE_LONG != 0 && count == nrecords {
        // The last record may be truncated.
        while from.rest().len() >= LONG_RECORD_LEN {
            let status = from.u32()?;
            let bytes = from.take()?;
            match Nid::from_bytes20(&bytes) {
                Ok(nid) => {
                    let _ = nis.push_within_capacity(PingNi { nid, status });
                }
                // Of another network: can't be reached from here either.
                Err(WireError::NetType(_)) if bytes.first() == Some(&12) => {}
                // Of another length, so it is not known where the next record begins.
                Err(_) => break,
            }
        }
    }
    Ok((features, pid))
}

/// See [`super::LocalNi::ping`].
pub(super) fn ping(
    portals: &Arc<PortalsInner>,
    ni: NiRef<'_>,
    to: Nid,
    timeout: Delta,
) -> Result<PingReport> {
    let pages = Arc::new(Pages::alloc(MAX_LEN)?, GFP_KERNEL)?;
    let sink = PageRange::new(pages.clone(), 0, MAX_LEN)?;
    let start = Instant::now();
    let get = Get {
        to,
        portal: PORTAL,
        match_bits: MATCH_BITS,
        offset: 0,
        sink,
    };
    let OpEvent { result, at, .. } = portals.get_and_wait(ni, get, start + timeout)?;
    let mut bytes = [0; MAX_LEN];
    pages.copy_out(0, &mut bytes)?;
    let mut report = parse_ping_info(bytes.get(..result? as usize).ok_or(EPROTO)?)?;
    report.rtt = at - start;
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
        assert!(build_ping_info(&[up(nid())], Routing::Disabled)?.eq(&CAPTURED[..]));
        Ok(())
    }

    #[test]
    fn says_what_is_so() -> Result {
        let down = PingNi {
            nid: Nid::tcp(7, [10, 0, 0, 1]),
            status: STATUS_DOWN,
        };
        let all = [up(nid()), up(long_nid()), down];
        let bytes = build_ping_info(&all, Routing::Enabled)?;
        let report = parse_ping_info(&bytes)?;
        assert_eq!(report.features, 0x3a);
        // Short ones come first.
        assert!(report.nis.eq(&[all[0], all[2], all[1]][..]));
        assert_eq!(
            bytes.get(28..32),
            Some(&(bytes.len() as u32).to_le_bytes()[..])
        );
        // The first one is a long one, and there are more than `MAX_OWN`.
        let mut many = KVec::from_elem(down, MAX_OWN + 1, GFP_KERNEL)?;
        *many.first_mut().ok_or(EINVAL)? = up(long_nid());
        let bytes = build_ping_info(&many, Routing::Disabled)?;
        assert_eq!(parse_ping_info(&bytes)?.features, 0x76);
        let len = HEAD_LEN + MAX_OWN * RECORD_LEN + LONG_RECORD_LEN;
        assert_eq!(bytes.len(), len);
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
        assert!(build_ping_info(&[up(long_nid())], Routing::Disabled)?.eq(&LONG[..]));
        let report = parse_ping_info(&LONG)?;
        assert!(report.nis.eq(&[up(long_nid())][..]));

        // Truncated; without the feature; and with a larger number of short records than there are.
        let short = LONG.get(..LONG_LEN - 1).ok_or(EINVAL)?;
        assert_eq!(parse_ping_info(short)?.nis.len(), 0);
        for (at, value) in [(4, 0x1e), (12, 200)] {
            let mut bytes = LONG;
            *bytes.get_mut(at).ok_or(EINVAL)? = value;
            assert_eq!(parse_ping_info(&bytes)?.nis.len(), 0);
        }
        // NIDs of an unknown length end the list; those of other networks are not in it.
        for (at, value) in [(36, 13), (37, 0), (37, 5)] {
            let mut bytes = LONG;
            *bytes.get_mut(at).ok_or(EINVAL)? = value;
            assert_eq!(parse_ping_info(&bytes)?.nis.len(), 0);
        }
        // There are more than `MAX_NIS`.
        let mut bytes = KVec::new();
        bytes.extend_from_slice(LONG.get(..32).ok_or(EINVAL)?, GFP_KERNEL)?;
        for _ in 0..MAX_NIS + 1 {
            bytes.extend_from_slice(LONG.get(32..).ok_or(EINVAL)?, GFP_KERNEL)?;
        }
        assert_eq!(parse_ping_info(&bytes)?.nis.len(), MAX_NIS);
        Ok(())
    }

    #[test]
    fn understands_what_was_captured() -> Result {
        let report = parse_ping_info(&CAPTURED)?;
        assert_eq!(report.pid, PID_LUSTRE);
        assert_eq!(report.features, 0x1e);
        assert_eq!(report.nis.len(), 1);
        assert!(report.nis.first() == Some(&up(nid())));
        Ok(())
    }

    #[test]
    fn understands_the_other_byte_order() -> Result {
        let words = [
            MAGIC,
            0x06,
            PID_LUSTRE,
            1,
            0x0002_0000,
            0xc0a8_4d02,
            STATUS_UP,
            0,
        ];
        let bytes = words.map(u32::to_be_bytes);
        let report = parse_ping_info(bytes.as_flattened())?;
        assert_eq!(report.pid, PID_LUSTRE);
        assert_eq!(report.features, 0x06);
        assert!(report.nis.first().is_some_and(|ni| ni.nid == nid()));
        Ok(())
    }

    #[test]
    fn cut_off_and_garbage() -> Result {
        for len in 0..HEAD_LEN {
            let bytes = CAPTURED.get(..len).ok_or(EINVAL)?;
            assert_eq!(parse_ping_info(bytes).err(), Some(EPROTO));
        }
        for len in HEAD_LEN..CAPTURED.len() {
            let bytes = CAPTURED.get(..len).ok_or(EINVAL)?;
            assert_eq!(parse_ping_info(bytes)?.nis.len(), 0);
        }
        assert_eq!(parse_ping_info(&[0xff; LONG_LEN]).err(), Some(EPROTO));
        // A number of records that is too large.
        let mut bytes = CAPTURED;
        if let Some(count) = bytes.get_mut(12..16) {
            count.copy_from_slice(&[0xff; 4]);
        }
        assert_eq!(parse_ping_info(&bytes)?.nis.len(), 1);
        Ok(())
    }
}
