// SPDX-License-Identifier: GPL-2.0

//! Several nodes in one machine: network namespaces with a network card each, joined by a bridge
//! that stands in a namespace of its own.
//!
//! Making and deleting namespaces takes longer than most scenarios. So they stay, with their cables,
//! for the next scenario, unless something was changed in them; those are deleted with the
//! scenario that changed them. Scenarios run one at a time.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::command::{Job, run};
use crate::family::{self, Family};
use crate::node::Node;
use crate::wait;

const TOOL_LIMIT: Duration = Duration::from_secs(20);
/// How long the kernel may take to take a namespace apart.
const CLEANUP_LIMIT: Duration = Duration::from_secs(30);

/// Where the kernel says who holds references to a namespace.
const REFERENCES: &str = "/sys/kernel/debug/ref_tracker";

/// A network namespace. The kernel keeps it while this, a process or a real reference is in it.
#[derive(Clone)]
pub struct Namespace {
    handle: Arc<File>,
    /// Whether it is no longer as it was made.
    altered: Arc<AtomicBool>,
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
            // What one scenario's connections learned of the way is not for those of the next.
            fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let handle = handle
            .join()
            .map_err(|_| anyhow!("the thread panicked"))??;
        Ok(Namespace {
            handle: Arc::new(handle),
            altered: Arc::default(),
        })
    }

    /// Says that it is no longer as it was made. What programs other than socklctl do here counts as
    /// that without being said.
    pub fn alter(&self) {
        self.altered.store(true, Ordering::Relaxed);
    }

    fn is_altered(&self) -> bool {
        self.altered.load(Ordering::Relaxed)
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
        if command.get_program() != "socklctl" {
            self.alter();
        }
        self.within(|| Job::start(command, input))
    }

    /// Runs a tool that must succeed.
    pub fn tool(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = self.start(&mut command, input)?.wait(TOOL_LIMIT)?;
        Ok(output.checked(&crate::command::describe(&command))?.stdout)
    }

    /// Runs `ip` on several lines of arguments at once.
    pub fn ip(&self, lines: &str) -> Result<String> {
        self.tool("ip", &["-batch", "-"], lines)
    }

    /// The same for what belongs to how the namespace is made, or leaves it as it was.
    fn set_up(&self, lines: &str) -> Result<()> {
        let was_altered = self.is_altered();
        self.ip(lines)?;
        self.altered.store(was_altered, Ordering::Relaxed);
        Ok(())
    }

    /// Its number, by which the kernel and the module name it.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.handle.metadata()?.ino())
    }

    /// How many real references to it the kernel knows of; nothing if this kernel does not count them.
    fn references(&self) -> Result<Option<usize>> {
        let Ok(listing) = fs::read_dir(REFERENCES) else {
            return Ok(None);
        };
        let ending = format!("-{}-refcnt", self.inode()?);
        for entry in listing {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(&ending) {
                return Ok(Some(users(&fs::read_to_string(path)?)));
            }
        }
        Ok(None)
    }

    /// Ends the connections that only wait for late packets. Says whether none is left.
    fn forget_connections(&self) -> Result<bool> {
        let waiting = || {
            let text = self.within(|| Ok(fs::read_to_string("/proc/thread-self/net/sockstat")?))?;
            let mut words = text.split_whitespace().skip_while(|word| *word != "tw");
            Ok::<_, anyhow::Error>(words.nth(1) != Some("0"))
        };
        if waiting()? {
            let mut kill = Command::new("ss");
            kill.args(["--kill", "--tcp", "state", "time-wait"]);
            // Where the kernel can't do that, some are left.
            self.within(|| run(&mut kill, "", TOOL_LIMIT))?;
        }
        Ok(!waiting()?)
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

/// How many references a report of the kernel's tracker tells of.
fn users(report: &str) -> usize {
    // Each line of a place has how many are from there, and how many there are in all.
    let total = report.lines().find_map(|line| {
        let (_, counts) = line.split_once(" has ")?;
        let (counts, _) = counts.split_once(" users")?;
        counts.split_once('/')?.1.parse().ok()
    });
    total.unwrap_or(0)
}

/// Namespaces that are ready for scenarios over one family: the one with the bridge, and those of nodes,
/// each at the place of the node that it is joined as, with the references that there were to it.
struct Pool {
    switch: Namespace,
    spaces: Vec<Option<(Namespace, Option<usize>)>>,
}

static POOLS: Mutex<Vec<(Family, Pool)>> = Mutex::new(Vec::new());

impl Pool {
    fn new() -> Result<Pool> {
        let switch = Namespace::new()?;
        switch.set_up("link set lo up\nlink add br0 type bridge\nlink set br0 up\n")?;
        Ok(Pool {
            switch,
            spaces: Vec::new(),
        })
    }

    /// Takes out what is ready for scenarios over this family, if anything is.
    fn take(family: Family) -> Option<Pool> {
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        let at = pools.iter().position(|(of, _)| *of == family)?;
        Some(pools.swap_remove(at).1)
    }

    fn put_back(self, family: Family) {
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.push((family, self));
    }

    /// Makes what is missing for this many nodes.
    fn fill(&mut self, count: usize) -> Result<()> {
        let missing: Vec<usize> = (0..count)
            .filter(|index| !matches!(self.spaces.get(*index), Some(Some(_))))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut links = String::new();
        let mut made = Vec::new();
        for index in missing {
            let space = Namespace::new()?;
            // The others' tables of neighbours outlive a node that is made anew.
            links += &format!(
                "link add n{index} type veth peer name eth0 address 02:00:0a:00:00:{:02x} netns {}\n\
                 link set n{index} master br0 up\n",
                index + 1,
                space.path()
            );
            made.push((index, space));
        }
        self.switch.set_up(&links)?;
        self.spaces
            .resize_with(self.spaces.len().max(count), || None);
        for (index, space) in made {
            let addr = address(index)?;
            // One that is kept while its card is down is searched for again, unless it is such a one.
            let add = family::addr_add(addr, 24);
            space.set_up(&format!("link set lo up\n{add}link set eth0 up\n"))?;
            let references = space.references()?;
            if let Some(place) = self.spaces.get_mut(index) {
                *place = Some((space, references));
            }
        }
        Ok(())
    }

    /// Waits until the kernel has taken the namespaces of these nodes apart, which nobody holds: then
    /// their network cards are gone, and so are the other ends.
    fn await_deleted(&self, indices: &[usize]) -> Result<()> {
        if indices.is_empty() {
            return Ok(());
        }
        let ends: Vec<_> = indices.iter().map(|index| format!("n{index}")).collect();
        wait::until(CLEANUP_LIMIT, "namespaces deleted", || {
            let there = self.switch.devices()?;
            let left: Vec<_> = ends.iter().filter(|end| there.contains(end)).collect();
            ensure!(left.is_empty(), "cables are still there: {left:?}");
            Ok(())
        })
    }

    /// Whether nobody holds more references to the namespaces than before they were used.
    fn at_rest(&self) -> Result<()> {
        for (space, references) in self.spaces.iter().flatten() {
            let now = space.references()?;
            ensure!(
                now <= *references,
                "a namespace has {now:?} references, and had {references:?}"
            );
        }
        Ok(())
    }
}

/// Nobody may hold a reference to a namespace of the last scenario when the module is gone.
pub fn no_references() -> Result<()> {
    let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    wait::until(CLEANUP_LIMIT, "namespaces released", || {
        pools.iter().try_for_each(|(_, pool)| pool.at_rest())
    })
}

/// Deletes all namespaces that scenarios have left for others, and sees that they go.
pub fn delete_pools() -> Result<()> {
    let pools = std::mem::take(&mut *POOLS.lock().unwrap_or_else(PoisonError::into_inner));
    for (_, mut pool) in pools {
        let indices: Vec<usize> = (0..pool.spaces.len()).collect();
        pool.spaces.clear();
        pool.await_deleted(&indices)?;
    }
    Ok(())
}

/// The nodes of one scenario, 10.0.0.1 and up, and the bridge between them. Over IPv6 these are names
/// for other addresses, see [`crate::family`].
pub struct Lab {
    pool: Pool,
    nodes: Vec<Option<Node>>,
    has_second_switch: bool,
}

impl Lab {
    /// Takes the namespaces and cables, or makes them; no node has an NI of the module yet.
    pub fn new(count: usize) -> Result<Lab> {
        let mut pool = Pool::take(family::current()).map_or_else(Pool::new, Ok)?;
        pool.fill(count)?;
        let nodes = pool.spaces.iter().take(count).enumerate();
        let nodes = nodes.map(|(index, space)| {
            let (space, _) = space.as_ref().context("no namespace was made")?;
            Ok(Some(Node::new(space.clone(), address(index)?)))
        });
        Ok(Lab {
            nodes: nodes.collect::<Result<_>>()?,
            pool,
            has_second_switch: false,
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

    /// Gives each of the first `count` nodes its NI, and lets each know all the others.
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
        self.node(index).space.alter();
        self.pool.switch.tool("tc", &words, "").map(drop)
    }

    /// Pulls or plugs the cable of one node, without its seeing that.
    pub fn cable(&self, index: usize, plugged: bool) -> Result<()> {
        let master = if plugged { "master br0" } else { "nomaster" };
        self.change_end(index, master)
    }

    /// Takes the carrier away from a node's network card, or gives it back: the node sees that.
    pub fn carrier(&self, index: usize, there: bool) -> Result<()> {
        self.change_end(index, if there { "up" } else { "down" })
    }

    /// Changes the bridge's end of a node's cable. It goes with the node's namespace.
    fn change_end(&self, index: usize, how: &str) -> Result<()> {
        self.node(index).space.alter();
        self.pool
            .switch
            .set_up(&format!("link set n{index} {how}\n"))
    }

    /// Gives the first `count` nodes a second card, eth1, with a switch of its own; the third number
    /// of its address is `subnet`.
    pub fn second_cards(&mut self, count: usize, subnet: u8) -> Result<()> {
        self.has_second_switch = true;
        self.pool
            .switch
            .set_up("link add br1 type bridge\nlink set br1 up\n")?;
        for index in 0..count {
            let node = self.node(index);
            let path = node.space.path();
            self.pool.switch.set_up(&format!(
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
    /// apart.
    pub fn delete(&mut self, index: usize) -> Result<()> {
        let gone = self.nodes.get_mut(index).context("no such node")?.take();
        ensure!(gone.is_some(), "node {index} was deleted before");
        self.pool.spaces[index] = None;
        drop(gone);
        self.pool.await_deleted(&[index])
    }

    /// Leaves what is as it was made to the next scenario. Deletes all else, and sees that it goes.
    pub fn close(mut self) -> Result<()> {
        let mut gone = Vec::new();
        for (index, node) in self.nodes.into_iter().enumerate() {
            let Some(node) = node else { continue };
            if node.space.is_altered() || !node.space.forget_connections()? {
                self.pool.spaces[index] = None;
                gone.push(index);
            }
        }
        self.pool.await_deleted(&gone)?;
        if self.has_second_switch {
            self.pool.switch.set_up("link del br1\n")?;
        }
        self.pool.put_back(family::current());
        Ok(())
    }
}

fn address(index: usize) -> Result<Ipv4Addr> {
    Ok(Ipv4Addr::new(10, 0, 0, u8::try_from(index + 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_counted() {
        assert_eq!(users(""), 0);
        let report = "net_refcnt@00000000 has 2/3 users at\n     sk_alloc+0x1/0x2\n\n\
                      net_refcnt@00000000 has 1/3 users at\n     inet_create+0x1/0x2\n";
        assert_eq!(users(report), 3);
    }
}
