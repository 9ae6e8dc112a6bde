// SPDX-License-Identifier: GPL-2.0

//! Requests of administrators: wrong ones, and requests without the capability for them; and an idle module.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use serde_json::Value;

use super::connect::one_of_each;
use crate::command::run;
use crate::family;
use crate::ioctl::{self, BUFFER};
use crate::lab::Lab;
use crate::node::{Node, errno};
use crate::pace;
use crate::peer::Listener;
use crate::port::note;
use crate::wait;

const LIMIT: Duration = Duration::from_secs(20);

/// Wrong requests about NIs and interfaces are refused, each with its own error, and change
/// nothing.
pub fn interface_errors(lab: &mut Lab) -> Result<()> {
    let node = lab.node(0);
    let fails = |words: &[&str], name: &str| -> Result<()> {
        let got = errno(&node.attempt(words, LIMIT)?).with_context(|| words.join(" "))?;
        ensure!(got == name, "{}: {got} instead of {name}", words.join(" "));
        Ok(())
    };
    fails(&["ni", "del", "10.0.0.1@tcp"], "ENOENT")?;
    fails(&["ni", "add", "10.0.0.77@tcp"], "EADDRNOTAVAIL")?;
    // Addresses that are no host's: of broadcast, of the subnet, of multicast, of loopback; also where
    // the kernel lets programs bind to anything.
    for anything in ["0", "1"] {
        node.space.within(|| {
            for family in ["ipv4", "ipv6"] {
                fs::write(format!("/proc/sys/net/{family}/ip_nonlocal_bind"), anything)?;
            }
            Ok(())
        })?;
        for host in ["10.0.0.255", "10.0.0.0", "10.0.0.77"] {
            fails(&["ni", "add", &format!("{host}@tcp2")], "EADDRNOTAVAIL")?;
        }
        let mut hosts = vec!["::1", "ff02::1"];
        if !family::is_ipv6() {
            hosts.extend(["255.255.255.255", "224.0.0.1", "127.0.0.1"]);
        }
        for host in hosts {
            fails(&["ni", "add", &format!("{host}@tcp2")], "EINVAL")?;
        }
    }
    fails(&["peer", "add", "10.0.0.2@tcp"], "ENOENT")?;
    fails(&["ping", "10.0.0.2@tcp"], "ENOENT")?;

    let squatter = Listener::new(&node.space, node.addr)?;
    fails(&["ni", "add", "10.0.0.1@tcp"], "EADDRINUSE")?;
    ensure!(
        node.list(&["ni", "list"])?.is_empty(),
        "an NI that failed is listed"
    );
    drop(squatter);

    node.ni_add()?;
    fails(&["ni", "add", "10.0.0.1@tcp"], "EEXIST")?;
    fails(&["ni", "del", "10.0.0.1@tcp1"], "ENOENT")?;
    fails(&["peer", "add", "10.0.0.2@tcp5"], "ENETUNREACH")?;
    fails(&["ping", "10.0.0.2@tcp5"], "ENETUNREACH")?;
    fails(&["interface", "add", "10.0.0.255"], "EADDRNOTAVAIL")?;
    fails(&["peer", "add", "::1@tcp"], "EINVAL")?;
    fails(&["peer", "del", "10.0.0.2@tcp"], "ENOENT")?;
    fails(&["conn", "close", "10.0.0.2@tcp"], "ENOENT")?;
    node.socklctl(&["peer", "del", "any"])?;
    node.socklctl(&["conn", "close", "any"])?;
    let listed = node.list(&["ni", "list"])?;
    ensure!(
        listed.len() == 1 && listed[0]["nid"] == "10.0.0.1@tcp",
        "wrong list: {}",
        Value::from(listed)
    );

    // What was added twice has to be taken back twice.
    for _ in 0..2 {
        node.socklctl(&["peer", "add", "10.0.0.2@tcp"])?;
    }
    for left in [1, 0] {
        node.socklctl(&["peer", "del", "10.0.0.2@tcp", "--single"])?;
        let peers = node.list(&["peer", "list"])?.len();
        ensure!(peers == left, "{peers} peers instead of {left}");
    }
    Ok(())
}

/// What the NI and the peers of a node are, without what changes by itself.
fn state(node: &Node) -> Result<Vec<Value>> {
    let mut entries = node.list(&["ni", "list"])?;
    for mut peer in node.list(&["peer", "list"])? {
        if let Some(fields) = peer.as_object_mut() {
            fields.remove("idle_ms");
        }
        entries.push(peer);
    }
    for conn in node.list(&["conn", "list"])? {
        entries.push(serde_json::json!([
            conn["nid"],
            conn["type"],
            conn["local"],
            conn["peer"]
        ]));
    }
    Ok(entries)
}

/// Malformed ioctls, which socklctl never makes, are refused.
pub fn ioctl_abuse(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let node = lab.node(0);
    node.ping(lab.node(1))?;
    wait::until(LIMIT, "one connection of each type", || {
        one_of_each(node, lab.node(1))
    })?;
    // So that there is something in each list.
    node.socklctl(&["route", "add", "tcp1", &lab.node(1).nid()])?;
    let before = state(node)?;

    node.space.within(unknown_numbers)?;
    node.space.within(bad_addresses)?;
    node.space.within(wrong_padding)?;
    let after = state(node)?;
    ensure!(
        before == after,
        "something changed: {} became {}",
        Value::from(before),
        Value::from(after)
    );

    // Random contents may mean something now and then. All that counts is that nothing breaks.
    let accepted = node.space.within(random_contents)?;
    note(&format!("random requests: {accepted:?}"));
    for node in [lab.node(0), lab.node(1)] {
        node.attempt(&["ni", "del", &node.nid()], LIMIT)?;
        for ni in node.list(&["ni", "list"])? {
            node.socklctl(&["ni", "del", ni["nid"].as_str().unwrap_or_default()])?;
        }
        node.ni_add()?;
        node.socklctl(&["peer", "del", "any"])?;
    }
    lab.node(0).peer_add(lab.node(1))?;
    lab.node(0).ping(lab.node(1)).map(drop)
}

fn known_numbers() -> impl Iterator<Item = u32> {
    [ioctl::VERSION, ioctl::MYNID, ioctl::ROUTING_GET]
        .into_iter()
        .chain(ioctl::LISTS)
        .chain(ioctl::CHANGES)
}

/// Numbers that are not the module's, among them its own with other sizes and directions.
fn unknown_numbers() -> Result<()> {
    let device = ioctl::open()?;
    let mut buffer = ioctl::buffer(&[]);
    for index in 0..=0xff {
        for direction in 0..4 {
            for size in [0, 1, 8, 31, 33, 57, 1024, BUFFER as u32 - 1] {
                let number = ioctl::number(direction, 0xbb, index, size);
                let result = ioctl::with_buffer(&device, number, &mut buffer);
                ensure!(
                    result == Err(Errno::NOTTY),
                    "number {number:#x}: {result:?} instead of ENOTTY"
                );
            }
        }
    }
    // Of another driver, and of the terminal.
    for number in [
        0x5401,
        0x5413,
        ioctl::number(3, 0xba, 1, 32),
        ioctl::number(3, 0, 0x10, 32),
    ] {
        let result = ioctl::with_buffer(&device, number, &mut buffer);
        ensure!(
            result == Err(Errno::NOTTY),
            "number {number:#x}: {result:?} instead of ENOTTY"
        );
    }
    Ok(())
}

/// Structures at places where there is no memory of the program.
fn bad_addresses() -> Result<()> {
    let device = ioctl::open()?;
    for number in known_numbers() {
        for address in [
            0,
            1,
            0xfff,
            0xffff_8880_0000_0000,
            0xffff_ffff_8100_0000,
            usize::MAX - 7,
            usize::MAX,
            1 << 47,
        ] {
            let result = ioctl::with_address(&device, number, address);
            ensure!(
                result == Err(Errno::FAULT),
                "number {number:#x} at {address:#x}: {result:?} instead of EFAULT"
            );
        }
    }
    // A list that is to be written to such a place.
    for number in ioctl::LISTS {
        for address in [0_u64, 8, 0xffff_8880_0000_0000, u64::MAX - 7, 1 << 47] {
            let mut request = list(address, 256, 8);
            let result = ioctl::with_buffer(&device, number, &mut request);
            let refused = matches!(result, Err(Errno::FAULT));
            ensure!(
                refused,
                "list {number:#x} to {address:#x}: {result:?} instead of EFAULT"
            );
        }
        for (size, capacity) in [
            (0, 1),
            (1, 1),
            (8, 1),
            (257, 4),
            (4104, 4),
            (u32::MAX, u32::MAX),
            (u32::MAX - 7, 1),
        ] {
            let mut place = [0_u8; 64];
            let mut request = list(place.as_mut_ptr() as u64, size, capacity);
            let result = ioctl::with_buffer(&device, number, &mut request);
            ensure!(
                result == Err(Errno::INVAL),
                "list {number:#x} of entries of {size}: {result:?} instead of EINVAL"
            );
            ensure!(place == [0; 64], "something was written");
        }
    }
    Ok(())
}

fn list(entries: u64, entry_size: u32, capacity: u32) -> Box<[u8; BUFFER]> {
    ioctl::buffer(&[
        (24, &entries.to_ne_bytes()),
        (32, &entry_size.to_ne_bytes()),
        (36, &capacity.to_ne_bytes()),
    ])
}

/// Structures full of ones: every member that must be zero is not.
fn wrong_padding() -> Result<()> {
    let device = ioctl::open()?;
    for number in known_numbers().filter(|number| *number != ioctl::VERSION) {
        let mut buffer = Box::new([0xff; BUFFER]);
        let result = ioctl::with_buffer(&device, number, &mut buffer);
        ensure!(
            result == Err(Errno::INVAL),
            "number {number:#x}: {result:?} instead of EINVAL"
        );
        ensure!(
            buffer.iter().all(|byte| *byte == 0xff),
            "number {number:#x}: a failed request wrote something"
        );
    }
    let mut buffer = ioctl::buffer(&[]);
    ioctl::with_buffer(&device, ioctl::VERSION, &mut buffer).context("VERSION")?;
    Ok(())
}

/// Structures with random bytes, few of them, so that many get past the first checks. Returns how
/// often each error came.
fn random_contents() -> Result<BTreeMap<String, usize>> {
    let device = ioctl::open()?;
    let mut random = Random(0x0123_4567_89ab_cdef);
    let mut target = vec![0_u8; 1 << 16];
    let mut outcomes = BTreeMap::new();
    for round in 0..6000_u32 {
        let numbers: Vec<u32> = known_numbers().collect();
        let number = numbers[random.below(numbers.len())];
        let mut buffer = ioctl::buffer(&[]);
        let nid = ioctl::nid(Ipv4Addr::new(10, 0, 0, random.below(4) as u8));
        if random.below(2) == 0 {
            buffer[..24].copy_from_slice(&nid);
        }
        if random.below(2) == 0 {
            buffer[24..48].copy_from_slice(&nid);
        }
        for _ in 0..random.below(6) {
            let at = random.below(160);
            buffer[at] = random.next() as u8;
        }
        if ioctl::LISTS.contains(&number) {
            // Only to memory that may be overwritten, and not more than fits: there are few entries.
            buffer[24..32].copy_from_slice(&(target.as_mut_ptr() as u64).to_ne_bytes());
            let size = [0, 64, 128, 192, 256, 512, 4096][random.below(7)];
            buffer[32..36].copy_from_slice(&u32::to_ne_bytes(size));
            buffer[36..40].copy_from_slice(&u32::to_ne_bytes(random.below(16) as u32));
        }
        if number == ioctl::PING {
            buffer[48..52].copy_from_slice(&u32::to_ne_bytes(random.below(20) as u32));
        }
        if number == ioctl::BENCH {
            buffer[64..72].copy_from_slice(&u64::to_ne_bytes(random.below(20) as u64));
            buffer[72..76].copy_from_slice(&u32::to_ne_bytes(random.below(20) as u32));
        }
        let outcome = match ioctl::with_buffer(&device, number, &mut buffer) {
            Ok(()) => "accepted".to_owned(),
            Err(code) if code.raw_os_error() < 134 => code.to_string(),
            Err(code) => {
                bail!("round {round}: number {number:#x}: {code:?} is for the kernel's own use")
            }
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    Ok(outcomes)
}

/// A small generator of numbers that look random, the same in every run.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    /// One that is less than `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Without CAP_NET_ADMIN in the namespace a program can list, but not change anything.
pub fn no_capability(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let node = lab.node(0);
    let before = state(node)?;
    node.space.within(|| {
        let device = ioctl::open()?;
        drop_net_admin()?;
        for number in ioctl::CHANGES {
            for mut buffer in [
                ioctl::buffer(&[]),
                ioctl::buffer(&[(0, &ioctl::nid(node.addr))]),
            ] {
                let result = ioctl::with_buffer(&device, number, &mut buffer);
                ensure!(
                    result == Err(Errno::PERM),
                    "number {number:#x}: {result:?} instead of EPERM"
                );
            }
        }
        for number in ioctl::LISTS {
            let mut request = list(0, 256, 0);
            ioctl::with_buffer(&device, number, &mut request)
                .with_context(|| format!("list {number:#x}"))?;
        }
        Ok(())
    })?;
    let after = state(node)?;
    ensure!(
        before == after,
        "something changed: {} became {}",
        Value::from(before),
        Value::from(after)
    );

    // The capability of another user namespace counts only in network namespaces that it owns.
    let unshared = |flags: &str| -> Result<String> {
        let mut command = Command::new("unshare");
        command.args([flags, "socklctl", "--json", "ni", "add", "10.9.9.9@tcp"]);
        errno(&node.space.within(|| run(&mut command, "", LIMIT))?)
    };
    let other = unshared("-U")?;
    ensure!(
        other == "EPERM" || other == "EACCES",
        "another user namespace: {other} instead of EPERM"
    );
    let own = unshared("-rUn")?;
    ensure!(
        own == "EADDRNOTAVAIL",
        "a namespace of its own: {own} instead of EADDRNOTAVAIL"
    );
    Ok(())
}

/// Takes the capability from this thread, which ends soon.
fn drop_net_admin() -> Result<()> {
    let mut sets = capabilities(None)?;
    for set in [
        &mut sets.effective,
        &mut sets.permitted,
        &mut sets.inheritable,
    ] {
        set.remove(CapabilitySet::NET_ADMIN);
    }
    Ok(set_capabilities(None, sets)?)
}

/// A module with idle connections uses no processor time.
pub fn idle(lab: &mut Lab) -> Result<()> {
    const QUIET: Duration = Duration::from_secs(6);
    lab.connect(2)?;
    lab.node(0).ping(lab.node(1))?;
    // What follows a ping (acknowledgements, the other types of connections) comes to rest first.
    wait::until(LIMIT, "schedulers at rest", || {
        let before = scheduler_switches()?;
        wait::quiet_time(Duration::from_millis(500));
        ensure!(before == scheduler_switches()?, "still busy");
        Ok(())
    })?;
    let before = threads()?;
    ensure!(
        before.values().any(Thread::is_scheduler),
        "no schedulers among {:?}",
        before
            .values()
            .map(|thread| &thread.name)
            .collect::<Vec<_>>()
    );
    let started = Instant::now();
    wait::quiet_time(QUIET);
    let after = threads()?;
    let time = started.elapsed();
    for (id, old) in &before {
        let new = after
            .get(id)
            .with_context(|| format!("{} is gone", old.name))?;
        let (ticks, switches) = (new.ticks - old.ticks, new.switches - old.switches);
        note(&format!(
            "{}: {ticks} ticks, ran {switches} times",
            old.name
        ));
        // The reaper looks around once a second or so; when the clock ticks just then, it is charged
        // for a whole tick. Nobody else has a reason to wake.
        let (allowed_ticks, allowed) = match old.name.contains("reaper") {
            true => (pace::scaled(2), 2 * time.as_secs() + 2),
            false => (0, 0),
        };
        ensure!(
            ticks <= allowed_ticks,
            "{} used {ticks} ticks of processor time while idle",
            old.name
        );
        ensure!(
            switches <= allowed,
            "{} woke {switches} times while idle",
            old.name
        );
    }
    Ok(())
}

pub struct Thread {
    pub name: String,
    ticks: u64,
    switches: u64,
}

impl Thread {
    fn is_scheduler(&self) -> bool {
        self.name.starts_with("socklnd_sd")
    }
}

/// How often each of the schedulers has run.
fn scheduler_switches() -> Result<Vec<u64>> {
    let threads = threads()?;
    let schedulers = threads.values().filter(|thread| thread.is_scheduler());
    Ok(schedulers.map(|thread| thread.switches).collect())
}

/// The module's threads by their number.
pub fn threads() -> Result<BTreeMap<u32, Thread>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(id) = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok())
        else {
            continue;
        };
        // A process may end while this looks.
        let Ok(name) = fs::read_to_string(path.join("comm")) else {
            continue;
        };
        if !name.starts_with("socklnd_") {
            continue;
        }
        let stat = fs::read_to_string(path.join("stat"))?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let field = |index: usize| {
            fields
                .get(index)
                .and_then(|field| field.parse::<u64>().ok())
                .context("stat")
        };
        let status = fs::read_to_string(path.join("status"))?;
        let switches = status.lines().filter(|line| line.contains("ctxt_switches"));
        let switches = switches
            .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
            .sum();
        found.insert(
            id,
            Thread {
                name: name.trim().to_owned(),
                ticks: field(11)? + field(12)?,
                switches,
            },
        );
    }
    Ok(found)
}
