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
    AcceptorRequest, Header, Hello, HelloReader, Nid, Progress, WireError, HELLO_V1_MAX,
    MAX_PAYLOAD,
};

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
/// The input: in the first byte, which reader (bit 0) and the number of pieces (bits 1 to 3); their
/// sizes; the stream.
pub fn handshake(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let Some((pieces, stream)) = rest.split_at_checked(usize::from(kind >> 1 & 7)) else {
        return;
    };
    let new = if kind & 1 == 0 {
        HelloReader::passive
    } else {
        HelloReader::active
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
            Ok(Progress::Hello(hello)) => same_hello(hello),
            _ => {}
        }
    }
}

fn same_request(request: &AcceptorRequest) {
    let bytes = request.build().expect("what was read can be sent");
    let again = feed(HelloReader::passive(), &bytes, &[]);
    assert_eq!(again.said, [Ok(Progress::Request(*request))]);
}

fn same_hello(hello: &Hello) {
    assert!(!hello.ips.iter().any(|ip| ip.is_unspecified()));
    let mut bytes = [0xff; HELLO_V1_MAX];
    let len = hello
        .build_v1(&mut bytes)
        .expect("what was read can be sent");
    let again = feed(HelloReader::active(), &bytes, &[]);
    assert_eq!(again.said, [Ok(Progress::Hello(*hello))]);
    assert_eq!(again.taken, len);
}

/// 16 bytes are an acceptor request, or not, and then nothing of them was one.
pub fn acceptor(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<16>() else {
        return;
    };
    let answers = feed(HelloReader::passive(), bytes, &[]);
    if let Some(Ok(Progress::Request(request))) = answers.said.first() {
        assert_eq!(answers.said.len(), 1);
        let again = request.build().expect("what was read can be sent");
        let swapped = |at: usize, len: usize| again[at..at + len].iter().rev().copied();
        let foreign: Vec<u8> = swapped(0, 4)
            .chain(swapped(4, 4))
            .chain(swapped(8, 8))
            .collect();
        assert!(
            *bytes == again || *bytes == foreign[..],
            "a byte was not looked at"
        );
        same_request(request);
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
