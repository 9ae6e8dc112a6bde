// SPDX-License-Identifier: GPL-2.0

//! What must hold for all bytes that a stranger may send: one function for each fuzz target.
//!
//! Built from the module's very own `wire.rs`. `cargo test` gives them the inputs that the
//! repository keeps in `corpus`; `fuzz/run` has libFuzzer look for new ones.

// Not all of it is for the targets.
#![allow(dead_code, unused_imports)]

/// The folder that holds the module's sources: `mod wire` finds its own folder from there.
#[path = "../.."]
mod module {
    pub(crate) mod wire;
}

mod values;

use module::wire::{
    acked_ranges, AcceptorRequest, Acks, Added, ByteOrder, Header, Hello, HelloReader, Msg,
    MsgKind, Nid, Progress, Proto, WireError, COOKIE_PING, HELLO_MAX, MAX_PAYLOAD, MSG_LEN,
    REQUEST_MAX,
};
use std::collections::BTreeSet;

pub use values::values;

/// A header is refused, or within the documented ranges and built again with the same meaning.
pub fn header(data: &[u8]) {
    let Some(bytes) = data.first_chunk() else {
        return;
    };
    let Ok(header) = Header::parse(bytes) else {
        return;
    };
    assert!(header.payload_len <= MAX_PAYLOAD);
    let again = header.build().expect("what was read can be sent");
    assert_eq!(Header::parse(&again), Ok(header));
    // All that the type has no use for follows its fields.
    assert_eq!(bytes[..32], again[..32]);
}

/// The same for headers with long NIDs.
pub fn long_header(data: &[u8]) {
    let Some(bytes) = data.first_chunk() else {
        return;
    };
    let Ok(header) = Header::parse_long(bytes) else {
        return;
    };
    assert!(header.payload_len <= MAX_PAYLOAD);
    let again = header.build_long().expect("what was read can be sent");
    assert_eq!(Header::parse_long(&again), Ok(header));
    assert_eq!(bytes[..56], again[..56]);
}

/// A stream of message headers, LNet headers and payloads as a connection reads it: what was read
/// can be built again, byte by byte; whatever is asked to be acknowledged is so, once; nothing
/// panics.
///
/// The input: in the first byte, version (bits 0 and 1, from 1 on) and byte order (bit 2); the
/// stream.
pub fn messages(data: &[u8]) {
    let Some((kind, mut stream)) = data.split_first() else {
        return;
    };
    let proto = Proto::from_number(u32::from(kind & 3) + 1).expect("there are four");
    let order = if kind & 4 == 0 {
        ByteOrder::Little
    } else {
        ByteOrder::Big
    };
    let mut acks = Acks::new();
    let mut due = BTreeSet::new();
    loop {
        if proto.has_msg_header() {
            let Some((bytes, rest)) = stream.split_first_chunk::<MSG_LEN>() else {
                break;
            };
            let Ok(msg) = Msg::parse(bytes, order) else {
                break;
            };
            assert_eq!(msg.build(order), Ok(*bytes));
            stream = rest;
            same_acks(proto, &msg);
            if msg.kind == MsgKind::Noop {
                continue;
            }
            let cookie = msg.cookies[0];
            if cookie != 0 {
                let fresh = cookie > COOKIE_PING && !due.contains(&cookie);
                match acks.add(cookie) {
                    Ok(Added::Yes) => assert!(fresh && due.insert(cookie)),
                    // Too many gaps.
                    Ok(Added::Full) => assert!(fresh && due.len() >= 32),
                    Err(why) => {
                        assert_eq!(why, WireError::Cookie(cookie));
                        assert!(!fresh);
                    }
                }
            }
        }
        let Ok(header) = proto.parse_header(stream) else {
            break;
        };
        stream = &stream[proto.header_len()..];
        let payload = stream.len().min(header.payload_len as usize);
        stream = &stream[payload..];
    }
    while let Some(noop) = acks.pop_noop(proto) {
        match noop {
            [0, cookie] => assert!(due.remove(&cookie)),
            [one, other] if one > other => assert!(due.remove(&one) && due.remove(&other)),
            [from, to] => (from..=to).for_each(|cookie| assert!(due.remove(&cookie))),
        }
        // One goes out with a message.
        if let Some(cookie) = acks.pop() {
            assert!(due.remove(&cookie));
        }
    }
    assert!(due.is_empty() && acks.is_empty());
}

/// Which messages a message header acknowledges, said in another way: no cookie that can't be, and each
/// once.
fn same_acks(proto: Proto, msg: &Msg) {
    let [first, second] = msg.cookies;
    let noop = msg.kind == MsgKind::Noop;
    let wide = proto.number() >= 3;
    let ping = noop && wide && msg.cookies == [0, COOKIE_PING];
    let Ok(ranges) = acked_ranges(proto, msg) else {
        let narrow = noop && !wide && first != 0;
        assert!(second != 0 && !ping && (narrow || first.min(second) <= 1 || second == 1));
        return;
    };
    let ranges: Vec<_> = ranges.into_iter().flatten().collect();
    if second == 0 || ping {
        assert_eq!(ranges, []);
    } else if !noop || first == 0 {
        assert_eq!(ranges, [(second, second)]);
    } else if first > second {
        assert_eq!(ranges, [(first, first), (second, second)]);
    } else {
        assert_eq!(ranges, [(first, second)]);
    }
    assert!(ranges
        .iter()
        .all(|(from, to)| *from > COOKIE_PING && from <= to));
}

/// All that a reader says to a stream, and how many bytes of it it took.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    said: Vec<Result<Progress, WireError>>,
    taken: usize,
}

/// Gives `reader` a stream in pieces of these sizes, over and over.
fn feed(mut reader: HelloReader, stream: &[u8], pieces: &[u8]) -> Answers {
    let mut answers = Answers {
        said: Vec::new(),
        taken: 0,
    };
    let mut sizes = pieces.iter().cycle();
    loop {
        let left = &stream[answers.taken..];
        // A piece has a byte at least, or the connection would be at its end.
        let size = sizes
            .next()
            .map_or(usize::MAX, |size| usize::from(*size) + 1);
        let room = reader.want();
        let n = room.len().min(size).min(left.len());
        if n == 0 {
            return answers;
        }
        room[..n].copy_from_slice(&left[..n]);
        answers.taken += n;
        let answer = reader.filled(n);
        let goes_on = matches!(answer, Ok(Progress::More | Progress::Request(_)));
        assert_eq!(goes_on, !reader.want().is_empty());
        if answer != Ok(Progress::More) {
            answers.said.push(answer);
        }
        if !goes_on {
            assert_eq!(reader.filled(0), Err(WireError::Truncated));
        }
    }
}

/// A reader says the same whatever pieces a stream comes in, and what it lets through is built
/// again with the same meaning.
///
/// The input: in the first byte, which reader (bit 0), the number of pieces (bits 1 to 3) and by how
/// many the newest version that is spoken is older than the newest one (bits 4 and 5), and whether it
/// is the only one (bit 6); their sizes; the stream.
pub fn handshake(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let Some((pieces, stream)) = rest.split_at_checked(usize::from(kind >> 1 & 7)) else {
        return;
    };
    let newest = Proto::from_number(4 - u32::from(kind >> 4 & 3)).expect("there are four");
    let oldest = if kind & 0x40 == 0 { Proto::V1 } else { newest };
    let new = || match kind & 1 {
        0 => HelloReader::passive(newest).not_before(oldest),
        _ => HelloReader::active(newest).not_before(oldest),
    };
    let answers = feed(new(), stream, pieces);
    assert_eq!(answers, feed(new(), stream, &[]));
    assert_eq!(answers, feed(new(), stream, &[0]));
    for (index, answer) in answers.said.iter().enumerate() {
        match answer {
            Ok(Progress::Request(request)) => {
                assert_eq!((index, kind & 1), (0, 0), "only the first may be a request");
                same_request(request);
            }
            Ok(Progress::Hello(hello)) => {
                assert!((oldest..=newest).contains(&hello.proto));
                same_hello(hello);
            }
            _ => {}
        }
    }
}

fn same_request(request: &AcceptorRequest) {
    let mut bytes = [0xff; REQUEST_MAX];
    let bytes = request
        .build(&mut bytes)
        .expect("what was read can be sent");
    let again = feed(HelloReader::passive(Proto::NEWEST), bytes, &[]);
    assert_eq!(again.said, [Ok(Progress::Request(*request))]);
}

fn same_hello(hello: &Hello) {
    assert!(!hello.ips.iter().any(|ip| ip.is_unspecified()));
    let mut bytes = [0xff; HELLO_MAX];
    let bytes = hello.build(&mut bytes).expect("what was read can be sent");
    let again = feed(HelloReader::active(hello.proto), bytes, &[]);
    assert_eq!(again.said, [Ok(Progress::Hello(*hello))]);
    assert_eq!(again.taken, bytes.len());
}

/// The first bytes are an acceptor request, or not, and then nothing of them was one.
pub fn acceptor(data: &[u8]) {
    let answers = feed(HelloReader::passive(Proto::NEWEST), data, &[]);
    if let Some(Ok(Progress::Request(request))) = answers.said.first() {
        same_request(request);
        // Built by hand, in both versions and byte orders: it was one of them.
        let mut forms = Vec::new();
        let long = request.target.to_bytes20();
        for (magic, version) in [
            (0xacce_7100u32.to_le_bytes(), 2u32.to_le_bytes()),
            (0xacce_7100u32.to_be_bytes(), 2u32.to_be_bytes()),
        ] {
            forms.push([&magic[..], &version, &long].concat());
        }
        if let Some(nid) = request.target.to_nid4() {
            let version = 1u32;
            forms.extend([
                [
                    &0xacce_7100u32.to_le_bytes()[..],
                    &version.to_le_bytes(),
                    &nid.to_le_bytes(),
                ]
                .concat(),
                [
                    &0xacce_7100u32.to_be_bytes()[..],
                    &version.to_be_bytes(),
                    &nid.to_be_bytes(),
                ]
                .concat(),
            ]);
        }
        let looked_at = forms.iter().any(|form| data.starts_with(form));
        assert!(looked_at, "a byte was not looked at");
    }
}

/// A NID has one text and one number, and they come back as they went.
pub fn nid(data: &[u8]) {
    if let Some(number) = data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) {
        if let Ok(nid) = Nid::from_nid4(number) {
            assert_eq!(nid.to_nid4(), Some(number));
            same_text(nid);
        }
    }
    if let Some(bytes) = data.first_chunk() {
        if let Ok(nid) = Nid::from_bytes20(bytes) {
            assert_eq!(nid.to_bytes20(), *bytes);
            same_text(nid);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(nid) = text.parse() {
        same_text(nid);
        if let Some(number) = nid.to_nid4() {
            assert_eq!(Nid::from_nid4(number), Ok(nid));
            // Of an IPv4 address there is one way to write it; of the network 0, two, and an
            // address can be given in its IPv6 form.
            let short = text.strip_suffix("@tcp0").unwrap_or_default();
            let same = nid.to_string();
            assert!(text == same || format!("{short}@tcp") == same || text.contains(':'));
        }
    }
}

fn same_text(nid: Nid) {
    assert_eq!(nid.to_string().parse(), Ok(nid));
}
