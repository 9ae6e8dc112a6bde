// SPDX-License-Identifier: GPL-2.0

//! A scripted peer that speaks as nodes of today do: versions 2, 3 and 4 of the protocol, from a
//! machine of either byte order.
//!
//! Written from the specification alone, like [`crate::peer`], whose messages it wraps. It shares
//! no code with the module. Every field is public: to be spoilt.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::lab::Namespace;
use crate::node::Node;
use crate::peer::{ACCEPTOR_MAGIC, Conn, LNET_MAGIC, Message, inverse, nid};

/// What follows a message header.
pub const NOOP: u32 = 0xc0;
pub const LNET: u32 = 0xc1;

const PID: u32 = 12345;
/// In place of an acknowledgement: a sign of life.
pub const PING: u64 = 1;

/// How the sender's machine writes numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Little,
    Big,
}

/// How a script speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    pub version: u32,
    pub order: Order,
}

/// A number of so many bytes.
fn number(value: u64, size: usize, order: Order) -> Vec<u8> {
    let mut bytes = value.to_le_bytes()[..size].to_vec();
    if order == Order::Big {
        bytes.reverse();
    }
    bytes
}

fn number_at(bytes: &[u8], at: usize, size: usize, order: Order) -> Result<u64> {
    let mut field = bytes.get(at..at + size).context("too short")?.to_vec();
    if order == Order::Little {
        field.reverse();
    }
    Ok(field
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The 20 bytes of a NID whose 64 bits are known.
pub fn long_nid(nid4: u64) -> [u8; 20] {
    let mut out = [0; 20];
    out[1] = (nid4 >> 48) as u8;
    out[2..4].copy_from_slice(&((nid4 >> 32) as u16).to_be_bytes());
    out[4..8].copy_from_slice(&(nid4 as u32).to_be_bytes());
    out
}

/// The 64 bits of a NID of 20 bytes, which must be one of IPv4.
fn short_nid(bytes: &[u8]) -> Result<u64> {
    ensure!(bytes.len() == 20, "a NID has 20 bytes");
    ensure!(
        bytes[0] == 0 && bytes[8..].iter().all(|byte| *byte == 0),
        "not of IPv4: {bytes:02x?}"
    );
    number_at(bytes, 1, 7, Order::Big)
}

impl Dialect {
    /// What an active peer says first, with the target's NID in 8 bytes (version 1) or in 20.
    pub fn request(self, version: u32, target: u64) -> Vec<u8> {
        let mut out = number(ACCEPTOR_MAGIC.into(), 4, self.order);
        out.extend(number(version.into(), 4, self.order));
        out.extend(if version == 1 {
            number(target, 8, self.order)
        } else {
            long_nid(target).to_vec()
        });
        out
    }

    /// A message header.
    pub fn header(self, kind: u32, csum: u32, cookies: [u64; 2]) -> Vec<u8> {
        let mut out = number(kind.into(), 4, self.order);
        out.extend(number(csum.into(), 4, self.order));
        for cookie in cookies {
            out.extend(number(cookie, 8, self.order));
        }
        out
    }

    /// A NOOP.
    pub fn noop(self, cookies: [u64; 2]) -> Vec<u8> {
        self.header(NOOP, 0, cookies)
    }

    /// A message without a checksum.
    pub fn message(self, cookies: [u64; 2], message: &Message) -> Vec<u8> {
        let mut out = self.header(LNET, 0, cookies);
        out.extend(self.lnet(message));
        out
    }

    /// A message with a checksum of all that is sent.
    pub fn summed(self, cookies: [u64; 2], message: &Message) -> Vec<u8> {
        let mut out = self.message(cookies, message);
        let csum = crc32(&out);
        out[4..8].copy_from_slice(&number(csum.into(), 4, self.order));
        out
    }

    /// The header of a message, always little-endian, and its payload.
    fn lnet(self, message: &Message) -> Vec<u8> {
        let bytes = message.bytes();
        if self.version < 4 {
            return bytes;
        }
        [
            &long_nid(message.dest)[..],
            &long_nid(message.src),
            &bytes[16..],
        ]
        .concat()
    }

    /// Bytes of the header of a message.
    fn lnet_len(self) -> usize {
        if self.version < 4 { 72 } else { 96 }
    }
}

/// The checksum of version 2: bit by bit, from the definition.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    crc
}

/// A greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub dialect: Dialect,
    pub magic: u32,
    pub src: u64,
    pub dest: u64,
    pub src_pid: u32,
    pub dest_pid: u32,
    pub incarnation: u64,
    pub dest_incarnation: u64,
    pub conn_type: u32,
    pub count: u32,
    pub ips: Vec<u32>,
}

impl Hello {
    /// A correct one.
    pub fn new(dialect: Dialect, from: Ipv4Addr, to: Ipv4Addr, conn_type: u32) -> Hello {
        Hello {
            dialect,
            magic: LNET_MAGIC,
            src: nid(from),
            dest: nid(to),
            src_pid: PID,
            dest_pid: 0,
            incarnation: 1_800_000_000_000_000_000,
            dest_incarnation: 0,
            conn_type,
            count: 0,
            ips: Vec::new(),
        }
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let Dialect { version, order } = self.dialect;
        let mut out = number(self.magic.into(), 4, order);
        out.extend(number(version.into(), 4, order));
        for nid in [self.src, self.dest] {
            if version == 4 {
                out.extend(long_nid(nid));
            } else {
                out.extend(number(nid, 8, order));
            }
        }
        for (value, size) in [
            (self.src_pid.into(), 4),
            (self.dest_pid.into(), 4),
            (self.incarnation, 8),
            (self.dest_incarnation, 8),
            (self.conn_type.into(), 4),
            (self.count.into(), 4),
        ] {
            out.extend(number(value, size, order));
        }
        for ip in &self.ips {
            out.extend(number((*ip).into(), 4, order));
        }
        out
    }

    /// Reads one without addresses, as nodes of today send it.
    pub fn parse(bytes: &[u8]) -> Result<Hello> {
        let order = match number_at(bytes, 0, 4, Order::Little)? {
            magic if magic == u64::from(LNET_MAGIC) => Order::Little,
            magic if magic == u64::from(LNET_MAGIC.swap_bytes()) => Order::Big,
            magic => bail!("wrong magic {magic:#x}"),
        };
        let version = number_at(bytes, 4, 4, order)? as u32;
        let (nids, rest) = if version == 4 {
            let nids = bytes.get(8..48).context("too short")?;
            ([short_nid(&nids[..20])?, short_nid(&nids[20..])?], 48)
        } else {
            let nids = [
                number_at(bytes, 8, 8, order)?,
                number_at(bytes, 16, 8, order)?,
            ];
            (nids, 24)
        };
        let field = |at: usize, size: usize| number_at(bytes, rest + at, size, order);
        Ok(Hello {
            dialect: Dialect { version, order },
            magic: LNET_MAGIC,
            src: nids[0],
            dest: nids[1],
            src_pid: field(0, 4)? as u32,
            dest_pid: field(4, 4)? as u32,
            incarnation: field(8, 8)?,
            dest_incarnation: field(16, 8)?,
            conn_type: field(24, 4)? as u32,
            count: field(28, 4)? as u32,
            ips: Vec::new(),
        })
    }

    /// Receives one, which must be as nodes of today send it.
    pub fn receive(conn: &mut Conn) -> Result<Hello> {
        let mut bytes = conn.receive(56)?;
        if bytes.get(4..8) == Some(&[4, 0, 0, 0]) {
            bytes.extend(conn.receive(24)?);
        }
        let hello = Hello::parse(&bytes)?;
        ensure!(
            hello.dialect.order == Order::Little,
            "not in this machine's byte order: {hello:x?}"
        );
        ensure!(hello.src == nid(conn.to), "wrong NID in {hello:x?}");
        ensure!(hello.src_pid == PID, "wrong process number in {hello:x?}");
        ensure!(hello.incarnation != 0, "no incarnation in {hello:x?}");
        ensure!(
            hello.dest_pid == 0 && hello.dest_incarnation == 0 && hello.count == 0,
            "something else than 0 where nodes of today send 0: {hello:x?}"
        );
        Ok(hello)
    }
}

/// What came over a connection.
#[derive(Clone, Debug)]
pub enum Frame {
    Noop([u64; 2]),
    Message { cookies: [u64; 2], message: Message },
}

impl Frame {
    /// All cookies that it acknowledges, by the rules of version 3, or of 2, where only the last
    /// one counts.
    pub fn acknowledges(&self) -> Vec<u64> {
        match self {
            Frame::Noop([_, 0] | [0, PING]) => Vec::new(),
            Frame::Noop([0, one]) => vec![*one],
            Frame::Noop([one, other]) if one > other => vec![*one, *other],
            Frame::Noop([first, last]) => (*first..=*last).collect(),
            Frame::Message { cookies, .. } => {
                cookies[1..].iter().copied().filter(|c| *c != 0).collect()
            }
        }
    }
}

/// A connection with greetings exchanged.
pub struct Link {
    pub conn: Conn,
    pub dialect: Dialect,
    /// How the other end writes numbers.
    theirs: Order,
    /// In the script's view.
    pub conn_type: u32,
}

impl Link {
    /// Connects as a correct peer does.
    pub fn dial(
        space: &Namespace,
        from: Ipv4Addr,
        to: &Node,
        dialect: Dialect,
        conn_type: u32,
    ) -> Result<Link> {
        Link::dial_in_pieces(space, from, to, dialect, conn_type, None)
    }

    /// The same, with each byte in a segment of its own if there is a pause between them.
    pub fn dial_in_pieces(
        space: &Namespace,
        from: Ipv4Addr,
        to: &Node,
        dialect: Dialect,
        conn_type: u32,
        pause: Option<Duration>,
    ) -> Result<Link> {
        let mut conn = Conn::dial(space, from, to.addr)?;
        let opening = [
            dialect.request(1, nid(to.addr)),
            Hello::new(dialect, from, to.addr, conn_type).bytes(),
        ]
        .concat();
        match pause {
            Some(pause) => conn.dribble(&opening, pause)?,
            None => conn.send(&opening)?,
        }
        let hello = Hello::receive(&mut conn).context("no greeting")?;
        ensure!(
            hello.dialect.version == dialect.version,
            "answered in another version: {hello:x?}"
        );
        ensure!(
            hello.conn_type == inverse(conn_type),
            "wrong type of connection in {hello:x?}"
        );
        ensure!(hello.dest == nid(from), "not for the script: {hello:x?}");
        Ok(Link {
            conn,
            dialect,
            theirs: hello.dialect.order,
            conn_type,
        })
    }

    /// Answers a greeting with one of its version.
    pub fn accept(mut conn: Conn, hello: &Hello, order: Order) -> Result<Link> {
        let dialect = Dialect {
            version: hello.dialect.version,
            order,
        };
        let conn_type = inverse(hello.conn_type);
        conn.send(&Hello::new(dialect, conn.from, conn.to, conn_type).bytes())?;
        Ok(Link {
            conn,
            dialect,
            theirs: hello.dialect.order,
            conn_type,
        })
    }

    /// Sends a message.
    pub fn send(&mut self, cookies: [u64; 2], message: &Message) -> Result<()> {
        self.conn.send(&self.dialect.message(cookies, message))
    }

    /// Receives a message or a NOOP; a checksum, if there is one, must be right. Says whether there
    /// was one.
    pub fn receive_summed(&mut self) -> Result<(Frame, bool)> {
        let mut bytes = self.conn.receive(24)?;
        let field = |at: usize, size: usize| number_at(&bytes, at, size, self.theirs);
        let (kind, csum) = (field(0, 4)? as u32, field(4, 4)? as u32);
        let cookies = [field(8, 8)?, field(16, 8)?];
        let frame = match kind {
            NOOP => Frame::Noop(cookies),
            LNET => {
                let mut header = self.conn.receive(self.dialect.lnet_len())?;
                bytes.extend(&header);
                if self.dialect.version == 4 {
                    let nids = [short_nid(&header[..20])?, short_nid(&header[20..40])?];
                    let nids: Vec<u8> = nids.iter().flat_map(|nid| nid.to_le_bytes()).collect();
                    header.splice(..40, nids);
                }
                let mut message = Message::parse(&header)?;
                message.payload = self.conn.receive(message.length as usize)?;
                bytes.extend(&message.payload);
                Frame::Message { cookies, message }
            }
            _ => bail!("neither NOOP nor message: {bytes:02x?}"),
        };
        if csum != 0 {
            bytes[4..8].fill(0);
            ensure!(
                crc32(&bytes) == csum,
                "wrong checksum {csum:#x} of {frame:x?}"
            );
        }
        Ok((frame, csum != 0))
    }

    /// Receives a message or a NOOP without a checksum.
    pub fn receive(&mut self) -> Result<Frame> {
        match self.receive_summed()? {
            (frame, false) => Ok(frame),
            (frame, true) => bail!("a checksum that nobody asked for: {frame:x?}"),
        }
    }

    /// Receives a message that acknowledges nothing.
    pub fn receive_message(&mut self) -> Result<Message> {
        match self.receive()? {
            Frame::Message {
                cookies: [0, 0],
                message,
            } => Ok(message),
            other => bail!("no plain message: {other:x?}"),
        }
    }

    /// A ping from the script to the node.
    pub fn new_ping(&self, handle: u64) -> Message {
        Message::ping(self.conn.from, self.conn.to, handle)
    }

    /// A message that nobody waits for.
    pub fn new_put(&self, length: usize) -> Message {
        Message::put(self.conn.from, self.conn.to, 7, 0x1234, vec![0x5a; length])
    }

    /// Pings over this connection and checks the answer.
    pub fn ping(&mut self, handle: u64) -> Result<()> {
        let ping = self.new_ping(handle);
        self.send([0, 0], &ping)?;
        self.receive_message()
            .context("no answer to the ping")?
            .check_pong(&ping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::CONTROL;

    const ONE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
    const TWO: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
    const THREE: Dialect = Dialect {
        version: 3,
        order: Order::Little,
    };

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// As two nodes of Lustre 2.17 sent them.
    #[test]
    fn captured() {
        assert_eq!(
            THREE.request(1, nid(TWO)),
            bytes("0071ceac 01000000 024da8c0 00000200")
        );
        let mut hello = Hello::new(THREE, ONE, TWO, CONTROL);
        hello.incarnation = 0x18ea_604c_ee25_3ca3;
        let captured = bytes(
            "63697245 03000000 014da8c0 00000200 024da8c0 00000200 39300000 00000000
             a33c25ee 4c60ea18 00000000 00000000 01000000 00000000",
        );
        assert_eq!(hello.bytes(), captured);
        assert_eq!(Hello::parse(&captured).unwrap(), hello);
        assert_eq!(
            THREE.noop([0, 2]),
            bytes("c0000000 00000000 00000000 00000000 02000000 00000000")
        );
        let mut ping = Message::ping(ONE, TWO, 0x18ea_604c_edb3_326b);
        ping.body[8..16].copy_from_slice(&0x1c09_u64.to_le_bytes());
        ping.body[32..36].copy_from_slice(&3960_u32.to_le_bytes());
        let captured = bytes(
            "c1000000 00000000 00000000 00000000 00000000 00000000 024da8c0 00000200
             014da8c0 00000200 39300000 39300000 02000000 00000000 6b32b3ed 4c60ea18
             091c0000 00000000 00000000 00000080 00000000 00000000 780f0000 00000000",
        );
        assert_eq!(THREE.message([0, 0], &ping), captured);
    }

    #[test]
    fn other_orders_and_versions() {
        for version in [2, 3, 4] {
            for order in [Order::Little, Order::Big] {
                let hello = Hello::new(Dialect { version, order }, ONE, TWO, CONTROL);
                let bytes = hello.bytes();
                assert_eq!(bytes.len(), if version == 4 { 80 } else { 56 });
                assert_eq!(Hello::parse(&bytes).unwrap(), hello);
            }
        }
        let big = Dialect {
            version: 3,
            order: Order::Big,
        };
        assert_eq!(
            big.noop([0, 2]),
            bytes("000000c0 00000000 00000000 00000000 00000000 00000002")
        );
        assert_eq!(
            big.request(2, nid(TWO)),
            bytes("acce7100 00000002 00020000 c0a84d02 00000000 00000000 00000000")
        );
    }

    #[test]
    fn checksum_by_the_book() {
        // The usual check of CRC-32, without its final inversion.
        assert_eq!(crc32(b"123456789"), !0xcbf4_3926);
    }

    #[test]
    fn what_a_noop_acknowledges() {
        for (cookies, acknowledged) in [
            ([0, 0], &[][..]),
            ([0, 1], &[]),
            ([0, 7], &[7]),
            ([9, 7], &[9, 7]),
            ([7, 10], &[7, 8, 9, 10]),
        ] {
            assert_eq!(Frame::Noop(cookies).acknowledges(), acknowledged);
        }
    }
}
