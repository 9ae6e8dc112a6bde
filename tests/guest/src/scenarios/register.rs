// SPDX-License-Identifier: GPL-2.0

//! Sockets that a program hands over and closes, which it has accepted or connected.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;

use super::versions::set;
use crate::command::run;
use crate::family;
use crate::ioctl::{self, register};
use crate::lab::Lab;
use crate::modern;
use crate::node::Node;
use crate::pace;
use crate::peer::{
    ACCEPTOR_MAGIC, ANY, BULK_IN, CONTROL, Conn, Hello, Listener, NONE, inverse, nid, request,
    tcp_socket,
};
use crate::stuck::Stuck;
use crate::wait;

const LIMIT: Duration = Duration::from_secs(20);
/// What the module gives a stranger for its whole handshake, in seconds.
const HANDSHAKE: u64 = 5;
/// What may come on top of that.
const SLACK: Duration = Duration::from_millis(2500);

/// A program on a node that accepts connections where the driver doesn't.
struct Acceptor {
    node: Node,
    listener: TcpListener,
}

impl Acceptor {
    /// Listens on a port of its own, for IPv4 alone or for both.
    fn new(node: &Node, both: bool) -> Result<Acceptor> {
        let listener = node.space.within(|| {
            Ok(if both {
                TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?
            } else {
                TcpListener::bind(family::real(node.addr, 0))?
            })
        })?;
        Ok(Acceptor {
            node: node.clone(),
            listener,
        })
    }

    /// A new connection: the program's end, and the script's.
    fn connection(&self, script: &Node) -> Result<(TcpStream, Conn)> {
        let port = self.listener.local_addr()?.port();
        let to = family::real(self.node.addr, port);
        let stream = script.space.within(|| Ok(TcpStream::connect(to)?))?;
        let (accepted, _) = self.listener.accept()?;
        let conn = Conn::over(stream, script.addr, self.node.addr)?;
        Ok((accepted, conn))
    }

    /// Hands one over that the other node has made.
    fn register(&self, socket: &impl AsRawFd) -> Result<Result<(), Errno>> {
        self.hand_over(socket.as_raw_fd(), NONE, None)
    }

    fn hand_over(&self, fd: i32, conn_type: u32, peer: Option<&Node>) -> Result<Result<(), Errno>> {
        let peer = peer.map(|peer| peer.addr);
        self.node
            .space
            .within(|| Ok(register(&ioctl::open()?, fd, conn_type, peer)))
    }
}

/// Introduces the script, with or without the request that comes first elsewhere, and pings.
fn greet(conn: &mut Conn, with_request: bool, conn_type: u32) -> Result<()> {
    if with_request {
        conn.send(&request(ACCEPTOR_MAGIC, 1, nid(conn.to)))?;
    }
    conn.send(&Hello::new(conn.from, conn.to, conn_type).bytes())?;
    conn.expect_hello(inverse(conn_type))?;
    conn.ping(0x1234)
}

/// The only connection of a node to another.
fn only_conn(node: &Node, other: &Node) -> Result<Value> {
    let conns = node.conns_to(other)?;
    ensure!(conns.len() == 1, "connections: {}", Value::from(conns));
    Ok(conns[0].clone())
}

/// A peer uses a connection that a program has accepted, handed over, and closed.
pub fn accepted(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    for (both, with_request, conn_type, name) in [
        (false, false, CONTROL, "control"),
        (false, true, ANY, "any"),
        (true, true, BULK_IN, "bulk_out"),
    ] {
        let acceptor = Acceptor::new(node, both)?;
        let (socket, mut conn) = acceptor.connection(script)?;
        let port = acceptor.listener.local_addr()?.port();
        if conn_type == CONTROL {
            // What came before it was handed over counts, too.
            conn.send(&Hello::new(script.addr, node.addr, conn_type).bytes())?;
            acceptor.register(&socket)??;
            drop(socket);
            conn.expect_hello(inverse(conn_type))?;
            conn.ping(1)?;
        } else {
            acceptor.register(&socket)??;
            drop(socket);
            greet(&mut conn, with_request, conn_type)?;
        }
        let listed = only_conn(node, script)?;
        ensure!(
            listed["type"] == name
                && listed["active"] == false
                && listed["local"] == format!("{}:{port}", node.addr),
            "wrong entry: {listed}"
        );
        node.close_conns()?;
        conn.await_closed(LIMIT)?;
    }
    // Nothing of the program's is left.
    Ok(())
}

/// A program opens the connection: to a script, and to another real node.
pub fn made(lab: &mut Lab) -> Result<()> {
    let (node, other) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let acceptor = Acceptor::new(node, false)?;
    let listener = Listener::new(&other.space, other.addr)?;
    let connect = || {
        node.space.within(|| {
            Ok(TcpStream::connect(family::real(
                other.addr,
                crate::peer::PORT,
            ))?)
        })
    };

    let socket = connect()?;
    acceptor.hand_over(socket.as_raw_fd(), BULK_IN, Some(other))??;
    drop(socket);
    let mut conn = listener.accept_request(LIMIT)?;
    let hello = modern::Hello::receive(&mut conn)?;
    ensure!(
        hello.conn_type == BULK_IN && hello.dialect.version == family::newest().0,
        "wrong greeting {hello:x?}"
    );
    let mut link = modern::Link::accept(conn, &hello, modern::Order::Little)?;
    link.send([0, 0], &link.new_put(100))?;
    let listed = only_conn(node, other)?;
    ensure!(
        listed["type"] == "bulk_in" && listed["active"] == true,
        "wrong entry: {listed}"
    );
    node.close_conns()?;
    link.conn.await_closed(LIMIT)?;

    // Somebody else answers than who was expected.
    let failures = node.counter("/errors/connect")?;
    let socket = connect()?;
    acceptor.hand_over(socket.as_raw_fd(), ANY, Some(other))??;
    drop(socket);
    let mut conn = listener.accept_request(LIMIT)?;
    let hello = modern::Hello::receive(&mut conn)?;
    let stranger = std::net::Ipv4Addr::new(10, 0, 0, 9);
    conn.send(&modern::Hello::new(hello.dialect, stranger, node.addr, ANY).bytes())?;
    conn.await_closed(LIMIT)?;
    ensure!(
        node.counter("/errors/connect")? == failures + 1,
        "the failure was not counted"
    );
    ensure!(
        node.list(&["peer", "list"])?.is_empty(),
        "a peer was left behind"
    );
    drop(listener);

    other.ni_add()?;
    let socket = node.space.within(|| {
        let socket = crate::peer::reserved(node.addr)?;
        rustix::net::connect(&socket, &family::real(other.addr, crate::peer::PORT))?;
        Ok(TcpStream::from(socket))
    })?;
    acceptor.hand_over(socket.as_raw_fd(), ANY, Some(other))??;
    drop(socket);
    wait::until(LIMIT, "connected", || {
        let (ours, theirs) = (only_conn(node, other)?, only_conn(other, node)?);
        ensure!(ours["active"] == true && theirs["active"] == false, "ends");
        Ok(())
    })?;
    node.ping(other)?;
    other.ping(node)?;

    // It is this node's own, so that one of the driver's that is under way is no reason to refuse it,
    // also on the node whose NID is the higher one.
    node.ni_del()?;
    other.ni_del()?;
    other.ni_add()?;
    let listener = Listener::new(&node.space, node.addr)?;
    let ping = other.start(&["ping", "-W", "20", &node.nid()])?;
    let silent = listener.accept_request(LIMIT)?;
    let socket = other.space.within(|| {
        let to = family::real(node.addr, crate::peer::PORT);
        Ok(TcpStream::connect(to)?)
    })?;
    Acceptor::new(other, false)?.hand_over(socket.as_raw_fd(), CONTROL, Some(node))??;
    drop(socket);
    let mut conn = listener.accept_request(LIMIT)?;
    let hello = modern::Hello::receive(&mut conn)?;
    let mut link = modern::Link::accept(conn, &hello, modern::Order::Little)?;
    wait::until(LIMIT, "connected", || {
        let listed = only_conn(other, node)?;
        ensure!(
            listed["type"] == "control" && listed["active"] == true,
            "wrong entry: {listed}"
        );
        Ok(())
    })?;
    drop(silent);
    other.ni_del()?;
    link.conn.await_closed(LIMIT)?;
    ping.wait(LIMIT).map(drop)
}

/// A handed over connection without a HELLO is closed in time, and nothing waits for it.
pub fn silent(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let handshake = pace::scaled(HANDSHAKE);
    set("accept_timeout", handshake)?;
    let handshake = Duration::from_secs(handshake);
    node.ni_add()?;
    let acceptor = Acceptor::new(node, false)?;
    let before = node.counter("/errors/handshake")?;
    let started = Instant::now();
    let (socket, mut mute) = acceptor.connection(script)?;
    acceptor.register(&socket)??;
    drop(socket);
    let (half, mut halting) = acceptor.connection(script)?;
    halting.send(&Hello::new(script.addr, node.addr, CONTROL).bytes()[..40])?;
    acceptor.register(&half)??;
    drop(half);

    let (good, mut talking) = acceptor.connection(script)?;
    acceptor.register(&good)??;
    drop(good);
    greet(&mut talking, false, CONTROL)?;
    ensure!(
        node.counter("/live/handshakes")? == 2,
        "the silent ones were turned away before their time"
    );
    for conn in [&mut mute, &mut halting] {
        let left = handshake.saturating_sub(started.elapsed());
        let (got, _) = conn.await_closed(left + SLACK)?;
        ensure!(got.is_empty(), "the silent one got {got:02x?}");
    }
    wait::until(LIMIT, "both counted", || {
        let errors = node.counter("/errors/handshake")? - before;
        ensure!(errors == 2, "{errors} failed handshakes");
        Ok(())
    })?;
    talking.ping(2)
}

/// Sockets that can't be handed over are refused, each with its own error, and don't change.
pub fn wrong(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    let acceptor = Acceptor::new(node, false)?;
    let (socket, mut conn) = acceptor.connection(script)?;
    let fails = |what: &str, fd: i32, code: Errno| -> Result<()> {
        let got = acceptor.hand_over(fd, NONE, None)?;
        ensure!(got == Err(code), "{what}: {got:?} instead of {code:?}");
        Ok(())
    };
    fails("without an NI", socket.as_raw_fd(), Errno::NOENT)?;
    node.ni_add()?;
    fails("no descriptor", -1, Errno::BADF)?;
    fails("no descriptor", 60_000, Errno::BADF)?;
    fails("no descriptor", i32::MIN, Errno::BADF)?;
    let file = File::open("/proc/self/status")?;
    fails("a file", file.as_raw_fd(), Errno::NOTSOCK)?;
    let (unix, _other) = UnixStream::pair()?;
    fails("a unix socket", unix.as_raw_fd(), Errno::PROTONOSUPPORT)?;
    let (udp, fresh) = node.space.within(|| {
        let udp = UdpSocket::bind(family::real(node.addr, 0))?;
        let fresh = tcp_socket()?;
        Ok((udp, fresh))
    })?;
    fails("a UDP socket", udp.as_raw_fd(), Errno::PROTONOSUPPORT)?;
    fails("not connected", fresh.as_raw_fd(), Errno::NOTCONN)?;
    let listener = acceptor.listener.as_raw_fd();
    fails("listening", listener, Errno::NOTCONN)?;
    let (closed, other) = acceptor.connection(script)?;
    drop(other);
    wait::until(LIMIT, "end of the connection noticed", || {
        fails("half closed", closed.as_raw_fd(), Errno::NOTCONN)
    })?;
    let foreign = script
        .space
        .within(|| Ok(TcpStream::connect(acceptor.listener.local_addr()?)?))?;
    let _accepted = acceptor.listener.accept()?;
    fails("of another namespace", foreign.as_raw_fd(), Errno::XDEV)?;

    // Arguments that don't fit each other.
    let good = socket.as_raw_fd();
    for (conn_type, peer) in [
        (NONE, Some(script)),
        (CONTROL, None),
        (4, Some(script)),
        (CONTROL, Some(node)),
    ] {
        let got = acceptor.hand_over(good, conn_type, peer)?;
        ensure!(
            got == Err(Errno::INVAL),
            "type {conn_type}: {got:?} instead of EINVAL"
        );
    }
    ensure!(
        node.counter("/live/handshakes")? == 0,
        "something was begun all the same"
    );

    // Nor can what is being handed over already.
    acceptor.register(&socket)??;
    fails("twice at once", good, Errno::BUSY)?;
    drop(socket);
    greet(&mut conn, false, CONTROL)?;
    conn.ping(3)
}

/// A socket that a program still refers to is not taken, and nothing waits for the program: whether
/// it has the descriptor, a copy of it, a system call that does not return, or an epoll set with
/// the socket.
pub fn kept_open(lab: &mut Lab) -> Result<()> {
    let (node, script, other) = (lab.node(0), lab.node(1), lab.node(2));
    node.ni_add()?;
    other.ni_add()?;
    let acceptor = Acceptor::new(node, false)?;
    let refused = |count: u64| {
        wait::until(LIMIT, "all refused", || {
            // Others are served meanwhile.
            node.ping(other)?;
            let errors = node.counter("/errors/handshake")?;
            ensure!(errors == count, "{errors} instead of {count}");
            let left = node.counter("/live/handshakes")?;
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
    };
    let (mut kept, mut kept_conn) = acceptor.connection(script)?;
    let (copied, mut copied_conn) = acceptor.connection(script)?;
    let (blocked, mut blocked_conn) = acceptor.connection(script)?;
    let (watched, mut watched_conn) = acceptor.connection(script)?;
    // What comes from it is what nobody has read.
    for conn in [&mut kept_conn, &mut copied_conn, &mut blocked_conn] {
        conn.send(b"hello")?;
    }
    let mut copy = copied.try_clone()?;
    let stuck = Stuck::receive(&blocked)?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let events = epoll::EventFlags::IN;
    epoll::add(&set, &watched, epoll::EventData::new_u64(0), events)?;
    for socket in [&kept, &copied, &blocked, &watched] {
        acceptor.register(socket)??;
    }
    for socket in [copied, blocked, watched] {
        drop(socket);
    }
    refused(4)?;
    let log = run(&mut Command::new("dmesg"), "", LIMIT)?.stdout;
    ensure!(
        log.contains("that was handed over was not closed"),
        "no word of it in the log"
    );
    for socket in [&mut kept, &mut copy] {
        let mut got = [0; 5];
        socket.read_exact(&mut got)?;
        ensure!(&got == b"hello", "{got:?} came");
        socket.write_all(b"there")?;
    }
    for conn in [&mut kept_conn, &mut copied_conn] {
        ensure!(conn.receive(5)? == b"there", "something else came");
    }
    // Whose last holder goes is closed.
    drop(copy);
    copied_conn.await_closed(LIMIT)?;
    drop(set);
    watched_conn.await_closed(LIMIT)?;

    // The NI does not wait for a program, either; and who lets go in the end is heard.
    acceptor.register(&kept)??;
    node.ni_del()?;
    node.ni_add()?;
    acceptor.register(&kept)??;
    drop(kept);
    greet(&mut kept_conn, false, CONTROL)?;
    kept_conn.ping(4)?;
    ensure!(stuck.end()? == 5, "the call was disturbed");
    blocked_conn.await_closed(LIMIT)?;
    node.close_conns()?;
    kept_conn.await_closed(LIMIT).map(drop)
}

/// Closing a socket with SO_LINGER, which a program has set, does not block.
pub fn lingering(lab: &mut Lab) -> Result<()> {
    /// How long the module lets a socket that it has closed try to say so.
    const ORPHAN: Duration = Duration::from_secs(10);
    let (node, script) = (lab.node(0), lab.node(1));
    node.ni_add()?;
    let acceptor = Acceptor::new(node, false)?;
    let (socket, mut conn) = acceptor.connection(script)?;
    acceptor.register(&socket)??;
    set_socket_linger(&socket, Some(Duration::from_secs(600)))?;
    drop(socket);
    greet(&mut conn, false, CONTROL)?;
    drop(acceptor);
    lab.cable(0, false)?;
    node.ni_del()?;
    wait::until(2 * ORPHAN, "no sockets left", || {
        let left = node.tcp_sockets()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    lab.cable(0, true)
}
