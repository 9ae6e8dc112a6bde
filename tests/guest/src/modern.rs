// SPDX-License-Identifier: GPL-2.0

//! A scripted peer that speaks versions 2, 3 and 4 of the protocol, in either byte order.
//!
//! Written from the specification alone, like [`crate::peer`], whose messages it wraps. It shares
//! no code with the module. Every field is public, so that scenarios can send wrong values.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::family::{self, Family};
use crate::lab::Namespace;
use crate::node::Node;
use crate::peer::{self, ACCEPTOR_MAGIC, Conn, HELLO_MAGIC, LNET_MAGIC, Message, inverse, nid};

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

/// How scripts speak over IPv6 that speak version 1.0 over IPv4.
pub const PLAIN: Dialect = Dialect {
    version: 4,
    order: Order::Little,
};

/// All ways in which a script may speak versions that have a message header. IPv6 has only the last.
pub fn dialects() -> impl Iterator<Item = Dialect> {
    let versions = match family::current() {
        Family::V4 => 2..=4,
        Family::V6 => 4..=4,
    };
    versions.flat_map(|version| {
        [Order::Little, Order::Big]
            .into_iter()
            .map(move |order| Dialect { version, order })
    })
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

/// The 20 bytes of a NID whose 64 bits are known: those of IPv4, or over IPv6 those of the address that
/// it stands for. No NID and any NID are the same in both.
pub fn long_nid(nid4: u64) -> [u8; 20] {
    nid_in(family::current(), nid4)
}

fn nid_in(family: Family, nid4: u64) -> [u8; 20] {
    let mut out = [0; 20];
    out[1] = (nid4 >> 48) as u8;
    out[2..4].copy_from_slice(&((nid4 >> 32) as u16).to_be_bytes());
    if family == Family::V6 && nid4 != 0 && nid4 != u64::MAX {
        out[0] = 12;
        out[4..].copy_from_slice(&family::embed((nid4 as u32).into()).octets());
    } else {
        out[4..8].copy_from_slice(&(nid4 as u32).to_be_bytes());
    }
    out
}

/// The 64 bits of a NID of 20 bytes, which must be one of the family.
fn short_nid(bytes: &[u8]) -> Result<u64> {
    ensure!(bytes.len() == 20, "a NID has 20 bytes");
    // Over IPv6 the last four bytes of the address tell it.
    let at = if bytes[0] == 12 { 16 } else { 4 };
    let nid4 = number_at(bytes, 1, 3, Order::Big)? << 32 | number_at(bytes, at, 4, Order::Big)?;
    ensure!(bytes == long_nid(nid4), "not of this family: {bytes:02x?}");
    Ok(nid4)
}

impl Dialect {
    /// What an active peer says first, with the target's NID in 8 bytes (version 1) or in 20, as over
    /// IPv6 it has to be.
    pub fn request(self, version: u32, target: u64) -> Vec<u8> {
        let version = if family::is_ipv6() { 2 } else { version };
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
        let bytes = message.bare();
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

    /// The same contents as a greeting of version 1.0, in the version that such scripts speak over
    /// IPv6.
    pub fn of(plain: &peer::Hello) -> Hello {
        Hello {
            dialect: PLAIN,
            magic: if plain.magic == HELLO_MAGIC {
                LNET_MAGIC
            } else {
                plain.magic
            },
            src: plain.src,
            dest: plain.dest,
            src_pid: plain.src_pid,
            dest_pid: plain.dest_pid,
            incarnation: plain.incarnation,
            dest_incarnation: 0,
            conn_type: plain.conn_type,
            count: 0,
            ips: Vec::new(),
        }
    }

    /// The other way round.
    pub fn plain(self) -> peer::Hello {
        peer::Hello {
            src: self.src,
            dest: self.dest,
            src_pid: self.src_pid,
            dest_pid: self.dest_pid,
            incarnation: self.incarnation,
            ..peer::Hello::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, self.conn_type)
        }
    }

    /// Receives one, which must be as nodes of today send it.
    pub fn receive(conn: &mut Conn) -> Result<Hello> {
        let hello = Hello::read(conn)?;
        ensure!(hello.src == nid(conn.to), "wrong NID in {hello:x?}");
        ensure!(hello.src_pid == PID, "wrong process number in {hello:x?}");
        ensure!(hello.incarnation != 0, "no incarnation in {hello:x?}");
        Ok(hello)
    }

    /// The same, whoever it is from.
    pub fn read(conn: &mut Conn) -> Result<Hello> {
        let mut bytes = conn.receive(56)?;
        if bytes.get(4..8) == Some(&[4, 0, 0, 0]) {
            bytes.extend(conn.receive(24)?);
        }
        let hello = Hello::parse(&bytes)?;
        ensure!(
            hello.dialect.order == Order::Little,
            "not in this machine's byte order: {hello:x?}"
        );
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
    /// Whether this is what a node sends when it has heard nothing for long: it may come whenever a
    /// guest is slow or a script silent.
    pub fn is_sign_of_life(&self) -> bool {
        matches!(self, Frame::Noop([0, PING]))
    }

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

/// Receives what another has sent who speaks like this.
fn receive_frame(conn: &mut Conn, theirs: Dialect) -> Result<(Frame, bool)> {
    let mut bytes = conn.receive(24)?;
    let field = |at: usize, size: usize| number_at(&bytes, at, size, theirs.order);
    let (kind, csum) = (field(0, 4)? as u32, field(4, 4)? as u32);
    let cookies = [field(8, 8)?, field(16, 8)?];
    let frame = match kind {
        NOOP => Frame::Noop(cookies),
        LNET => {
            let mut header = conn.receive(theirs.lnet_len())?;
            bytes.extend(&header);
            if theirs.version == 4 {
                let nids = [short_nid(&header[..20])?, short_nid(&header[20..40])?];
                let nids: Vec<u8> = nids.iter().flat_map(|nid| nid.to_le_bytes()).collect();
                header.splice(..40, nids);
            }
            let mut message = Message::parse(&header)?;
            message.payload = conn.receive(message.length as usize)?;
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

/// Receives what a script expects that speaks version 1.0 over IPv4: a message and nothing else, but
/// for signs of life.
pub fn receive_plain(conn: &mut Conn) -> Result<Message> {
    loop {
        if let Some(message) = receive_plain_or_sign(conn)? {
            return Ok(message);
        }
    }
}

/// The same, or one sign of life, which is nothing.
pub fn receive_plain_or_sign(conn: &mut Conn) -> Result<Option<Message>> {
    match receive_frame(conn, PLAIN)? {
        (
            Frame::Message {
                cookies: [0, 0],
                message,
            },
            false,
        ) => Ok(Some(message)),
        (frame, false) if frame.is_sign_of_life() => Ok(None),
        other => bail!("no plain message: {other:x?}"),
    }
}

/// The NIDs of IPv6 in the answer to a ping, which follow the short ones: each after its state.
pub fn told_nids(answer: &[u8], at: usize) -> Result<Vec<u64>> {
    let entries = answer.get(at..).context("too short")?.chunks(4 + 20);
    entries
        .map(|entry| short_nid(entry.get(4..).context("too short")?))
        .collect()
}

/// What a node of today answers to a ping. A NID of IPv6 follows after the short ones, of which there
/// is that of the loopback interface.
pub fn pong(addr: Ipv4Addr) -> Vec<u8> {
    const FEATURES: u64 = 0x1e;
    const LARGE_NIDS: u64 = 0x60;
    const LOOPBACK: u64 = 9 << 48;
    const UP: u64 = 0x15aa_c0de;
    let little = |value, size| number(value, size, Order::Little);
    let head = |features| {
        [0x7069_6e67, features, PID.into(), 1]
            .map(|field| little(field, 4))
            .concat()
    };
    match family::current() {
        Family::V4 => [head(FEATURES), little(nid(addr), 8), little(UP, 8)].concat(),
        Family::V6 => {
            // In place of a state: the length of all of it.
            let length = 16 + 16 + 24;
            let loopback = [little(LOOPBACK, 8), little(1, 4), little(length, 4)].concat();
            let own = [&little(UP, 4)[..], &long_nid(nid(addr))].concat();
            [head(FEATURES | LARGE_NIDS), loopback, own].concat()
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

    /// A connection to a node of this machine's byte order, by which greetings have been exchanged.
    pub fn greeted(conn: Conn, dialect: Dialect, conn_type: u32) -> Link {
        Link {
            conn,
            dialect,
            theirs: Order::Little,
            conn_type,
        }
    }

    /// Answers a greeting with one of its version.
    pub fn accept(conn: Conn, hello: &Hello, order: Order) -> Result<Link> {
        Link::accept_in_pieces(conn, hello, order, None)
    }

    /// The same, with each byte in a segment of its own if there is a pause between them.
    pub fn accept_in_pieces(
        mut conn: Conn,
        hello: &Hello,
        order: Order,
        pause: Option<Duration>,
    ) -> Result<Link> {
        let dialect = Dialect {
            version: hello.dialect.version,
            order,
        };
        let conn_type = inverse(hello.conn_type);
        let answer = Hello::new(dialect, conn.from, conn.to, conn_type).bytes();
        match pause {
            Some(pause) => conn.dribble(&answer, pause)?,
            None => conn.send(&answer)?,
        }
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
    /// was one. Signs of life are passed over.
    pub fn receive_summed(&mut self) -> Result<(Frame, bool)> {
        loop {
            let (frame, is_summed) = self.receive_any()?;
            if !frame.is_sign_of_life() {
                return Ok((frame, is_summed));
            }
        }
    }

    /// Receives whatever comes next.
    fn receive_any(&mut self) -> Result<(Frame, bool)> {
        let theirs = Dialect {
            order: self.theirs,
            ..self.dialect
        };
        receive_frame(&mut self.conn, theirs)
    }

    /// Receives a sign of life, and nothing else.
    pub fn receive_sign_of_life(&mut self) -> Result<()> {
        let (frame, is_summed) = self.receive_any().context("no sign of life")?;
        ensure!(
            frame.is_sign_of_life() && !is_summed,
            "no sign of life but {frame:x?}"
        );
        Ok(())
    }

    /// Nothing but signs of life has come.
    pub fn expect_nothing(&mut self) -> Result<()> {
        while self.conn.has_input(Duration::from_millis(1))? {
            self.receive_sign_of_life()?;
        }
        Ok(())
    }

    /// Receives a message or a NOOP without a checksum. Signs of life are passed over.
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
    use crate::peer::{ACK, CONTROL};

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
        let captured = bytes(
            "c1000000 00000000 00000000 00000000 00000000 00000000 014da8c0 00000200
             024da8c0 00000200 39300000 39300000 03000000 30000000 6b32b3ed 4c60ea18
             091c0000 00000000 00000000 00000000 00000000 00000000 00000000 00000000",
        );
        let pong = THREE.message([0, 0], &ping.reply(vec![7; 48]));
        assert_eq!(pong[..96], captured);
        let mut push = Message::put(ONE, TWO, 0, 1 << 63, vec![7; 48]);
        push.body[..8].copy_from_slice(&0x18ea_604c_edb3_326b_u64.to_le_bytes());
        push.body[8..16].copy_from_slice(&0x1c39_u64.to_le_bytes());
        let captured = bytes(
            "c1000000 00000000 00000000 00000000 00000000 00000000 024da8c0 00000200
             014da8c0 00000200 39300000 39300000 01000000 30000000 6b32b3ed 4c60ea18
             391c0000 00000000 00000000 00000080 00000000 00000000 00000000 00000000",
        );
        assert_eq!(THREE.message([0, 0], &push)[..96], captured);
        // Its acknowledgement.
        let captured = bytes(
            "014da8c0 00000200 024da8c0 00000200 39300000 39300000 00000000 00000000 6b32b3ed
             4c60ea18 391c0000 00000000 00000000 00000080 30000000 00000000 00000000 00000000",
        );
        let ack = Message::parse(&captured).unwrap();
        assert_eq!((ack.kind, ack.src, ack.dest), (ACK, nid(TWO), nid(ONE)));
        assert_eq!(ack.body[..24], push.body[..24]);
        assert_eq!(ack.body[24..28], [48, 0, 0, 0]);
        // Bulk, which asks to be acknowledged, and how it is.
        let put = Message::put(TWO, ONE, 52, 0xeac4_0000_0000_001f, vec![7; 1 << 20]);
        let captured = bytes(
            "c1000000 00000000 02000000 00000000 00000000 00000000 014da8c0 00000200
             024da8c0 00000200 39300000 39300000 01000000 00001000 ffffffff ffffffff
             ffffffff ffffffff 1f000000 0000c4ea 00000000 00000000 34000000 00000000",
        );
        assert_eq!(THREE.message([2, 0], &put)[..96], captured);
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
    fn long_nids_by_the_book() {
        let one = nid(ONE) | 7 << 32;
        assert_eq!(
            nid_in(Family::V4, one)[..],
            bytes("00 02 0007 c0a84d01 00000000 00000000 00000000")
        );
        assert_eq!(
            nid_in(Family::V6, one)[..],
            bytes("0c 02 0007 fd000000 00000000 00000000 c0a84d01")
        );
        for nid in [0, u64::MAX] {
            assert_eq!(nid_in(Family::V4, nid), nid_in(Family::V6, nid));
        }
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
