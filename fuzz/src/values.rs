// SPDX-License-Identifier: GPL-2.0

//! Values made of arbitrary bytes: what is built is read back as it was.

use crate::{
    module::wire::{
        AcceptorRequest, Body, ByteOrder, ConnType, Header, Hello, IpVec, Nid, Proto, WireError,
        WireHandle, HELLO_MAX, MAX_PAYLOAD, REQUEST_MAX,
    },
    same_hello, same_request, same_text,
};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Takes values off the front of the input; zeros once it is used up.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let n = N.min(self.0.len());
        let (head, tail) = self.0.split_at(n);
        bytes[..n].copy_from_slice(head);
        self.0 = tail;
        bytes
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// Of either family.
    fn nid(&mut self) -> Nid {
        let net = u16::from_le_bytes(self.bytes());
        if self.u8() & 1 == 0 {
            Nid::tcp(net, Ipv4Addr::from(self.bytes::<4>()))
        } else {
            Nid::tcp(net, Ipv6Addr::from(self.bytes::<16>()))
        }
    }

    fn proto(&mut self) -> Proto {
        Proto::from_number(u32::from(self.u8() & 3) + 1).expect("there are four")
    }

    fn order(&mut self) -> ByteOrder {
        match self.u8() & 1 {
            0 => ByteOrder::Little,
            _ => ByteOrder::Big,
        }
    }

    fn wmd(&mut self) -> WireHandle {
        WireHandle {
            interface_cookie: self.u64(),
            object: self.u64(),
        }
    }

    fn body(&mut self) -> Body {
        match self.u8() & 3 {
            0 => Body::Ack {
                dst_wmd: self.wmd(),
                match_bits: self.u64(),
                mlength: self.u32(),
            },
            1 => Body::Put {
                ack_wmd: self.wmd(),
                match_bits: self.u64(),
                hdr_data: self.u64(),
                portal: self.u32(),
                offset: self.u32(),
            },
            2 => Body::Get {
                return_wmd: self.wmd(),
                match_bits: self.u64(),
                portal: self.u32(),
                src_offset: self.u32(),
                sink_len: self.u32(),
            },
            _ => Body::Reply {
                dst_wmd: self.wmd(),
            },
        }
    }

    fn ips(&mut self) -> IpVec {
        let mut ips = IpVec::new();
        let mut good = 0;
        for _ in 0..self.u8() & 31 {
            let ip = Ipv4Addr::from(self.bytes::<4>());
            let pushed = ips.push(ip);
            if ip.is_unspecified() {
                assert_eq!(pushed, Err(WireError::Ip));
            } else if good == 16 {
                assert_eq!(pushed, Err(WireError::Count(17)));
            } else {
                assert_eq!(pushed, Ok(()));
                good += 1;
            }
        }
        assert_eq!(ips.len(), good);
        ips
    }
}

/// Every value is refused, or built and read back as it was.
///
/// The input: in the first byte, the kind of value; then its fields.
pub fn values(data: &[u8]) {
    let mut from = Source(data);
    match from.u8() & 3 {
        0 => header(&Header {
            dest: from.nid(),
            src: from.nid(),
            dest_pid: from.u32(),
            src_pid: from.u32(),
            payload_len: from.u32(),
            body: from.body(),
        }),
        1 => hello(&Hello {
            proto: from.proto(),
            order: from.order(),
            src: from.nid(),
            dest: Some(from.nid()),
            src_pid: from.u32(),
            dest_pid: from.u32(),
            incarnation: from.u64(),
            kind: ConnType::from_wire(i32::from(from.u8() & 7)).ok(),
            ips: from.ips(),
        }),
        2 => request(&AcceptorRequest { target: from.nid() }),
        _ => nids(from.nid(), from.nid()),
    }
}

fn header(header: &Header) {
    let max = match header.body {
        Body::Ack { .. } | Body::Get { .. } => 0,
        Body::Put { .. } | Body::Reply { .. } => MAX_PAYLOAD,
    };
    let short = header.build().map(|bytes| Header::parse(&bytes));
    let long = header.build_long().map(|bytes| Header::parse_long(&bytes));
    let nids = [header.dest, header.src];
    for (built, sendable) in [
        (short, nids.iter().all(|nid| nid.to_nid4().is_some())),
        (long, !nids.iter().any(|nid| nid.addr().is_unspecified())),
    ] {
        match built {
            Ok(again) => assert_eq!(again, Ok(*header)),
            Err(WireError::Length(len)) => assert!(len == header.payload_len && len > max),
            Err(e) => assert_eq!((e, sendable), (WireError::Nid, false)),
        }
    }
}

/// Leaves out what the version has no room for.
fn hello(hello: &Hello) {
    let mut hello = *hello;
    let nids = [Some(hello.src), hello.dest];
    let sendable = match hello.proto {
        Proto::V1 => {
            (hello.order, hello.dest) = (ByteOrder::Little, None);
            hello.src.to_nid4().is_some()
        }
        Proto::V2 | Proto::V3 => nids.iter().flatten().all(|nid| nid.to_nid4().is_some()),
        Proto::V4 => {
            hello.ips = IpVec::new();
            !nids.iter().flatten().any(|nid| nid.addr().is_unspecified())
        }
    };
    if sendable {
        same_hello(&hello);
    } else {
        assert_eq!(hello.build(&mut [0; HELLO_MAX]), Err(WireError::Nid));
    }
}

fn request(request: &AcceptorRequest) {
    if request.target.addr().is_unspecified() {
        assert_eq!(request.build(&mut [0; REQUEST_MAX]), Err(WireError::Nid));
    } else {
        same_request(request);
    }
}

/// Order, equality and the forms agree with each other.
fn nids(a: Nid, b: Nid) {
    assert_eq!(a.cmp(&b), a.to_bytes20().cmp(&b.to_bytes20()));
    assert_eq!(a == b, a.to_bytes20() == b.to_bytes20());
    assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
    for nid in [a, b] {
        if !nid.addr().is_unspecified() {
            same_text(nid);
        }
        if let Some(number) = nid.to_nid4() {
            assert_eq!(Nid::from_nid4(number), Ok(nid));
        }
        match Nid::from_bytes20(&nid.to_bytes20()) {
            Ok(same) => assert_eq!(same, nid),
            Err(e) => assert_eq!((e, nid.addr().is_unspecified()), (WireError::Nid, true)),
        }
    }
}
