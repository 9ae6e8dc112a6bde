// SPDX-License-Identifier: GPL-2.0

//! A scripted peer: speaks version 1.0 of the protocol, or anything else that a scenario wants.
//!
//! Over IPv6, which version 1.0 has not, the same script speaks version 4: HELLOs and messages
//! have the same contents, of which [`crate::modern`] makes its formats.
//!
//! Written from the specification alone. It shares no code with the module, so that an error in
//! the module's formats can't hide behind the same error here. Every field is public, so that scenarios can
//! send wrong values.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
};

use crate::family::{self, Family};
use crate::lab::Namespace;
use crate::modern;
use crate::node::Node;
use crate::pace;
use crate::worker::{self, Line};

/// Where nodes listen.
pub const PORT: u16 = 988;
/// Numbers that begin what is sent.
pub const HELLO_MAGIC: u32 = 0xeebc_0ded;
pub const LNET_MAGIC: u32 = 0x4572_6963;
pub const ACCEPTOR_MAGIC: u32 = 0xacce_7100;
/// Types of connections, as their sender sees them.
pub const NONE: u32 = u32::MAX;
pub const ANY: u32 = 0;
pub const CONTROL: u32 = 1;
pub const BULK_IN: u32 = 2;
pub const BULK_OUT: u32 = 3;
/// Types of messages.
pub const ACK: u32 = 0;
pub const PUT: u32 = 1;
pub const GET: u32 = 2;
pub const REPLY: u32 = 3;
const HELLO_TYPE: u32 = 4;
/// Where a ping goes: a GET of these match bits from portal 0.
const PING_MATCH: u64 = 1 << 63;
/// The first bytes of what a ping returns.
const PING_MAGIC: u32 = 0x7069_6e67;

const PID: u32 = 12345;
/// How long a script waits for what must come, or until it may send more.
const IO_LIMIT: Duration = Duration::from_secs(10);

/// The 64 bits of the NID of an address on network tcp0. Over IPv6 scripts have it by the same name.
pub fn nid(addr: Ipv4Addr) -> u64 {
    2 << 48 | u64::from(u32::from(addr))
}

/// What an active peer says first: for whom the connection is meant. The NIDs of IPv6 are too long
/// for version 1: with them it is version 2.
pub fn request(magic: u32, version: u32, target: u64) -> Vec<u8> {
    if family::is_ipv6() && version == 1 {
        let target = modern::long_nid(target);
        return [&magic.to_le_bytes()[..], &2_u32.to_le_bytes(), &target].concat();
    }
    short_request(magic, version, target)
}

/// One of 16 bytes.
pub fn short_request(magic: u32, version: u32, target: u64) -> Vec<u8> {
    [
        &magic.to_le_bytes()[..],
        &version.to_le_bytes(),
        &target.to_le_bytes(),
    ]
    .concat()
}

/// A greeting of version 1.0.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Whom it is for. Version 1.0 does not say that.
    pub dest: u64,
    pub magic: u32,
    pub major: u16,
    pub minor: u16,
    pub src: u64,
    pub dest_pid: u32,
    pub src_pid: u32,
    pub kind: u32,
    pub length: u32,
    pub incarnation: u64,
    pub conn_type: u32,
    pub rest: [u8; 28],
    pub ips: Vec<u32>,
}

impl Hello {
    /// A correct one.
    pub fn new(from: Ipv4Addr, to: Ipv4Addr, conn_type: u32) -> Hello {
        Hello {
            dest: nid(to),
            magic: HELLO_MAGIC,
            major: 1,
            minor: 0,
            src: nid(from),
            dest_pid: 0,
            src_pid: PID,
            kind: HELLO_TYPE,
            length: 0,
            incarnation: 1_000_000,
            conn_type,
            rest: [0; 28],
            ips: Vec::new(),
        }
    }

    /// The same with these addresses of the sender's cards.
    pub fn with_ips(mut self, ips: &[u32]) -> Hello {
        self.ips = ips.to_vec();
        self.length = 4 * ips.len() as u32;
        self
    }

    /// The same for the node whose NID has this address, wherever it is sent.
    pub fn to(mut self, addr: Ipv4Addr) -> Hello {
        self.dest = nid(addr);
        self
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        if family::is_ipv6() {
            return modern::Hello::of(self).bytes();
        }
        let mut out = Vec::new();
        out.extend(self.magic.to_le_bytes());
        out.extend(self.major.to_le_bytes());
        out.extend(self.minor.to_le_bytes());
        out.extend(self.src.to_le_bytes());
        out.extend(self.dest_pid.to_le_bytes());
        out.extend(self.src_pid.to_le_bytes());
        out.extend(self.kind.to_le_bytes());
        out.extend(self.length.to_le_bytes());
        out.extend(self.incarnation.to_le_bytes());
        out.extend(self.conn_type.to_le_bytes());
        out.extend(self.rest);
        for ip in &self.ips {
            out.extend(ip.to_le_bytes());
        }
        out
    }

    /// Reads the first 72 bytes of one.
    pub fn parse(bytes: &[u8; 72]) -> Result<Hello> {
        let mut rest = [0; 28];
        rest.copy_from_slice(&bytes[44..72]);
        Ok(Hello {
            dest: 0,
            magic: u32_at(bytes, 0)?,
            major: u32_at(bytes, 4)? as u16,
            minor: (u32_at(bytes, 4)? >> 16) as u16,
            src: u64_at(bytes, 8)?,
            dest_pid: u32_at(bytes, 16)?,
            src_pid: u32_at(bytes, 20)?,
            kind: u32_at(bytes, 24)?,
            length: u32_at(bytes, 28)?,
            incarnation: u64_at(bytes, 32)?,
            conn_type: u32_at(bytes, 40)?,
            rest,
            ips: Vec::new(),
        })
    }
}

/// A message: 72 bytes of header, of which the last 40 depend on the type, and the payload.
#[derive(Clone, Debug)]
pub struct Message {
    pub dest: u64,
    pub src: u64,
    pub dest_pid: u32,
    pub src_pid: u32,
    pub kind: u32,
    pub length: u32,
    pub body: [u8; 40],
    pub payload: Vec<u8>,
}

impl Message {
    fn new(from: Ipv4Addr, to: Ipv4Addr, kind: u32) -> Message {
        Message {
            dest: nid(to),
            src: nid(from),
            dest_pid: PID,
            src_pid: PID,
            kind,
            length: 0,
            body: [0; 40],
            payload: Vec::new(),
        }
    }

    /// A PUT without acknowledgement.
    pub fn put(
        from: Ipv4Addr,
        to: Ipv4Addr,
        portal: u32,
        match_bits: u64,
        payload: Vec<u8>,
    ) -> Message {
        let mut message = Message::new(from, to, PUT);
        message.body[0..16].fill(0xff);
        message.body[16..24].copy_from_slice(&match_bits.to_le_bytes());
        message.body[32..36].copy_from_slice(&portal.to_le_bytes());
        message.length = payload.len() as u32;
        message.payload = payload;
        message
    }

    /// A GET, to be answered to the memory called `handle`.
    pub fn get(
        from: Ipv4Addr,
        to: Ipv4Addr,
        portal: u32,
        match_bits: u64,
        handle: u64,
        length: u32,
    ) -> Message {
        let mut message = Message::new(from, to, GET);
        message.body[0..8].copy_from_slice(&handle.to_le_bytes());
        message.body[8..16].copy_from_slice(&(!handle).to_le_bytes());
        message.body[16..24].copy_from_slice(&match_bits.to_le_bytes());
        message.body[24..28].copy_from_slice(&portal.to_le_bytes());
        message.body[32..36].copy_from_slice(&length.to_le_bytes());
        message
    }

    /// A ping.
    pub fn ping(from: Ipv4Addr, to: Ipv4Addr, handle: u64) -> Message {
        Message::get(from, to, 0, PING_MATCH, handle, 272)
    }

    /// The answer to a GET.
    pub fn reply(&self, payload: Vec<u8>) -> Message {
        let mut message = Message {
            dest: self.src,
            src: self.dest,
            kind: REPLY,
            ..self.clone()
        };
        message.body = [0; 40];
        message.body[0..16].copy_from_slice(&self.body[0..16]);
        message.length = payload.len() as u32;
        message.payload = payload;
        message
    }

    /// Reads a header of 72 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Message> {
        let mut message = Message {
            dest: u64_at(bytes, 0)?,
            src: u64_at(bytes, 8)?,
            dest_pid: u32_at(bytes, 16)?,
            src_pid: u32_at(bytes, 20)?,
            kind: u32_at(bytes, 24)?,
            length: u32_at(bytes, 28)?,
            body: [0; 40],
            payload: Vec::new(),
        };
        message
            .body
            .copy_from_slice(bytes.get(32..72).context("too short")?);
        ensure!(message.length <= 1 << 20, "too long: {message:?}");
        Ok(message)
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        match family::current() {
            Family::V4 => self.bare(),
            Family::V6 => modern::PLAIN.message([0, 0], self),
        }
    }

    /// The same in version 1.0.
    pub fn bare(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(72 + self.payload.len());
        out.extend(self.dest.to_le_bytes());
        out.extend(self.src.to_le_bytes());
        out.extend(self.dest_pid.to_le_bytes());
        out.extend(self.src_pid.to_le_bytes());
        out.extend(self.kind.to_le_bytes());
        out.extend(self.length.to_le_bytes());
        out.extend(self.body);
        out.extend(&self.payload);
        out
    }

    /// Whether this is a correct answer to the ping with that handle.
    pub fn check_pong(&self, ping: &Message) -> Result<()> {
        ensure!(self.kind == REPLY, "no REPLY but type {}", self.kind);
        ensure!(
            self.src == ping.dest && self.dest == ping.src,
            "wrong NIDs in {:?}",
            self
        );
        ensure!(
            self.body[0..16] == ping.body[0..16],
            "the handle came back changed"
        );
        ensure!(
            self.body[16..].iter().all(|byte| *byte == 0),
            "bytes without meaning are not zero"
        );
        ensure!(
            u32_at(&self.payload, 0)? == PING_MAGIC,
            "the answer does not begin with the magic"
        );
        let count = u32_at(&self.payload, 12)? as usize;
        ensure!(
            self.payload.len() >= 16 + 16 * count,
            "{count} NIDs don't fit the answer"
        );
        let mut nids: Vec<u64> = (0..count)
            .map(|i| u64_at(&self.payload, 16 + 16 * i))
            .collect::<Result<_>>()?;
        if family::is_ipv6() {
            nids = modern::told_nids(&self.payload, 16 + 16 * count)?;
        }
        ensure!(
            nids.contains(&ping.dest),
            "the node's NID is not in its answer: {nids:x?}"
        );
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes.get(at..at + 4).context("too short")?;
    Ok(u32::from_le_bytes(field.try_into()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..at + 8).context("too short")?;
    Ok(u64::from_le_bytes(field.try_into()?))
}

/// One end of a connection that a script plays. Nothing of it survives the scenario: see
/// [`worker::hang_up`].
pub struct Conn {
    stream: Arc<TcpStream>,
    /// This end's address.
    pub from: Ipv4Addr,
    /// The other end's address.
    pub to: Ipv4Addr,
}

impl Conn {
    /// Connects from a port that only an administrator may use.
    pub fn dial(space: &Namespace, from: Ipv4Addr, to: Ipv4Addr) -> Result<Conn> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Every attempt takes the next port, so that one in TIME_WAIT is rarely met.
        for _ in 0..500 {
            let port = 1023 - NEXT.fetch_add(1, Ordering::Relaxed) % 500;
            match Conn::dial_from(space, SocketAddrV4::new(from, port), to) {
                Err(why) if in_use(&why) => {}
                result => return result,
            }
        }
        bail!("no free port on {from}")
    }

    /// Connects from this address and port.
    pub fn dial_from(space: &Namespace, from: SocketAddrV4, to: Ipv4Addr) -> Result<Conn> {
        let stream = space.within(|| {
            let socket = tcp_socket()?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &family::real(*from.ip(), from.port()))?;
            connect(&socket, &family::real(to, PORT))?;
            Ok(TcpStream::from(socket))
        })?;
        Conn::over(stream, *from.ip(), to)
    }

    /// A connection that was made in another way.
    pub fn over(stream: TcpStream, from: Ipv4Addr, to: Ipv4Addr) -> Result<Conn> {
        let limit = pace::stretched(IO_LIMIT);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let stream = worker::watched(stream);
        Ok(Conn { stream, from, to })
    }

    /// By which the connection can be ended while a thread has it.
    pub fn line(&self) -> Line {
        Arc::downgrade(&self.stream)
    }

    /// A connection through the exchange of greetings, as a correct peer makes it.
    pub fn greeted(space: &Namespace, from: Ipv4Addr, to: &Node, conn_type: u32) -> Result<Conn> {
        let mut conn = Conn::dial(space, from, to.addr)?;
        conn.send(&request(ACCEPTOR_MAGIC, 1, nid(to.addr)))?;
        conn.send(&Hello::new(from, to.addr, conn_type).bytes())?;
        conn.expect_hello(inverse(conn_type))?;
        Ok(conn)
    }

    /// One more descriptor of the socket.
    pub fn duplicate(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// Nothing but the socket.
    pub fn into_stream(self) -> Arc<TcpStream> {
        self.stream
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok((&*self.stream).write_all(bytes)?)
    }

    /// Sends bytes, or of them what the other end has room for, and a little later still.
    pub fn send_some(&mut self, bytes: &[u8]) -> Result<()> {
        let limit = self.stream.write_timeout()?;
        self.stream
            .set_write_timeout(Some(Duration::from_millis(300)))?;
        let mut rest = bytes;
        while !rest.is_empty() {
            match (&*self.stream).write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                Err(why) => return Err(why.into()),
            }
        }
        Ok(self.stream.set_write_timeout(limit)?)
    }

    /// Lets sending and receiving take as long as it takes.
    pub fn be_patient(&self) -> Result<()> {
        self.stream.set_read_timeout(None)?;
        Ok(self.stream.set_write_timeout(None)?)
    }

    /// Sends bytes, each in a segment of its own.
    pub fn dribble(&mut self, bytes: &[u8], pause: Duration) -> Result<()> {
        for byte in bytes {
            self.send(&[*byte])?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Receives exactly so many bytes.
    pub fn receive(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        (&*self.stream).read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Receives a greeting, which must be a correct one.
    pub fn receive_hello(&mut self) -> Result<Hello> {
        if family::is_ipv6() {
            return Ok(modern::Hello::read(self)?.plain());
        }
        let opening = self.receive(8)?;
        self.receive_hello_after(&opening)
    }

    fn receive_hello_after(&mut self, opening: &[u8]) -> Result<Hello> {
        let bytes = [opening, &self.receive(64)?].concat();
        let bytes: [u8; 72] = bytes.try_into().unwrap_or([0; 72]);
        let mut hello = Hello::parse(&bytes)?;
        ensure!(hello.magic == HELLO_MAGIC, "wrong magic in {hello:x?}");
        ensure!(
            (hello.major, hello.minor) == (1, 0),
            "wrong version in {hello:x?}"
        );
        ensure!(hello.kind == HELLO_TYPE, "wrong type in {hello:x?}");
        ensure!(
            hello.rest == [0; 28],
            "bytes without meaning are not zero: {hello:x?}"
        );
        ensure!(
            hello.length <= 64 && hello.length % 4 == 0,
            "wrong length in {hello:x?}"
        );
        for _ in 0..hello.length / 4 {
            hello.ips.push(u32_at(&self.receive(4)?, 0)?);
        }
        Ok(hello)
    }

    /// Receives a greeting of the other end's NID and of this type of connection.
    pub fn expect_hello(&mut self, conn_type: u32) -> Result<Hello> {
        let hello = self.receive_hello().context("no greeting")?;
        ensure!(hello.src == nid(self.to), "wrong NID in {hello:x?}");
        ensure!(
            hello.conn_type == conn_type,
            "wrong type of connection in {hello:x?}"
        );
        ensure!(hello.incarnation != 0, "no incarnation in {hello:x?}");
        Ok(hello)
    }

    /// Receives a message.
    pub fn receive_message(&mut self) -> Result<Message> {
        if family::is_ipv6() {
            return modern::receive_plain(self);
        }
        let mut message = Message::parse(&self.receive(72)?)?;
        message.payload = self.receive(message.length as usize)?;
        Ok(message)
    }

    /// Receives a message that begins within just `limit`; nothing, if none does or there will be none.
    pub fn receive_message_within(&mut self, limit: Duration) -> Result<Option<Message>> {
        if !self.has_input(limit)? {
            return Ok(None);
        }
        match family::current() {
            Family::V4 => self.receive_message().map(Some),
            Family::V6 => modern::receive_plain_or_sign(self),
        }
    }

    /// Pings over this connection and checks the answer.
    pub fn ping(&mut self, handle: u64) -> Result<()> {
        let ping = Message::ping(self.from, self.to, handle);
        self.send(&ping.bytes())?;
        self.receive_message()
            .context("no answer to the ping")?
            .check_pong(&ping)
    }

    /// Whether something comes within just this time; it is left there.
    pub fn has_input(&mut self, limit: Duration) -> Result<bool> {
        self.stream.set_read_timeout(Some(limit))?;
        let there = match self.stream.peek(&mut [0]) {
            Ok(count) => count > 0,
            Err(why) if why.kind() == ErrorKind::WouldBlock => false,
            Err(why) => return Err(why.into()),
        };
        self.stream
            .set_read_timeout(Some(pace::stretched(IO_LIMIT)))?;
        Ok(there)
    }

    /// Has it take no more than about so much that is not read, and what it has offered already.
    pub fn narrow(&self, bytes: usize) -> Result<()> {
        Ok(sockopt::set_socket_recv_buffer_size(&*self.stream, bytes)?)
    }

    /// Whether the other end has closed, and nothing is left to be read.
    pub fn has_end(&mut self) -> Result<bool> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        match peeked {
            Ok(count) => Ok(count == 0),
            Err(why) if why.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(why) if is_reset(&why) => Ok(true),
            Err(why) => Err(why.into()),
        }
    }

    /// Waits until the other end closes, as long as `limit` is by the pace of this guest. Returns what it
    /// sent before, and how long that took.
    pub fn await_closed(&mut self, limit: Duration) -> Result<(Vec<u8>, Duration)> {
        let limit = pace::stretched(limit);
        let started = Instant::now();
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let left = limit.saturating_sub(started.elapsed());
            ensure!(
                !left.is_zero(),
                "still open after {:.1} s",
                limit.as_secs_f64()
            );
            self.stream.set_read_timeout(Some(left))?;
            match (&*self.stream).read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => got.extend(&buffer[..count]),
                Err(why)
                    if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(why) if is_reset(&why) => break,
                Err(why) => return Err(why.into()),
            }
        }
        Ok((got, started.elapsed()))
    }

    /// Whether an error from receiving means that the other end has closed.
    pub fn is_closed(&self, why: &anyhow::Error) -> bool {
        let why = why.root_cause().downcast_ref::<std::io::Error>();
        why.is_some_and(|why| why.kind() == ErrorKind::UnexpectedEof || is_reset(why))
    }

    /// Ends the connection with a reset.
    pub fn reset(self) -> Result<()> {
        sockopt::set_socket_linger(&*self.stream, Some(Duration::ZERO))?;
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) -> Result<()> {
        Ok(self.stream.shutdown(std::net::Shutdown::Write)?)
    }
}

/// A script that waits for connections.
pub struct Listener {
    listener: TcpListener,
    addr: Ipv4Addr,
}

impl Listener {
    /// Listens where nodes do.
    pub fn new(space: &Namespace, addr: Ipv4Addr) -> Result<Listener> {
        let listener = space.within(|| {
            let socket = tcp_socket()?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &family::real(addr, PORT))?;
            listen(&socket, 128)?;
            Ok(TcpListener::from(socket))
        })?;
        listener.set_nonblocking(true)?;
        Ok(Listener { listener, addr })
    }

    /// Has connections made from now on take no more than about so much that is not read.
    pub fn narrow(&self, bytes: usize) -> Result<()> {
        Ok(sockopt::set_socket_recv_buffer_size(&self.listener, bytes)?)
    }

    /// The next connection.
    pub fn accept(&self, limit: Duration) -> Result<Conn> {
        crate::wait::until(limit, "connection", || {
            let (stream, from) = self.listener.accept()?;
            stream.set_nonblocking(false)?;
            Conn::over(stream, self.addr, family::named(from.ip())?)
        })
    }

    /// The next connection, with what an active peer must say first; gives the greeting. One of a
    /// later version is refused as a node that knows only version 1.0 does it: then it must come
    /// again in that version.
    pub fn accept_greeting(&self, limit: Duration) -> Result<(Conn, Hello)> {
        let mut conn = self.accept_request(limit)?;
        if family::is_ipv6() {
            let hello = modern::Hello::receive(&mut conn)?.plain();
            return Ok((conn, hello));
        }
        let mut opening = conn.receive(8)?;
        if u32_at(&opening, 0)? == LNET_MAGIC {
            // All of it, or closing would be a reset.
            conn.receive(48)?;
            conn.send(&Hello::new(self.addr, conn.to, NONE).bytes())?;
            drop(conn);
            conn = self.accept_request(limit)?;
            opening = conn.receive(8)?;
        }
        let hello = conn.receive_hello_after(&opening)?;
        ensure!(hello.src == nid(conn.to), "wrong NID in {hello:x?}");
        Ok((conn, hello))
    }

    /// The next connection, with the request that comes before the greeting.
    pub fn accept_request(&self, limit: Duration) -> Result<Conn> {
        let mut conn = self.accept(limit)?;
        let wanted = request(ACCEPTOR_MAGIC, 1, nid(self.addr));
        ensure!(
            conn.receive(wanted.len())? == wanted,
            "wrong request before the greeting"
        );
        Ok(conn)
    }
}

/// A socket that is not bound yet, and that no program inherits.
pub fn tcp_socket() -> Result<OwnedFd, Errno> {
    let family = match family::current() {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    // Programs that are started later don't inherit it: closed here, it is closed.
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// A socket at a port that only an administrator may use.
pub fn reserved(addr: Ipv4Addr) -> Result<OwnedFd> {
    for port in 600..1000 {
        let socket = tcp_socket()?;
        match bind(&socket, &family::real(addr, port)) {
            Err(Errno::ADDRINUSE) => {}
            result => return result.map(|()| socket).map_err(Into::into),
        }
    }
    bail!("no free port on {addr}")
}

/// A type of connection as the other end calls it.
pub fn inverse(conn_type: u32) -> u32 {
    match conn_type {
        BULK_IN => BULK_OUT,
        BULK_OUT => BULK_IN,
        other => other,
    }
}

fn in_use(why: &anyhow::Error) -> bool {
    let code = why.downcast_ref::<Errno>();
    matches!(code, Some(&Errno::ADDRINUSE | &Errno::ADDRNOTAVAIL))
}

fn is_reset(why: &std::io::Error) -> bool {
    matches!(
        why.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
    const TWO: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// As two nodes of Lustre 2.17 sent them.
    #[test]
    fn captured_request_and_ping() {
        assert_eq!(
            request(ACCEPTOR_MAGIC, 1, nid(TWO)),
            bytes("0071ceac 01000000 024da8c0 00000200")
        );
        let mut ping = Message::ping(ONE, TWO, 0x18ea_604c_edb3_326b);
        ping.body[8..16].copy_from_slice(&0x1c09_u64.to_le_bytes());
        ping.body[32..36].copy_from_slice(&3960_u32.to_le_bytes());
        let captured = bytes(
            "024da8c0 00000200 014da8c0 00000200 39300000 39300000 02000000 00000000 6b32b3ed 4c60ea18
             091c0000 00000000 00000000 00000080 00000000 00000000 780f0000 00000000",
        );
        assert_eq!(ping.bytes(), captured);
    }

    /// By the description of 2005.
    #[test]
    fn hello_by_the_book() {
        let hello = Hello::new(ONE, TWO, BULK_OUT).with_ips(&[0x0a00_0001]);
        let mut wanted = bytes(
            "ed0dbcee 0100 0000 014da8c0 00000200 00000000 39300000 04000000 04000000 40420f00 00000000
             03000000",
        );
        wanted.extend([0; 28]);
        wanted.extend([1, 0, 0, 10]);
        assert_eq!(hello.bytes(), wanted);
        let read = Hello::parse(&wanted[..72].try_into().unwrap()).unwrap();
        assert_eq!(
            (read.src, read.conn_type, read.length),
            (nid(ONE), BULK_OUT, 4)
        );
    }

    #[test]
    fn wrong_answers_to_a_ping_are_noticed() {
        let ping = Message::ping(ONE, TWO, 77);
        let mut info = Vec::new();
        for field in [PING_MAGIC, 1, 12345, 1] {
            info.extend(field.to_le_bytes());
        }
        info.extend(nid(TWO).to_le_bytes());
        info.extend([0; 8]);
        let good = ping.reply(info);
        assert!(good.check_pong(&ping).is_ok());
        let spoilt: [fn(&mut Message); 7] = [
            |pong| pong.kind = PUT,
            |pong| pong.src = 0,
            |pong| pong.body[0] ^= 1,
            |pong| pong.body[39] = 1,
            |pong| pong.payload[0] ^= 1,
            |pong| pong.payload[12] = 2,
            |pong| pong.payload[16] ^= 1,
        ];
        for spoil in spoilt {
            let mut pong = good.clone();
            spoil(&mut pong);
            assert!(pong.check_pong(&ping).is_err());
        }
    }
}
