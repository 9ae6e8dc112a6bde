// SPDX-License-Identifier: GPL-2.0

//! What is special about IPv6. Other scenarios are run over IPv6 too.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde_json::{Value, json};

use crate::debugfs::sections;
use crate::lab::Lab;
use crate::node::{Bench, Node, Op, check_bench, errno};
use crate::pace;
use crate::peer::PORT;
use crate::wait;

const LIMIT: Duration = Duration::from_secs(30);
/// How long a transfer may take.
const TRANSFER_LIMIT: Duration = Duration::from_secs(120);

/// An address of its own that a node has here, besides those that all scenarios give it.
fn address(node: &Node) -> String {
    format!("fd01::{}", node.addr.octets()[3])
}

fn nid(node: &Node) -> String {
    format!("{}@tcp", address(node))
}

/// Gives a node its address, and an NI with the NID for it.
fn start(node: &Node) -> Result<()> {
    let line = format!("addr add {}/64 dev eth0 nodad\n", address(node));
    node.space.ip(&line)?;
    node.socklctl(&["ni", "add", &nid(node)]).map(drop)
}

/// Pings a NID; the answer must name it.
fn ping(from: &Node, to: &str) -> Result<()> {
    let answer = from.socklctl(&["ping", to])?;
    let nis = answer["node"]["nis"].as_array().context("no NIDs")?;
    ensure!(
        nis.iter().any(|ni| ni["nid"] == to),
        "not the node's NID: {answer}"
    );
    Ok(())
}

fn set(parameter: &str, value: &str) -> Result<()> {
    let path = format!("/sys/module/ksocklnd/parameters/{parameter}");
    fs::write(&path, value).with_context(|| path)
}

/// A request fails, for this reason.
fn fails(node: &Node, words: &[&str], name: &str) -> Result<()> {
    let got = errno(&node.attempt(words, LIMIT)?).with_context(|| words.join(" "))?;
    ensure!(got == name, "{}: {got} instead of {name}", words.join(" "));
    Ok(())
}

/// Moves data to a NID or from there.
fn transfer(from: &Node, to: &str, op: Op, size: usize, count: usize) -> Result<()> {
    let bench = Bench {
        op,
        size,
        count,
        in_flight: 1,
        limit: TRANSFER_LIMIT,
    };
    let (words, size, count) = (op.to_string(), size.to_string(), count.to_string());
    let words = [
        "bench", "--op", &words, "--size", &size, "--count", &count, to,
    ];
    check_bench(from.attempt(&words, TRANSFER_LIMIT)?, &bench).map(drop)
}

/// How many connections a node has from one address of its own to another node's.
fn conns_between(node: &Node, local: &str, peer: &str) -> Result<usize> {
    let conns = node.list(&["conn", "list"])?;
    let at = |conn: &Value, end: &str, addr: &str| {
        let text = conn[end].as_str().unwrap_or_default();
        text.starts_with(&format!("[{addr}]:"))
    };
    let between = |conn: &&Value| at(conn, "local", local) && at(conn, "peer", peer);
    Ok(conns.iter().filter(between).count())
}

/// Two nodes with IPv6 only connect by their NIDs, and move data in both directions.
pub fn basic(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    start(one)?;
    start(two)?;
    ping(one, &nid(two))?;
    ping(two, &nid(one))?;
    let _services = [one.serve()?, two.serve()?];
    for (from, to) in [(one, two), (two, one)] {
        for op in [Op::Put, Op::Get] {
            // Large enough to be sent without a copy.
            for (size, count) in [(100, 20), (20_000, 20), (1 << 20, 4)] {
                transfer(from, &nid(to), op, size, count)?;
            }
        }
    }
    let list = one.list(&["conn", "list"])?;
    ensure!(
        list.len() == 3 && conns_between(one, &address(one), &address(two))? == 3,
        "not one of each type: {list:?}"
    );
    for conn in &list {
        ensure!(conn["protocol"] == 4, "another version: {conn}");
        ensure!(
            conn["type"] != "bulk_out" || conn["zero_copy"]["bytes"].as_u64() > Some(1 << 20),
            "nothing was sent without a copy: {conn}"
        );
    }
    // What else tells of them.
    let stats = one.list(&["stats", "--peers"])?;
    ensure!(
        stats.iter().any(|peer| peer["nid"] == nid(two).as_str()),
        "the peer is not in {stats:?}"
    );
    for heading in [format!("ni {} ", nid(one)), format!("peer {}", nid(two))] {
        ensure!(!sections(&heading)?.is_empty(), "no '{heading}' in debugfs");
    }
    Ok(())
}

/// Valid and invalid addresses, several of them, and their removal.
pub fn addresses(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    // By the link's speed: a virtual card says that it is one of 10 Gbit/s.
    set("conns_per_peer", "0")?;
    start(one)?;
    let nis = one.list(&["ni", "list"])?;
    ensure!(
        nis.iter().all(|ni| ni["conns_per_peer"] == 2),
        "not by the card's speed: {nis:?}"
    );
    set("conns_per_peer", "1")?;
    one.socklctl(&["ni", "del", &nid(one)])?;
    one.socklctl(&["ni", "add", &nid(one)])?;
    start(two)?;

    // Link-local addresses mean nothing without a device, whoever is meant.
    for words in [
        &["ni", "add", "fe80::1@tcp1"][..],
        &["interface", "add", "fe80::1"],
        &["peer", "add", &nid(two), "fe80::2"],
        &["peer", "add", "fe80::2@tcp"],
        &["ping", "fe80::2@tcp"],
        &["route", "add", "tcp9", "fe80::2@tcp"],
    ] {
        fails(one, words, "EAFNOSUPPORT")?;
    }
    fails(one, &["ni", "add", "ff02::1@tcp1"], "EINVAL")?;
    fails(one, &["ni", "add", "fd01::77@tcp1"], "EADDRNOTAVAIL")?;
    fails(one, &["interface", "add", "fd01::77"], "EADDRNOTAVAIL")?;
    fails(one, &["interface", "del", "fd01::77"], "ENOENT")?;
    fails(one, &["interface", "del", &address(one)], "EBUSY")?;
    fails(one, &["interface", "add", &address(one)], "EEXIST")?;

    // A second address on both, with prefixes of their own.
    let second = |node: &Node| format!("fd01:0:0:1::{}", node.addr.octets()[3]);
    for node in [one, two] {
        let line = format!("addr add {}/60 dev eth0 nodad\n", second(node));
        node.space.ip(&line)?;
        node.socklctl(&["interface", "add", &second(node)])?;
    }
    let list = one.list(&["interface", "list"])?;
    let shown: Vec<_> = list.iter().map(|entry| &entry["address"]).collect();
    ensure!(
        json!(shown)
            == json!([
                format!("{}/64", address(one)),
                format!("{}/60", second(one))
            ]),
        "wrong addresses: {shown:?}"
    );

    // One that the kernel would rather connect from, as it would from a temporary one.
    one.space
        .ip("addr add fd01::3/64 dev eth0 nodad\naddr add fd01:0:0:1::3/60 dev eth0 nodad\n")?;
    for to in [address(two), second(two)] {
        let way = one.space.tool("ip", &["-6", "route", "get", &to], "")?;
        ensure!(way.contains("::3 "), "the test is pointless: {way}");
    }
    // By two routes: each connects from the address that is near.
    one.socklctl(&["peer", "add", &nid(two), &second(two)])?;
    one.socklctl(&["peer", "add", &nid(two), &address(two)])?;
    two.socklctl(&["peer", "add", &nid(one), &second(one)])?;
    two.socklctl(&["peer", "add", &nid(one), &address(one)])?;
    let both = [(address(one), address(two)), (second(one), second(two))];
    wait::until(LIMIT, "connections from both addresses", || {
        ping(one, &nid(two))?;
        for (local, peer) in &both {
            let count = conns_between(one, local, peer)?;
            ensure!(count == 3, "{count} from {local} to {peer}");
        }
        Ok(())
    })?;
    ensure!(
        one.list(&["conn", "list"])?.len() == 6,
        "some come from elsewhere"
    );

    // What was configured is written and read again.
    const FILE: &str = "/tmp/socklnd-ipv6.yaml";
    let before = one.socklctl(&["export"])?;
    one.socklctl(&["export", FILE])?;
    one.socklctl(&["ni", "del", &nid(one)])?;
    one.socklctl(&["import", FILE])?;
    ensure!(one.socklctl(&["export"])? == before, "not all was imported");
    ping(one, &nid(two))?;

    // The kernel takes the second address away: what uses it goes, and the rest stays.
    one.space
        .ip(&format!("addr del {}/60 dev eth0\n", second(one)))?;
    wait::until(LIMIT, "the second address gone", || {
        let list = one.list(&["interface", "list"])?;
        let left = conns_between(one, &second(one), &second(two))?;
        let states: Vec<_> = list.iter().map(|entry| &entry["state"]).collect();
        ensure!(
            states == ["up", "waiting"] && left == 0,
            "still there: {list:?}, {left}"
        );
        Ok(())
    })?;
    ping(one, &nid(two))?;

    // With the device down all IPv6 addresses are gone, as the kernel has it unless it is told
    // otherwise, which the nodes of scenarios are. That of the NID is awaited.
    one.space.within(|| {
        for which in ["all", "eth0"] {
            let path = format!("/proc/sys/net/ipv6/conf/{which}/keep_addr_on_down");
            fs::write(path, "0")?;
        }
        Ok(())
    })?;
    one.space.ip("link set eth0 down\n")?;
    wait::until(LIMIT, "no connection", || {
        let conns = one.list(&["conn", "list"])?;
        ensure!(conns.is_empty(), "still there: {conns:?}");
        Ok(())
    })?;
    one.space.ip("link set eth0 up\n")?;
    let line = format!("addr add {}/64 dev eth0 nodad\n", address(one));
    one.space.ip(&line)?;
    wait::until(LIMIT, "ping succeeds again", || {
        ping(one, &nid(two)).and_then(|()| ping(two, &nid(one)))
    })
}

/// With `protocol` set to a version that has no form for IPv6 NIDs, these are refused.
pub fn pinned_versions(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node(0), lab.node(1));
    one.space
        .ip(&format!("addr add {}/64 dev eth0 nodad\n", address(one)))?;
    for version in ["1", "2"] {
        set("protocol", version)?;
        fails(one, &["ni", "add", &nid(one)], "EPROTONOSUPPORT")?;
        one.ni_add()?;
        for words in [
            &["peer", "add", &nid(two)][..],
            &["ping", &nid(two)],
            &["route", "add", "tcp9", &nid(two)],
        ] {
            fails(one, words, "EPROTONOSUPPORT")?;
        }
        one.ni_del()?;
    }
    // To begin with another on IPv4 changes nothing.
    for version in ["3", "4"] {
        set("protocol", version)?;
        one.socklctl(&["ni", "add", &nid(one)])?;
        if version == "3" {
            start(two)?;
        }
        ping(one, &nid(two))?;
        let conns = one.list(&["conn", "list"])?;
        ensure!(
            conns.iter().all(|conn| conn["protocol"] == 4),
            "another version: {conns:?}"
        );
        one.socklctl(&["ni", "del", &nid(one)])?;
    }
    Ok(())
}

/// What a script at the second node says to the first one.
struct Stranger {
    stream: TcpStream,
}

const LNET_MAGIC: u32 = 0x4572_6963;
const CONTROL: u32 = 1;

/// A NID in its form of 20 bytes.
fn long(addr: &str) -> Result<Vec<u8>> {
    let addr: Ipv6Addr = addr.parse()?;
    Ok([&[12, 2, 0, 0][..], &addr.octets()].concat())
}

/// An acceptor request for the node and a HELLO of version 4 from `src`.
fn greeting(src: &[u8], dest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xacce_7100_u32, 2] {
        out.extend(word.to_le_bytes());
    }
    out.extend(dest);
    for word in [LNET_MAGIC, 4] {
        out.extend(word.to_le_bytes());
    }
    out.extend(src);
    out.extend(dest);
    // Process numbers, incarnations, type, number of addresses.
    for word in [12345, 0, 77, 0, 0, 0, CONTROL, 0_u32] {
        out.extend(word.to_le_bytes());
    }
    out
}

impl Stranger {
    fn dial(script: &Node, node: &Node, from: &str, port: u16) -> Result<Stranger> {
        Stranger::dial_by(script, node, (from, 0), port)
    }

    /// From an address that may be one of a device's only, which is given by its number.
    fn dial_by(script: &Node, node: &Node, from: (&str, u32), port: u16) -> Result<Stranger> {
        let (from, device) = from;
        let local: Ipv6Addr = from.parse()?;
        let to: Ipv6Addr = address(node).parse()?;
        let stream = script.space.within(|| {
            let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
            let socket = socket_with(AddressFamily::INET6, kind, flags, None)?;
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &SocketAddrV6::new(local, port, 0, device))?;
            connect(&socket, &SocketAddrV6::new(to, PORT, 0, 0))?;
            Ok(TcpStream::from(socket))
        })?;
        stream.set_read_timeout(Some(pace::stretched(LIMIT)))?;
        Ok(Stranger { stream })
    }

    /// Says something, and returns all that is answered until the node closes.
    fn told(mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        // It may have closed before it was told anything.
        let told = self.stream.write_all(bytes);
        match told.and_then(|()| self.stream.read_to_end(&mut answer)) {
            Err(e) if !matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                Err(e.into())
            }
            _ => Ok(answer),
        }
    }

    /// Says something that is to be accepted, and returns the HELLO that is answered.
    fn accepted(&mut self, bytes: &[u8]) -> Result<[u8; 80]> {
        self.stream.write_all(bytes)?;
        let mut answer = [0; 80];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// The link-local address of a node's network card, and the card's number.
fn link_local(node: &Node) -> Result<(String, u32)> {
    wait::until(LIMIT, "a link-local address", || {
        // Each line: address, number of the device, prefix, scope, flags, name; in hexadecimal.
        let table = node
            .space
            .within(|| Ok(fs::read_to_string("/proc/thread-self/net/if_inet6")?))?;
        let line = table.lines().find(|line| line.starts_with("fe80"));
        let line = line.with_context(|| format!("none in {table}"))?;
        let fields: Vec<_> = line.split_whitespace().collect();
        let [addr, device, _, _, flags, _] = fields[..] else {
            bail!("strange: {line}");
        };
        const TENTATIVE: u32 = 0x40;
        let flags = u32::from_str_radix(flags, 16)?;
        ensure!(flags & TENTATIVE == 0, "it is being looked for elsewhere");
        let addr = Ipv6Addr::from_bits(u128::from_str_radix(addr, 16)?);
        Ok((addr.to_string(), u32::from_str_radix(device, 16)?))
    })
}

/// Nodes that send invalid HELLOs and requests, or such that are invalid over IPv6.
pub fn strangers(lab: &mut Lab) -> Result<()> {
    let (node, script) = (lab.node(0), lab.node(1));
    start(node)?;
    let line = format!("addr add {}/64 dev eth0 nodad\n", address(script));
    script.space.ip(&line)?;
    let (me, it) = (address(script), address(node));
    let (src, dest) = (long(&me)?, long(&it)?);
    let mut ports = (600..1000).rev();
    let mut dial = || -> Result<Stranger> {
        let port = ports.next().context("no port")?;
        Stranger::dial(script, node, &me, port)
    };

    // As it should be; from the port of a program only if anybody may connect.
    let good = greeting(&src, &dest);
    let answer = dial()?.accepted(&good)?;
    ensure!(
        answer[..8] == [0x63, 0x69, 0x72, 0x45, 4, 0, 0, 0]
            && answer[8..28] == dest[..]
            && answer[28..48] == src[..]
            && answer[72..76] == CONTROL.to_le_bytes(),
        "wrong answer: {answer:x?}"
    );
    let unprivileged = || Stranger::dial(script, node, &me, 40_000);
    // It may be cut off before it knows that it is connected.
    let refused = unprivileged().and_then(|stranger| stranger.told(&good));
    ensure!(refused.unwrap_or_default().is_empty(), "it was accepted");
    set("accept", "all")?;
    wait::until(LIMIT, "an unprivileged port is good enough", || {
        let answer = unprivileged()?.accepted(&good)?;
        ensure!(answer[72..76] == CONTROL.to_le_bytes(), "refused");
        Ok(())
    })?;

    // NIDs of other lengths, of other networks, and in an IPv4 form; in the request and in the HELLO.
    for (at, value) in [(0, 0), (0, 1), (0, 11), (0, 13), (0, 255), (1, 5), (1, 255)] {
        for place in [8, 36, 56] {
            let mut bad = good.clone();
            bad[place + at] = value;
            let what = || format!("byte {at} of {place} is {value}");
            let answer = dial()?.told(&bad).with_context(what)?;
            ensure!(answer.is_empty(), "{}: {answer:x?}", what());
        }
    }
    // Somebody else's NID, an address that nobody can be called by, and the node's own.
    for wrong in ["fd02::99", "fe80::2", "::ffff:10.0.0.2", &it] {
        let answer = dial()?
            .told(&greeting(&long(wrong)?, &dest))
            .with_context(|| wrong.to_owned())?;
        ensure!(answer.is_empty(), "{wrong} was answered: {answer:x?}");
    }

    // Who really is at such an address can't be called by it either.
    let (near, device) = link_local(script)?;
    let stranger = Stranger::dial_by(script, node, (&near, device), 599)?;
    let answer = stranger
        .told(&greeting(&long(&near)?, &dest))
        .with_context(|| near.clone())?;
    ensure!(answer.is_empty(), "{near} was answered: {answer:x?}");

    // Versions in which the node can't say who it is: they are told of one in which it can, in the
    // same way as unknown ones are.
    let mut expected = Vec::new();
    for word in [LNET_MAGIC, 4] {
        expected.extend(word.to_le_bytes());
    }
    expected.extend([&dest[..], &dest].concat());
    for (magic, version) in [
        (0xeebc_0ded, 1),
        (LNET_MAGIC, 2),
        (LNET_MAGIC, 3),
        (LNET_MAGIC, 5),
        (LNET_MAGIC.swap_bytes(), 3_u32.swap_bytes()),
    ] {
        let mut bytes = good[..28].to_vec();
        bytes.extend(magic.to_le_bytes());
        bytes.extend(version.to_le_bytes());
        let answer = dial()?
            .told(&bytes)
            .with_context(|| format!("version {version:x}"))?;
        ensure!(
            answer.len() == 80 && answer[..48] == expected[..] && answer[72..76] == [0xff; 4],
            "version {version:x}: {answer:x?}"
        );
    }
    // The short form of the request has no room for the NID, so it is for somebody else.
    let mut bytes = Vec::new();
    for word in [0xacce_7100_u32, 1, 0x0a00_0001, 0x0002_0000] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(&good[28..]);
    let answer = dial()?.told(&bytes).context("the short form")?;
    ensure!(answer.is_empty(), "it was answered");

    // After all that it is as it was.
    let answer = dial()?.accepted(&good)?;
    ensure!(answer[8..28] == dest[..], "wrong answer: {answer:x?}");
    Ok(())
}

/// A gateway between an IPv4 network and an IPv6 network: messages use the version that has a form
/// for both NIDs.
pub fn gateway(lab: &mut Lab) -> Result<()> {
    let (client, gateway, server) = (lab.node(0), lab.node(1), lab.node(2));
    let far = |node: &Node| format!("{}@tcp1", address(node));
    set("large_router_buffers", "16")?;
    for node in [gateway, server] {
        let line = format!("addr add {}/64 dev eth0 nodad\n", address(node));
        node.space.ip(&line)?;
    }
    for version in ["4", "3"] {
        set("protocol", version)?;
        client.ni_add()?;
        gateway.ni_add()?;
        for node in [gateway, server] {
            node.socklctl(&["ni", "add", &far(node)])?;
        }
        gateway.socklctl(&["set", "routing", "on"])?;
        client.socklctl(&["route", "add", "tcp1", &gateway.nid()])?;
        server.socklctl(&["route", "add", "tcp", &far(gateway)])?;
        if version == "4" {
            ping(client, &far(server))?;
            ping(server, &client.nid())?;
            let _services = [client.serve()?, server.serve()?];
            for op in [Op::Put, Op::Get] {
                transfer(client, &far(server), op, 100_000, 10)?;
                transfer(server, &client.nid(), op, 100_000, 10)?;
            }
        } else {
            // Whether there are connections already or not.
            for _ in 0..2 {
                fails(client, &["ping", &far(server)], "EPROTONOSUPPORT")?;
            }
            // From the other side it is the gateway that can't, and all others go on.
            fails(server, &["ping", "-W", "2", &client.nid()], "ETIMEDOUT")?;
            wait::until(LIMIT, "failure at the gateway", || {
                let stats = gateway.list(&["stats"])?;
                let failed = stats
                    .iter()
                    .filter_map(|s| s["forwarding"]["failed"].as_u64());
                ensure!(failed.sum::<u64>() > 0, "nothing has failed: {stats:?}");
                Ok(())
            })?;
            ping(client, &gateway.nid())?;
            ping(server, &far(gateway))?;
        }
        for node in [client, gateway, server] {
            node.socklctl(&["route", "del", "any"])?;
            for ni in node.list(&["ni", "list"])? {
                node.socklctl(&["ni", "del", ni["nid"].as_str().unwrap_or_default()])?;
            }
        }
    }
    Ok(())
}
