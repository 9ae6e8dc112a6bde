// SPDX-License-Identifier: GPL-2.0

//! Several nodes in one machine: network namespaces with a network card each, joined by a bridge
//! that stands in a namespace of its own.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::command::{Job, run};
use crate::family;
use crate::node::Node;
use crate::wait;

const TOOL_LIMIT: Duration = Duration::from_secs(20);
/// How long the kernel may take to take a namespace apart.
const CLEANUP_LIMIT: Duration = Duration::from_secs(30);

/// A network namespace. The kernel keeps it while this, a process or a real reference is in it.
#[derive(Clone)]
pub struct Namespace {
    handle: Arc<File>,
}

impl Namespace {
    /// Makes a namespace with nothing in it but a loopback device that is down.
    pub fn new() -> Result<Namespace> {
        let handle = thread::spawn(|| -> Result<File> {
            // SAFETY: only this thread gets new network devices; it ends here, and no descriptor
            // or address of another thread is affected.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            // An IPv6 address serves at once, without a search for somebody else who has it, and
            // stays while its card is down, as one of IPv4 does.
            for (name, value) in [("accept_dad", "0"), ("keep_addr_on_down", "1")] {
                for device in ["all", "default"] {
                    fs::write(format!("/proc/sys/net/ipv6/conf/{device}/{name}"), value)?;
                }
            }
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let handle = handle
            .join()
            .map_err(|_| anyhow!("the thread panicked"))??;
        Ok(Namespace {
            handle: Arc::new(handle),
        })
    }

    /// Runs `work` in a thread of this namespace. Sockets made and programs started there stay.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("cannot enter the namespace")?;
                work()
            });
            inside
                .join()
                .map_err(|panic| anyhow!("panic: {}", panic_text(&*panic)))?
        })
    }

    /// Starts a program in this namespace.
    pub fn start(&self, command: &mut Command, input: &str) -> Result<Job> {
        self.within(|| Job::start(command, input))
    }

    /// Runs a tool that must succeed.
    pub fn tool(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = self.within(|| run(&mut command, input, TOOL_LIMIT))?;
        Ok(output.checked(&crate::command::describe(&command))?.stdout)
    }

    /// Runs `ip` on several lines of arguments at once.
    pub fn ip(&self, lines: &str) -> Result<String> {
        self.tool("ip", &["-batch", "-"], lines)
    }

    /// A path by which other programs can name this namespace while this handle is open.
    fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.handle.as_raw_fd()
        )
    }

    /// The names of the network devices in it.
    pub fn devices(&self) -> Result<Vec<String>> {
        let table = self.within(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let names = table
            .lines()
            .skip(2)
            .filter_map(|line| line.split_once(':'));
        Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

/// The nodes of one scenario, 10.0.0.1 and up, and the bridge between them. Over IPv6 these are names
/// for other addresses, see [`crate::family`].
pub struct Lab {
    switch: Namespace,
    nodes: Vec<Option<Node>>,
}

impl Lab {
    /// Makes the namespaces and links; no node has an interface of the module yet.
    pub fn new(count: usize) -> Result<Lab> {
        let switch = Namespace::new()?;
        let mut links = "link set lo up\nlink add br0 type bridge\nlink set br0 up\n".to_owned();
        let mut nodes = Vec::new();
        for index in 0..count {
            let space = Namespace::new()?;
            links += &format!(
                "link add n{index} type veth peer name eth0 netns {}\n",
                space.path()
            );
            links += &format!("link set n{index} master br0 up\n");
            nodes.push((space, address(index)?));
        }
        switch.ip(&links)?;
        let nodes = nodes.into_iter().map(|(space, addr)| {
            // One that is kept while its card is down is searched for again, unless it is such a one.
            let nodad = if family::is_ipv6() { "nodad" } else { "" };
            space.ip(&format!(
                "link set lo up\naddr add {addr}/24 dev eth0 {nodad}\nlink set eth0 up\n"
            ))?;
            Ok(Some(Node::new(space, addr)))
        });
        Ok(Lab {
            switch,
            nodes: nodes.collect::<Result<_>>()?,
        })
    }

    /// One node. Asking for one that was deleted is a fault of the scenario.
    pub fn node(&self, index: usize) -> &Node {
        match self.nodes.get(index).and_then(Option::as_ref) {
            Some(node) => node,
            None => panic!("there is no node {index}"),
        }
    }

    /// All nodes that are left.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// Gives each of the first `count` nodes its interface, and lets each know all the others.
    pub fn connect(&self, count: usize) -> Result<()> {
        for index in 0..count {
            self.node(index).ni_add()?;
        }
        for index in 0..count {
            for other in (0..count).filter(|other| *other != index) {
                self.node(index).peer_add(self.node(other))?;
            }
        }
        Ok(())
    }

    /// Delays, loses, or reorders what goes to one node: arguments of netem.
    pub fn netem(&self, index: usize, arguments: &str) -> Result<()> {
        let device = format!("n{index}");
        let mut words = vec!["qdisc", "replace", "dev", &device, "root", "netem"];
        words.extend(arguments.split_whitespace());
        self.switch.tool("tc", &words, "").map(drop)
    }

    /// Pulls or plugs the cable of one node, without its seeing that.
    pub fn cable(&self, index: usize, plugged: bool) -> Result<()> {
        let master = if plugged { "master br0" } else { "nomaster" };
        self.switch
            .ip(&format!("link set n{index} {master}\n"))
            .map(drop)
    }

    /// Takes the carrier away from a node's network card, or gives it back: the node sees that.
    pub fn carrier(&self, index: usize, there: bool) -> Result<()> {
        let state = if there { "up" } else { "down" };
        self.switch
            .ip(&format!("link set n{index} {state}\n"))
            .map(drop)
    }

    /// Gives the first `count` nodes a second card, eth1, with a switch of its own; the third number
    /// of its address is `subnet`.
    pub fn second_cards(&self, count: usize, subnet: u8) -> Result<()> {
        self.switch
            .ip("link add br1 type bridge\nlink set br1 up\n")?;
        for index in 0..count {
            let node = self.node(index);
            let path = node.space.path();
            self.switch.ip(&format!(
                "link add m{index} type veth peer name eth1 netns {path}\n\
                 link set m{index} master br1 up\n"
            ))?;
            let [a, b, _, d] = node.addr.octets();
            node.space.ip(&format!(
                "addr add {a}.{b}.{subnet}.{d}/24 dev eth1\nlink set eth1 up\n"
            ))?;
        }
        Ok(())
    }

    /// Gives up the last hold on one node's namespace, and waits until the kernel has taken it
    /// apart: then its network card is gone, and so is the card's other end.
    pub fn delete(&mut self, index: usize) -> Result<()> {
        let gone = self.nodes.get_mut(index).context("no such node")?.take();
        ensure!(gone.is_some(), "node {index} was deleted before");
        drop(gone);
        self.await_deleted(&format!("n{index}"))
    }

    /// Deletes all that is left, in order, and sees that it goes.
    pub fn close(mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            if self.nodes.get(index).is_some_and(Option::is_some) {
                self.delete(index)?;
            }
        }
        Ok(())
    }

    fn await_deleted(&self, device: &str) -> Result<()> {
        wait::until(
            CLEANUP_LIMIT,
            &format!("namespace of {device} deleted"),
            || {
                if self.switch.devices()?.iter().any(|name| name == device) {
                    bail!("its network card is still there");
                }
                Ok(())
            },
        )
    }
}

fn address(index: usize) -> Result<Ipv4Addr> {
    Ok(Ipv4Addr::new(10, 0, 0, u8::try_from(index + 1)?))
}
