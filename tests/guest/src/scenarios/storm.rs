// SPDX-License-Identifier: GPL-2.0

//! Peers that connect all the time, while the module is inserted, used and removed.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, SendFlags, SocketFlags, SocketType, sendto, socket_with,
};

use crate::lab::Lab;
use crate::module;
use crate::node::Node;
use crate::peer::{ACCEPTOR_MAGIC, CONTROL, Conn, Hello, PORT, nid, request};
use crate::port::note;
use crate::wait;

const SOON: Duration = Duration::from_secs(30);

/// Work that is done again and again, in a thread of its own, until this is dropped.
struct Again {
    stop: Arc<AtomicBool>,
    successes: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Again {
    fn start(mut work: impl FnMut() -> Result<()> + Send + 'static) -> Again {
        let stop = Arc::new(AtomicBool::new(false));
        let successes = Arc::new(AtomicUsize::new(0));
        let (stopping, count) = (Arc::clone(&stop), Arc::clone(&successes));
        let thread = thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                // Failing is normal where the module comes and goes.
                count.fetch_add(usize::from(work().is_ok()), Ordering::Relaxed);
            }
        });
        Again {
            stop,
            successes,
            thread: Some(thread),
        }
    }

    fn successes(&self) -> usize {
        self.successes.load(Ordering::Relaxed)
    }

    /// Ends it; says how often it has succeeded.
    fn end(mut self) -> Result<usize> {
        self.stop()?;
        Ok(self.successes())
    }

    fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| anyhow!("the thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// The checksum of the internet, as RFC 1071 has it.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A TCP segment that asks for a connection to where nodes listen.
fn syn(from: Ipv4Addr, to: Ipv4Addr, source: u16) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source.to_be_bytes());
    segment.extend(PORT.to_be_bytes());
    segment.extend((u32::from(source) << 8).to_be_bytes());
    segment.extend([0; 4]);
    // Five words of header, SYN, and a window.
    segment.extend([5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let mut pseudo = [from.octets(), to.octets()].concat();
    pseudo.extend([0, 6, 0, segment.len() as u8]);
    let sum = checksum(&[pseudo, segment.clone()].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// Requests for connections that nobody goes on with, as many as can be sent.
fn syns(script: &Node, node: &Node) -> Result<Again> {
    let tcp = RawProtocol::new(6).map(Protocol::from_raw);
    let socket = script.space.within(|| {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        Ok(socket_with(AddressFamily::INET, kind, flags, tcp)?)
    })?;
    let (from, to) = (script.addr, node.addr);
    let mut source = 600;
    Ok(Again::start(move || {
        source = if source < 1000 { source + 1 } else { 600 };
        let segment = syn(from, to, source);
        let to = std::net::SocketAddrV4::new(to, 0);
        sendto(&socket, &segment, SendFlags::empty(), &to)?;
        Ok(())
    }))
}

/// Connections that are given up as soon as they are made: with a reset, or with the greeting half said.
fn dials(script: &Node, node: &Node) -> Again {
    let (script, node) = (script.clone(), node.clone());
    let mut round = 0;
    Again::start(move || {
        round += 1;
        let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
        if round % 2 == 0 {
            conn.send(&request(ACCEPTOR_MAGIC, 1, nid(node.addr)))?;
            conn.send(&Hello::new(script.addr, node.addr, CONTROL).bytes()[..50])?;
        }
        conn.reset()
    })
}

/// A peer that connects, talks, and connects again.
fn talks(script: &Node, node: &Node) -> Again {
    let (script, node) = (script.clone(), node.clone());
    let mut incarnation = 1_000_000;
    Again::start(move || {
        incarnation += 1;
        let mut conn = Conn::dial(&script.space, script.addr, node.addr)?;
        conn.send(&request(ACCEPTOR_MAGIC, 1, nid(node.addr)))?;
        let hello = Hello {
            incarnation,
            ..Hello::new(script.addr, node.addr, CONTROL)
        };
        conn.send(&hello.bytes())?;
        conn.expect_hello(CONTROL)?;
        conn.ping(incarnation)
    })
}

fn await_more(whose: &Again, what: &str) -> Result<()> {
    let before = whose.successes();
    wait::until(SOON, what, || {
        ensure!(whose.successes() > before);
        Ok(())
    })
}

/// The module is inserted, gets its NI, and is removed, many times, during a flood of connections
/// and of SYNs.
pub fn flood(lab: &mut Lab) -> Result<()> {
    const ROUNDS: usize = 8;
    let node = lab.node(0);
    let half = syns(lab.node(1), node)?;
    let others = [dials(lab.node(1), node), dials(lab.node(2), node)];
    for round in 0..ROUNDS {
        if !module::is_inserted() {
            module::insert()?;
        }
        for _ in 0..2 {
            node.ni_add().with_context(|| format!("round {round}"))?;
            await_more(&half, "requests for connections")?;
            await_more(&others[round % 2], "connections")?;
            if round % 2 == 0 {
                node.ni_del()?;
            } else {
                break;
            }
        }
        module::remove()?;
    }
    let requests = half.end()?;
    let mut made = 0;
    for other in others {
        made += other.end()?;
    }
    note(&format!(
        "{requests} requests and {made} connections in {ROUNDS} rounds"
    ));
    module::insert()
}

/// Peers that connect and send requests all the time delay neither the end of an NI nor the removal
/// of the module.
pub fn during_shutdown(lab: &mut Lab) -> Result<()> {
    const ROUNDS: usize = 8;
    let node = lab.node(0);
    let peers: Vec<Again> = [1, 1, 2, 3].map(|at| talks(lab.node(at), node)).into();
    for round in 0..ROUNDS {
        if !module::is_inserted() {
            module::insert()?;
        }
        node.ni_add()?;
        for peer in &peers[1..] {
            await_more(peer, "peers that are answered")?;
        }
        if round % 2 == 0 {
            node.ni_del()?;
            let left = node.list(&["ni", "list"])?;
            ensure!(left.is_empty(), "{left:?}");
        }
        module::remove().with_context(|| format!("round {round}"))?;
    }
    let mut answers = 0;
    for peer in peers {
        answers += peer.end()?;
    }
    note(&format!("{answers} answers in {ROUNDS} rounds"));
    module::insert()
}
