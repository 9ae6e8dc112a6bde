// SPDX-License-Identifier: GPL-2.0

//! A proxy: connections between two nodes go through it, and it can close them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Namespace;
use crate::node::Node;
use crate::peer::{Conn, Listener};

/// The two sides of what is one connection to the nodes.
type Pair = [Arc<TcpStream>; 2];

/// What its threads share.
#[derive(Default)]
struct Shared {
    over: AtomicBool,
    pairs: Mutex<Vec<Pair>>,
}

impl Shared {
    fn pairs(&self) -> MutexGuard<'_, Vec<Pair>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Whatever `one` sends to this address goes to `two`, and the other way.
    pub fn new(space: &Namespace, addr: Ipv4Addr, one: &Node, two: &Node) -> Result<Proxy> {
        let listener = Listener::new(space, addr)?;
        let (space, one, two) = (space.clone(), one.addr, two.addr);
        let shared = Arc::new(Shared::default());
        let sharing = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            while !sharing.over.load(Ordering::Relaxed) {
                let Ok(conn) = listener.accept(Duration::from_millis(20)) else {
                    continue;
                };
                let target = if conn.to == one { two } else { one };
                // If the other does not take it, this one ends as well.
                if let Ok(onward) = Conn::dial(&space, addr, target) {
                    let _ = join(&sharing, conn.into_stream(), onward.into_stream());
                }
            }
        });
        Ok(Proxy {
            shared,
            accepting: Some(accepting),
        })
    }

    /// Ends the `which`-th of the connections, counted around.
    pub fn cut(&self, which: usize) -> Result<()> {
        let mut pairs = self.shared.pairs();
        let count = pairs.len();
        let index = which.checked_rem(count).context("no connection")?;
        end(&pairs.swap_remove(index));
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.shared.pairs().iter().for_each(end);
    }
}

fn end(pair: &Pair) {
    for stream in pair {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn join(shared: &Arc<Shared>, one: Arc<TcpStream>, two: Arc<TcpStream>) -> Result<()> {
    for stream in [&one, &two] {
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
    }
    shared.pairs().push([one.clone(), two.clone()]);
    for (from, to) in [(one.clone(), two.clone()), (two, one)] {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let _ = pass_on(&from, &to);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            // What the nodes have ended themselves is none any more.
            let mut pairs = shared.pairs();
            pairs.retain(|pair| pair.iter().all(|stream| !Arc::ptr_eq(stream, &from)));
        });
    }
    Ok(())
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream) -> Result<()> {
    let mut buffer = [0; 16384];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count])?;
    }
}
