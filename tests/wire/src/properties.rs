// SPDX-License-Identifier: GPL-2.0

//! What must hold for all values and all bytes.

use crate::module::wire::{
    AcceptorRequest,
    Body,
    ConnType,
    Header,
    Hello,
    HelloReader,
    IpVec,
    Nid,
    Progress,
    WireError,
    WireHandle,
    ACCEPTOR_REFUSAL,
    HEADER_LEN,
    HELLO_V1_MAX,
    MAX_PAYLOAD,
    PID_LUSTRE, //
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
        any::<(u64, u64)>().prop_map(|(interface, object)| WireHandle { interface, object }),
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
    (nid(), nid(), any::<u32>(), body()).prop_map(|(dest, src, src_pid, (body, payload_len))| {
        Header {
            dest,
            src,
            dest_pid: PID_LUSTRE,
            src_pid,
            payload_len,
            body,
        }
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    let kind = prop_oneof![
        Just(None),
        (0..4).prop_map(|number| ConnType::from_wire(number).ok()),
    ];
    (nid(), any::<(u32, u32, u64)>(), kind, vec(ip(), 0..=16)).prop_map(
        |(src, (src_pid, dest_pid, incarnation), kind, list)| {
            let mut ips = IpVec::new();
            for ip in list {
                ips.push(ip).unwrap();
            }
            Hello {
                src,
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
    let mut bytes = [0xff; HELLO_V1_MAX];
    let len = hello.build_v1(&mut bytes).unwrap();
    bytes[..len].to_vec()
}

/// Bytes that often get far: a handshake, cut or followed by more, with a few bytes changed.
fn almost_handshake() -> impl Strategy<Value = Vec<u8>> {
    let request = prop_oneof![
        Just(Vec::new()),
        Just(ACCEPTOR_REFUSAL.to_vec()),
        nid().prop_map(|target| AcceptorRequest { target }.build().unwrap().to_vec()),
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
        target in nid(),
        hello in hello(),
        behind in vec(any::<u8>(), 0..80),
        pieces in vec(1..100usize, 1..20),
    ) {
        let request = AcceptorRequest { target };
        let mut bytes = bytes_of(&hello);
        let hello_len = bytes.len();
        bytes.extend(&behind);
        let bare = vec![Ok(Progress::Hello(hello))];
        prop_assert_eq!(run(HelloReader::active(), &bytes, &pieces), (bare.clone(), hello_len));
        prop_assert_eq!(run(HelloReader::passive(), &bytes, &pieces), (bare, hello_len));

        let mut full = request.build().unwrap().to_vec();
        full.extend(bytes);
        let said = vec![Ok(Progress::Request(request)), Ok(Progress::Hello(hello))];
        prop_assert_eq!(run(HelloReader::passive(), &full, &pieces), (said, 16 + hello_len));
    }

    #[test]
    fn pieces_do_not_matter(
        bytes in prop_oneof![almost_handshake(), vec(any::<u8>(), 0..200)],
        pieces in vec(1..100usize, 1..20),
    ) {
        for new in [HelloReader::passive, HelloReader::active] {
            prop_assert_eq!(run(new(), &bytes, &pieces), run(new(), &bytes, &[usize::MAX]));
        }
    }
}
