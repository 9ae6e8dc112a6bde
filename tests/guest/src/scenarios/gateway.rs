// SPDX-License-Identifier: GPL-2.0

//! Gateways: routes to other networks, and forwarded messages.

mod foreign;
mod lost;
mod refused;
mod slow;
mod stuck;

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::traffic::await_traffic;
use crate::command::Job;
use crate::lab::Lab;
use crate::module;
use crate::node::{Bench, Node, Op, errno};
use crate::pace;
use crate::peer::{ACCEPTOR_MAGIC, Conn, Hello, nid, request};
use crate::port::note;
use crate::wait;

pub use foreign::foreign_networks;
pub use lost::{lost, thirty_losses, thousand_losses};
pub use refused::refused;
pub use slow::held_by_few_bytes;
pub use stuck::{dying_conns, long_wait, stuck_receiver};

const LIMIT: Duration = Duration::from_secs(20);

fn fails(node: &Node, words: &[&str], name: &str) -> Result<()> {
    let got = errno(&node.attempt(words, LIMIT)?).with_context(|| words.join(" "))?;
    ensure!(got == name, "{}: {got} instead of {name}", words.join(" "));
    Ok(())
}

/// Every route: network, gateway, priority, state.
fn routes(node: &Node) -> Result<Value> {
    let routes = node.list(&["route", "list"])?.into_iter();
    Ok(routes
        .map(|route| {
            json!([
                route["network"],
                route["gateway"],
                route["priority"],
                route["state"]
            ])
        })
        .collect())
}

fn await_routes(node: &Node, expected: &Value) -> Result<()> {
    wait::until(LIMIT, "state of the routes", || {
        let now = routes(node)?;
        ensure!(now == *expected, "{now} instead of {expected}");
        Ok(())
    })
}

/// Routes are added, deleted, and set down and up, and follow the state of their gateways.
pub fn routes_come_and_go(lab: &mut Lab) -> Result<()> {
    let (node, first, second) = (lab.node(0), lab.node(1), lab.node(2));
    node.ni_add()?;
    fails(node, &["ping", "10.1.0.1@tcp1"], "ENETUNREACH")?;
    fails(node, &["route", "del", "any", "10.0.0.2@tcp"], "ENOENT")?;
    fails(node, &["route", "notify", "10.0.0.2@tcp", "up"], "ENOENT")?;
    fails(node, &["route", "add", "tcp", "10.0.0.2@tcp"], "EINVAL")?;
    fails(node, &["route", "add", "tcp1", "10.0.0.1@tcp"], "EINVAL")?;
    fails(
        node,
        &["route", "add", "tcp2", "10.1.0.1@tcp1"],
        "ENETUNREACH",
    )?;
    for words in [
        &["route", "add", "tcp1", "10.0.0.3@tcp"][..],
        &["route", "add", "tcp2", "10.0.0.2@tcp", "--priority", "7"],
        &["route", "add", "tcp1", "10.0.0.2@tcp"],
    ] {
        node.socklctl(words)?;
    }
    fails(
        node,
        &["route", "add", "tcp1", "10.0.0.2@tcp", "-p", "3"],
        "EEXIST",
    )?;
    let state = |second: &str, third: &str| {
        json!([
            ["tcp1", "10.0.0.2@tcp", 0, second],
            ["tcp1", "10.0.0.3@tcp", 0, third],
            ["tcp2", "10.0.0.2@tcp", 7, second],
        ])
    };
    await_routes(node, &state("up", "up"))?;

    // Nobody is there: the routes go down, the answer is an error, and from then on at once.
    for _ in 0..2 {
        fails(node, &["ping", "-W", "60", "10.1.0.1@tcp1"], "ECONNREFUSED")?;
    }
    await_routes(node, &state("down", "down"))?;
    let started = Instant::now();
    fails(node, &["ping", "-W", "60", "10.1.0.1@tcp1"], "EHOSTUNREACH")?;
    let limit = pace::stretched(Duration::from_secs(20));
    ensure!(started.elapsed() < limit, "it took long");

    // They are looked for, and found when they come.
    first.ni_add()?;
    await_routes(node, &state("up", "down"))?;
    second.ni_add()?;
    await_routes(node, &state("up", "up"))?;
    first.ni_del()?;
    await_routes(node, &state("down", "up"))?;

    // An administrator's word holds, whatever happens to the node.
    node.socklctl(&["route", "notify", "10.0.0.3@tcp", "down"])?;
    await_routes(node, &state("down", "set down"))?;
    ensure!(
        node.conns_to(second)?.is_empty(),
        "the gateway's connections are still there"
    );
    second.ping(node)?;
    first.ni_add()?;
    await_routes(node, &state("up", "set down"))?;
    node.socklctl(&["route", "notify", "10.0.0.3@tcp", "up"])?;
    await_routes(node, &state("up", "up"))?;

    // Messages are given to both in turn; neither passes any on.
    for _ in 0..6 {
        fails(node, &["ping", "-W", "0.1", "10.1.0.1@tcp1"], "ETIMEDOUT")?;
    }
    for gateway in [first, second] {
        // The last one may be on its way.
        wait::until(LIMIT, "messages given to both in turn", || {
            let count = gateway.counter("/misrouted")?;
            ensure!(count == 3, "{} had {count}", gateway.nid());
            Ok(())
        })?;
    }
    let gone = node.socklctl(&["route", "del", "any", "10.0.0.2@tcp"])?;
    ensure!(gone["count"] == 2, "{gone}");
    let gone = node.socklctl(&["route", "del", "tcp1"])?;
    ensure!(gone["count"] == 1, "{gone}");
    fails(node, &["ping", "10.1.0.1@tcp1"], "ENETUNREACH")
}

/// Nodes on two networks that only gateways connect.
pub struct Crossing {
    /// On tcp.
    pub clients: Vec<Node>,
    /// On both, by their side in tcp.
    gateways: Vec<Node>,
    /// On tcp1.
    pub servers: Vec<Node>,
}

/// The address that a node has on tcp1.
fn other_side(node: &Node) -> Ipv4Addr {
    let [_, _, _, last] = node.addr.octets();
    Ipv4Addr::new(10, 1, 0, last)
}

/// Puts a node on tcp1 and on nothing else.
fn move_across(node: &Node) -> Result<Node> {
    let addr = other_side(node);
    node.space.ip(&format!(
        "addr del {}/24 dev eth0\naddr add {addr}/24 dev eth0\n",
        node.addr
    ))?;
    Ok(node.in_network(1, addr))
}

/// Makes a node a gateway.
fn make_gateway(node: &Node) -> Result<()> {
    let addr = other_side(node);
    node.space.ip(&format!("addr add {addr}/24 dev eth0\n"))?;
    start_gateway(node)
}

/// Gives a gateway its NIs.
fn start_gateway(node: &Node) -> Result<()> {
    node.ni_add()?;
    node.in_network(1, other_side(node)).ni_add()?;
    node.socklctl(&["set", "routing", "on"]).map(drop)
}

/// Takes them away, with whatever is on its way.
fn stop_gateway(node: &Node) -> Result<()> {
    node.ni_del()?;
    node.in_network(1, other_side(node)).ni_del()
}

impl Crossing {
    pub fn new(lab: &Lab, clients: usize, gateways: usize, servers: usize) -> Result<Crossing> {
        fs::write("/sys/module/ksocklnd/parameters/large_router_buffers", "16")?;
        let mut nodes = (0..clients + gateways + servers).map(|index| lab.node(index).clone());
        let clients: Vec<Node> = nodes.by_ref().take(clients).collect();
        let gateways: Vec<Node> = nodes.by_ref().take(gateways).collect();
        let servers = nodes.map(|node| move_across(&node));
        let servers: Vec<Node> = servers.collect::<Result<_>>()?;
        for gateway in &gateways {
            make_gateway(gateway)?;
        }
        for client in &clients {
            client.ni_add()?;
            for gateway in &gateways {
                client.socklctl(&["route", "add", "tcp1", &gateway.nid()])?;
            }
        }
        for server in &servers {
            server.ni_add()?;
            for gateway in &gateways {
                let gateway = format!("{}@tcp1", other_side(gateway));
                server.socklctl(&["route", "add", "tcp", &gateway])?;
            }
        }
        Ok(Crossing {
            clients,
            gateways,
            servers,
        })
    }

    /// All that its gateways have counted under this name.
    fn forwarded(&self, name: &str) -> Result<u64> {
        let mut sum = 0;
        for gateway in &self.gateways {
            sum += forwarding(gateway, name)?;
        }
        Ok(sum)
    }
}

/// A counter of a gateway's forwarding, of both of its NIs.
fn forwarding(gateway: &Node, name: &str) -> Result<u64> {
    let stats = gateway.list(&["stats"])?.into_iter();
    let counts = stats.map(|stats| stats["forwarding"][name].as_u64());
    counts.sum::<Option<u64>>().context("no such counter")
}

/// A number about a gateway's pool of large buffers.
fn large(gateway: &Node, name: &str) -> Result<u64> {
    let routing = gateway.socklctl(&["show", "routing"])?;
    routing["large"][name].as_u64().context("no such number")
}

fn await_large(gateway: &Node, name: &str, expected: u64) -> Result<()> {
    wait::until(LIMIT, &format!("{expected} large buffers {name}"), || {
        let now = large(gateway, name)?;
        ensure!(
            now == expected,
            "{now}: {}",
            gateway.socklctl(&["show", "routing"])?
        );
        Ok(())
    })
}

const fn bench(op: Op, size: usize, count: usize) -> Bench {
    Bench {
        op,
        size,
        count,
        in_flight: 8,
        limit: Duration::from_secs(60),
    }
}

/// More than can be moved while a scenario lasts.
const ENDLESS: Bench = bench(Op::Put, 20_000, 1_000_000);

/// Pings and verified data, in both directions, through two gateways that are used in turn.
pub fn across(lab: &mut Lab) -> Result<()> {
    let crossing = Crossing::new(lab, 2, 2, 2)?;
    for (client, server) in crossing.clients.iter().zip(&crossing.servers) {
        for _ in 0..4 {
            client.ping(server)?;
            server.ping(client)?;
        }
    }
    for gateway in &crossing.gateways {
        ensure!(forwarding(gateway, "msgs")? >= 8, "not in turn");
    }
    let (one, two) = (&crossing.clients[0], &crossing.servers[0]);
    let _services = [one.serve()?, two.serve()?];
    for (size, count) in [(0, 20), (100, 20), (4096, 20), (4097, 20), (1 << 20, 3)] {
        let before = (crossing.forwarded("msgs")?, crossing.forwarded("bytes")?);
        for (from, to) in [(one, two), (two, one)] {
            for op in [Op::Put, Op::Get] {
                from.bench(to, &bench(op, size, count))?;
            }
        }
        // Each message and its answer, and what the transfer begins and ends with.
        let msgs = crossing.forwarded("msgs")? - before.0;
        let bytes = crossing.forwarded("bytes")? - before.1;
        let (least, payload) = (8 * count as u64, 4 * (count * size) as u64);
        ensure!(
            msgs >= least && msgs < least + 100,
            "{msgs} messages instead of about {least}"
        );
        ensure!(
            bytes >= payload && bytes < payload + 10_000,
            "{bytes} bytes instead of about {payload}"
        );
    }
    for name in ["failed", "forged", "direct", "off", "no_route", "back"] {
        ensure!(crossing.forwarded(name)? == 0, "{name}");
    }
    // The pages that came in are those that go out: nothing is copied for it.
    let gateway = &crossing.gateways[0];
    ensure!(gateway.counter("/zero_copy/bytes")? > 1 << 20, "copied");
    Ok(())
}

/// The 64 bits of the NID of an address on network tcp1.
fn nid1(addr: Ipv4Addr) -> u64 {
    nid(addr) | 1 << 32
}

/// A connection of a scripted peer at this address to a gateway's side in tcp1.
fn dial_across(script: &Node, from: Ipv4Addr, gateway: &Node, conn_type: u32) -> Result<Conn> {
    let to = other_side(gateway);
    let mut conn = Conn::dial(&script.space, from, to)?;
    conn.send(&request(ACCEPTOR_MAGIC, 1, nid1(to)))?;
    let hello = Hello {
        src: nid1(from),
        dest: nid1(to),
        ..Hello::new(from, to, conn_type)
    };
    conn.send(&hello.bytes())?;
    let answer = conn.receive_hello()?;
    ensure!(answer.src == nid1(to), "wrong NID in {answer:x?}");
    Ok(conn)
}

/// Transfers both ways without an end.
fn transfers(crossing: &Crossing) -> Result<(Vec<Job>, Vec<Job>)> {
    let mut services = Vec::new();
    let mut benches = Vec::new();
    for (client, server) in crossing.clients.iter().zip(&crossing.servers) {
        services.push(server.serve()?);
        for op in [Op::Put, Op::Get] {
            benches.push(client.start_bench(server, &Bench { op, ..ENDLESS })?);
        }
    }
    for node in crossing.clients.iter().chain(&crossing.servers) {
        await_traffic(node, 50)?;
    }
    Ok((services, benches))
}

/// Forwarding is disabled under traffic: its memory is freed, messages for others are dropped and
/// counted. When it is enabled again, it works as before. Many times.
pub fn switched_off(lab: &mut Lab) -> Result<()> {
    let crossing = Crossing::new(lab, 1, 1, 1)?;
    let gateway = &crossing.gateways[0];
    for _ in 0..4 {
        let before = forwarding(gateway, "off")?;
        ensure!(
            large(gateway, "buffers")? == 16,
            "not all buffers are there"
        );
        let (_services, mut benches) = transfers(&crossing)?;
        gateway.socklctl(&["set", "routing", "off"])?;
        await_large(gateway, "buffers", 0)?;
        wait::until(LIMIT, "messages dropped", || {
            let now = forwarding(gateway, "off")?;
            ensure!(now > before, "none");
            Ok(())
        })?;
        for bench in &mut benches {
            bench.kill();
        }
        gateway.socklctl(&["set", "routing", "on"])?;
        crossing.clients[0].ping(&crossing.servers[0])?;
    }
    gateway.socklctl(&["set", "routing", "off"])?;
    await_large(gateway, "buffers", 0)
}

/// The module is removed, and a gateway's namespace deleted, while messages are being forwarded.
pub fn unload(lab: &mut Lab) -> Result<()> {
    let mut slowest = Duration::ZERO;
    for round in 0..2 {
        if !module::is_inserted() {
            module::insert()?;
        }
        let crossing = crossing_again(lab, round)?;
        let (services, benches) = transfers(&crossing)?;
        let mut jobs: Vec<Job> = services.into_iter().chain(benches).collect();
        if round % 2 == 0 {
            let started = Instant::now();
            stop_gateway(&crossing.gateways[0])?;
            slowest = slowest.max(started.elapsed());
        }
        for job in &mut jobs {
            job.kill();
        }
        slowest = slowest.max(module::remove()?);
    }
    module::insert()?;
    let crossing = crossing_again(lab, 1)?;
    let (_services, mut benches) = transfers(&crossing)?;
    drop(crossing);
    lab.delete(1)?;
    for bench in &mut benches {
        bench.kill();
    }
    note(&format!("the slowest took {:.2} s", slowest.as_secs_f64()));
    Ok(())
}

/// One client, one gateway, one server, whose addresses may be there from before.
fn crossing_again(lab: &Lab, round: usize) -> Result<Crossing> {
    if round == 0 {
        return Crossing::new(lab, 1, 1, 1);
    }
    let (client, gateway) = (lab.node(0).clone(), lab.node(1).clone());
    let server = lab.node(2).in_network(1, other_side(lab.node(2)));
    start_gateway(&gateway)?;
    client.ni_add()?;
    client.socklctl(&["route", "add", "tcp1", &gateway.nid()])?;
    server.ni_add()?;
    let by = format!("{}@tcp1", other_side(&gateway));
    server.socklctl(&["route", "add", "tcp", &by])?;
    Ok(Crossing {
        clients: vec![client],
        gateways: vec![gateway],
        servers: vec![server],
    })
}
