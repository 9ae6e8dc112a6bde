// SPDX-License-Identifier: GPL-2.0

//! Values made of arbitrary bytes: what is built is read back as it was.

use crate::{
    module::wire::{
        AcceptorRequest, Body, ConnType, Header, Hello, IpVec, Nid, WireError, WireHandle,
        MAX_PAYLOAD,
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

    fn wmd(&mut self) -> WireHandle {
        WireHandle {
            interface: self.u64(),
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
            src: from.nid(),
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
    let sendable = header.dest.to_nid4().is_some() && header.src.to_nid4().is_some();
    let max = match header.body {
        Body::Ack { .. } | Body::Get { .. } => 0,
        Body::Put { .. } | Body::Reply { .. } => MAX_PAYLOAD,
    };
    match header.build() {
        Ok(bytes) => assert_eq!(Header::parse(&bytes), Ok(*header)),
        Err(WireError::Length(len)) => assert!(len == header.payload_len && len > max),
        Err(e) => assert_eq!((e, sendable), (WireError::Nid, false)),
    }
}

fn hello(hello: &Hello) {
    match hello.src.to_nid4() {
        Some(_) => same_hello(hello),
        None => assert_eq!(hello.build_v1(&mut [0; 136]), Err(WireError::Nid)),
    }
}

fn request(request: &AcceptorRequest) {
    match request.target.to_nid4() {
        Some(_) => same_request(request),
        None => assert_eq!(request.build(), Err(WireError::Nid)),
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
    }
}
