// SPDX-License-Identifier: GPL-2.0

//! What must hold for all values and all bytes.

use crate::module::wire::{
    acked_ranges,
    AcceptorRequest,
    Acks,
    Added,
    Body,
    ByteOrder,
    ConnType,
    Header,
    Hello,
    HelloReader,
    IpVec,
    Msg,
    MsgKind,
    Nid,
    Progress,
    Proto,
    WireError,
    WireHandle,
    ACCEPTOR_REFUSAL,
    HEADER_LEN,
    HELLO_MAX,
    LONG_HEADER_LEN,
    MAX_HDR,
    MAX_PAYLOAD,
    MSG_LEN,
    PID_LUSTRE,
    REQUEST_MAX, //
};
use proptest::{
    array,
    collection::vec,
    prelude::*, //
};
use std::net::{
    Ipv4Addr,
    Ipv6Addr, //
};

fn ip() -> impl Strategy<Value = Ipv4Addr> {
    (1..=u32::MAX).prop_map(Ipv4Addr::from)
}

fn nid() -> impl Strategy<Value = Nid> {
    (any::<u16>(), ip()).prop_map(|(net, ip)| Nid::tcp(net, ip))
}

fn any_nid() -> impl Strategy<Value = Nid> {
    let v6 = (any::<u16>(), 1..=u128::MAX)
        .prop_map(|(net, bits)| Nid::tcp(net, Ipv6Addr::from_bits(bits)));
    prop_oneof![nid(), v6]
}

fn handle() -> impl Strategy<Value = WireHandle> {
    prop_oneof![
        Just(WireHandle::NONE),
        any::<(u64, u64)>().prop_map(|(interface_cookie, object)| WireHandle {
            interface_cookie,
            object,
        }),
    ]
}

/// A type of message and a length that it may have.
fn body() -> impl Strategy<Value = (Body, u32)> {
    let len = 0..=MAX_PAYLOAD;
    prop_oneof![
        (handle(), any::<(u64, u32)>()).prop_map(|(dst_wmd, (match_bits, mlength))| {
            let body = Body::Ack {
                dst_wmd,
                match_bits,
                mlength,
            };
            (body, 0)
        }),
        (handle(), any::<(u64, u64, u32, u32)>(), len.clone()).prop_map(|(ack_wmd, rest, len)| {
            let (match_bits, hdr_data, portal, offset) = rest;
            let body = Body::Put {
                ack_wmd,
                match_bits,
                hdr_data,
                portal,
                offset,
            };
            (body, len)
        }),
        (handle(), any::<(u64, u32, u32, u32)>()).prop_map(|(return_wmd, rest)| {
            let (match_bits, portal, src_offset, sink_len) = rest;
            let body = Body::Get {
                return_wmd,
                match_bits,
                portal,
                src_offset,
                sink_len,
            };
            (body, 0)
        }),
        (handle(), len).prop_map(|(dst_wmd, len)| (Body::Reply { dst_wmd }, len)),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    header_between(nid(), nid())
}

fn header_between(
    dest: impl Strategy<Value = Nid>,
    src: impl Strategy<Value = Nid>,
) -> impl Strategy<Value = Header> {
    (dest, src, any::<u32>(), body()).prop_map(|(dest, src, src_pid, (body, payload_len))| Header {
        dest,
        src,
        dest_pid: PID_LUSTRE,
        src_pid,
        payload_len,
        body,
    })
}

fn order() -> impl Strategy<Value = ByteOrder> {
    prop_oneof![Just(ByteOrder::Little), Just(ByteOrder::Big)]
}

fn proto() -> impl Strategy<Value = Proto> {
    prop_oneof![
        Just(Proto::V1),
        Just(Proto::V2),
        Just(Proto::V3),
        Just(Proto::V4)
    ]
}

fn msg() -> impl Strategy<Value = Msg> {
    let kind = prop_oneof![Just(MsgKind::Noop), Just(MsgKind::Lnet)];
    (kind, any::<(u32, [u64; 2])>()).prop_map(|(kind, (csum, cookies))| Msg {
        kind,
        csum,
        cookies,
    })
}

/// All cookies that a NOOP acknowledges, by the rules of its version.
fn acknowledged(noop: [u64; 2], proto: Proto) -> Vec<u64> {
    match noop {
        [0, one] => vec![one],
        _ if proto < Proto::V3 => panic!("version 2 does not look at the first cookie"),
        [one, other] if one > other => vec![one, other],
        [first, last] => (first..=last).collect(),
    }
}

/// The same by the module's own reading of it.
fn read_back(noop: [u64; 2], proto: Proto) -> Vec<u64> {
    let msg = Msg {
        cookies: noop,
        ..Msg::new(MsgKind::Noop)
    };
    let ranges = acked_ranges(proto, &msg).unwrap().into_iter().flatten();
    ranges.flat_map(|(first, last)| first..=last).collect()
}

fn hello() -> impl Strategy<Value = Hello> {
    let kind = prop_oneof![
        Just(None),
        (0..4).prop_map(|number| ConnType::from_wire(number).ok()),
    ];
    let whole = (
        proto(),
        order(),
        [any_nid().boxed(), any_nid().boxed()],
        any::<(u32, u32, u64)>(),
        kind,
        vec(ip(), 0..=16),
    );
    let short = |nid: Nid| match nid.to_nid4() {
        Some(_) => nid,
        None => Nid::tcp(nid.net(), [10, 0, 0, 1]),
    };
    whole.prop_map(
        move |(proto, order, [src, dest], (src_pid, dest_pid, incarnation), kind, list)| {
            // What the version has no room for is left out.
            let nids = match proto {
                Proto::V4 => [src, dest],
                _ => [short(src), short(dest)],
            };
            let mut ips = IpVec::new();
            for ip in list.into_iter().filter(|_| proto != Proto::V4) {
                ips.push(ip).unwrap();
            }
            Hello {
                proto,
                order: match proto {
                    Proto::V1 => ByteOrder::Little,
                    _ => order,
                },
                src: nids[0],
                dest: (proto != Proto::V1).then_some(nids[1]),
                src_pid,
                dest_pid,
                incarnation,
                kind,
                ips,
            }
        },
    )
}

/// Bytes of `hello`.
fn bytes_of(hello: &Hello) -> Vec<u8> {
    hello.build(&mut [0xff; HELLO_MAX]).unwrap().to_vec()
}

fn request_for(target: Nid) -> Vec<u8> {
    let request = AcceptorRequest { target };
    request.build(&mut [0xff; REQUEST_MAX]).unwrap().to_vec()
}

/// Bytes that often get far: a handshake, cut or followed by more, with a few bytes changed.
fn almost_handshake() -> impl Strategy<Value = Vec<u8>> {
    let request = prop_oneof![
        Just(Vec::new()),
        Just(ACCEPTOR_REFUSAL.to_vec()),
        any_nid().prop_map(request_for),
    ];
    let changes = vec(
        (
            any::<prop::sample::Index>(),
            prop_oneof![Just(0), any::<u8>()],
        ),
        0..4,
    );
    (request, hello(), changes, vec(any::<u8>(), 0..80)).prop_map(
        |(mut bytes, hello, changes, behind)| {
            bytes.extend(bytes_of(&hello));
            bytes.extend(behind);
            for (index, value) in changes {
                let index = index.index(bytes.len());
                bytes[index] = value;
            }
            bytes
        },
    )
}

/// All that a reader says to `bytes`, given in pieces of these sizes, over and over; and how many
/// bytes it took.
fn run(
    mut reader: HelloReader,
    bytes: &[u8],
    pieces: &[usize],
) -> (Vec<Result<Progress, WireError>>, usize) {
    let mut said = Vec::new();
    let mut taken = 0;
    for piece in pieces.iter().cycle() {
        let room = reader.want();
        let n = room.len().min(*piece).min(bytes.len() - taken);
        if n == 0 {
            break;
        }
        room[..n].copy_from_slice(&bytes[taken..][..n]);
        taken += n;
        match reader.filled(n) {
            Ok(Progress::More) => assert!(!reader.want().is_empty()),
            Ok(Progress::Request(request)) => {
                said.push(Ok(Progress::Request(request)));
                assert!(!reader.want().is_empty());
            }
            last => {
                said.push(last);
                assert!(reader.want().is_empty());
            }
        }
    }
    (said, taken)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nid_forms_round_trip(nid in nid()) {
        prop_assert_eq!(nid.to_nid4().map(Nid::from_nid4), Some(Ok(nid)));
    }

    #[test]
    fn nid4_is_read_exactly(number: u64) {
        // What is read is what is written; nothing in a number is ignored.
        for number in [number, number & 0xffff_ffff_ffff | 2 << 48] {
            if let Ok(nid) = Nid::from_nid4(number) {
                prop_assert_eq!(nid.to_nid4(), Some(number));
            }
        }
    }

    #[test]
    fn long_nids_round_trip(nid in any_nid()) {
        prop_assert_eq!(Nid::from_bytes20(&nid.to_bytes20()), Ok(nid));
    }

    #[test]
    fn long_nids_are_read_exactly(bytes: [u8; 20], longer in 0..14u8, spare in 0..12usize) {
        let mut bytes = bytes;
        // So that it is not always the first bytes that are wrong.
        (bytes[0], bytes[1]) = (longer, 2);
        bytes[20 - spare..].fill(0);
        if let Ok(nid) = Nid::from_bytes20(&bytes) {
            prop_assert_eq!(nid.to_bytes20(), bytes);
        }
    }

    #[test]
    fn nid_text_round_trips(nid in any_nid()) {
        prop_assert_eq!(nid.to_string().parse(), Ok(nid));
    }

    #[test]
    fn nid_text_is_read_strictly(text in "[0-9.:a-f]{0,9}@?[tcp]{0,3}[+0-9]{0,6}|\\PC{0,20}") {
        if let Ok(nid) = text.parse::<Nid>() {
            prop_assert_eq!(nid.to_string().parse(), Ok(nid));
        }
    }

    #[test]
    fn nids_are_ordered_as_their_bytes(a in any_nid(), b in any_nid()) {
        prop_assert_eq!(a.cmp(&b), a.to_bytes20().cmp(&b.to_bytes20()));
        prop_assert_eq!(a == b, a.to_bytes20() == b.to_bytes20());
        if let (Some(x), Some(y)) = (a.to_nid4(), b.to_nid4()) {
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        }
    }

    #[test]
    fn headers_round_trip(header in header()) {
        let bytes = header.build();
        prop_assert!(bytes.is_ok());
        prop_assert_eq!(bytes.and_then(|bytes| Header::parse(&bytes)), Ok(header));
    }

    #[test]
    fn long_headers_round_trip(header in header_between(any_nid(), any_nid())) {
        let bytes = header.build_long();
        prop_assert!(bytes.is_ok());
        prop_assert_eq!(bytes.and_then(|bytes| Header::parse_long(&bytes)), Ok(header));
    }

    #[test]
    fn any_long_header_is_refused_or_in_range(
        bytes in array::uniform::<_, LONG_HEADER_LEN>(any::<u8>()),
        header in header_between(any_nid(), any_nid()),
        kind in 0..6u8,
    ) {
        let mut bytes = bytes;
        bytes[..48].copy_from_slice(&header.build_long().unwrap()[..48]);
        bytes[48..52].copy_from_slice(&[kind, 0, 0, 0]);
        bytes[54..56].fill(0);
        if let Ok(header) = Header::parse_long(&bytes) {
            prop_assert!(header.payload_len <= MAX_PAYLOAD);
            prop_assert_eq!(Header::parse_long(&header.build_long().unwrap()), Ok(header));
        }
    }

    #[test]
    fn message_headers_round_trip(msg in msg(), order in order()) {
        let bytes = msg.build(order).unwrap();
        prop_assert_eq!(Msg::parse(&bytes, order), Ok(msg));
        let mut swapped = bytes;
        for (at, len) in [(0, 4), (4, 4), (8, 8), (16, 8)] {
            swapped[at..][..len].reverse();
        }
        let other = match order {
            ByteOrder::Little => ByteOrder::Big,
            ByteOrder::Big => ByteOrder::Little,
        };
        prop_assert_eq!(Msg::parse(&swapped, other), Ok(msg));
        prop_assert!(Msg::parse(&bytes, other).is_err());
    }

    #[test]
    fn frames_round_trip(msg in msg(), header in header(), proto in proto()) {
        let mut bytes = [0xff; MAX_HDR];
        let frame = proto.hdr(&msg, Some(&header), &mut bytes).unwrap();
        prop_assert_eq!(frame.len(), proto.hdr_len());
        let (front, rest) = frame.split_at(proto.hdr_len() - proto.header_len());
        if let Some(front) = front.first_chunk() {
            prop_assert_eq!(Msg::parse(front, ByteOrder::NATIVE), Ok(msg));
        }
        prop_assert_eq!(proto.parse_header(rest), Ok(header));
    }

    #[test]
    fn any_message_header_is_refused_or_read_exactly(
        bytes in array::uniform::<_, MSG_LEN>(any::<u8>()),
        kind in prop_oneof![Just(0xc0), Just(0xc1), any::<u32>()],
    ) {
        let mut bytes = bytes;
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        match Msg::parse(&bytes, ByteOrder::Little) {
            Ok(msg) => prop_assert_eq!(msg.build(ByteOrder::Little), Ok(bytes)),
            Err(why) => prop_assert_eq!(why, WireError::Type(kind)),
        }
    }

    /// Cookies are acknowledged once each, in whatever order and whichever way they go out.
    #[test]
    fn acknowledgements_are_complete(
        first in 2..u64::MAX - 60,
        gaps in vec(prop_oneof![4 => Just(1u64), 1 => 2..4u64], 0..28),
        proto in proto(),
        order: prop::sample::Index,
        ways in vec(any::<bool>(), 1..8),
    ) {
        let mut cookies: Vec<u64> = gaps
            .iter()
            .scan(first, |next, gap| {
                let cookie = *next;
                *next += gap;
                Some(cookie)
            })
            .collect();
        let due = cookies.clone();
        if !cookies.is_empty() {
            let middle = order.index(cookies.len());
            cookies.rotate_left(middle);
            let half = cookies.len() / 2;
            cookies[half..].reverse();
        }
        let mut acks = Acks::new();
        for cookie in &cookies {
            prop_assert_eq!(acks.add(*cookie), Ok(Added::Yes));
            prop_assert_eq!(acks.add(*cookie), Err(WireError::Cookie(*cookie)));
        }
        let mut seen = Vec::new();
        for one in ways.iter().cycle() {
            prop_assert_eq!(acks.is_empty(), seen.len() == due.len());
            let some = if *one {
                acks.pop().map(|cookie| vec![cookie])
            } else {
                let noop = acks.pop_noop(proto);
                if let Some(noop) = noop {
                    prop_assert_eq!(read_back(noop, proto), acknowledged(noop, proto));
                }
                noop.map(|noop| acknowledged(noop, proto))
            };
            match some {
                Some(some) => seen.extend(some),
                None => break,
            }
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, due);
    }

    #[test]
    fn any_header_is_refused_or_in_range(
        bytes in array::uniform::<_, HEADER_LEN>(any::<u8>()),
        header in header(),
        kind in 0..6u8,
        whole: bool,
    ) {
        let mut bytes = bytes;
        if !whole {
            // So that it is not always the NIDs that are wrong.
            bytes[..24].copy_from_slice(&header.build().unwrap()[..24]);
            bytes[24..28].copy_from_slice(&[kind, 0, 0, 0]);
            bytes[30..32].fill(0);
        }
        if let Ok(header) = Header::parse(&bytes) {
            prop_assert!(header.payload_len <= MAX_PAYLOAD);
            prop_assert_eq!(Header::parse(&header.build().unwrap()), Ok(header));
        }
    }

    #[test]
    fn handshakes_are_read_to_their_end_in_any_pieces(
        target in any_nid(),
        hello in hello(),
        behind in vec(any::<u8>(), 0..80),
        pieces in vec(1..100usize, 1..20),
    ) {
        let mut bytes = bytes_of(&hello);
        let hello_len = bytes.len();
        bytes.extend(&behind);
        let bare = vec![Ok(Progress::Hello(hello))];
        for newest in [hello.proto, Proto::NEWEST] {
            let active = run(HelloReader::active(newest), &bytes, &pieces);
            prop_assert_eq!(active, (bare.clone(), hello_len));
            let passive = run(HelloReader::passive(newest), &bytes, &pieces);
            prop_assert_eq!(passive, (bare.clone(), hello_len));
        }

        let mut full = request_for(target);
        let whole_len = full.len() + hello_len;
        full.extend(bytes);
        let said = vec![
            Ok(Progress::Request(AcceptorRequest { target })),
            Ok(Progress::Hello(hello)),
        ];
        let passive = run(HelloReader::passive(hello.proto), &full, &pieces);
        prop_assert_eq!(passive, (said, whole_len));
    }

    #[test]
    fn versions_that_are_not_spoken_are_told(
        hello in hello(),
        oldest in proto(),
        newest in proto(),
    ) {
        let (magic, version) = match hello.proto {
            Proto::V1 => (0xeebc_0ded, 1),
            later => (0x4572_6963, later.number()),
        };
        let reader = HelloReader::active(newest).not_before(oldest);
        let (said, taken) = run(reader, &bytes_of(&hello), &[usize::MAX]);
        if hello.proto > newest || hello.proto < oldest {
            let foreign = Progress::ForeignVersion { magic, version };
            prop_assert_eq!((said, taken), (vec![Ok(foreign)], 8));
        } else {
            prop_assert_eq!(said, vec![Ok(Progress::Hello(hello))]);
        }
    }

    #[test]
    fn pieces_do_not_matter(
        bytes in prop_oneof![almost_handshake(), vec(any::<u8>(), 0..200)],
        pieces in vec(1..100usize, 1..20),
        newest in proto(),
    ) {
        for new in [HelloReader::passive, HelloReader::active] {
            let at_once = run(new(newest), &bytes, &[usize::MAX]);
            prop_assert_eq!(run(new(newest), &bytes, &pieces), at_once);
        }
    }
}
