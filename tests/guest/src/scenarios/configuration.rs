// SPDX-License-Identifier: GPL-2.0

//! Configuration by an administrator: shares, patterns, files, lists.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::family;
use crate::lab::Lab;
use crate::node::{Node, errno};
use crate::port::note;
use crate::wait;
use crate::worker::Over;

const LIMIT: Duration = Duration::from_secs(20);

/// Every route with the number of its shares: `10.0.0.2@tcp 192.168.1.2 2`.
fn routes(node: &Node) -> Result<Vec<String>> {
    let mut routes = Vec::new();
    for peer in node.list(&["peer", "list"])? {
        for route in peer["routes"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let address = text(&route["address"]);
            let (address, _) = address.split_once(':').unwrap_or_default();
            let shares = &route["share_count"];
            routes.push(format!("{} {address} {shares}", text(&peer["nid"])));
        }
    }
    routes.sort();
    Ok(routes)
}

fn expect_routes(node: &Node, expected: &[&str]) -> Result<()> {
    let routes = routes(node)?;
    ensure!(routes == expected, "{routes:?} instead of {expected:?}");
    Ok(())
}

fn count(answer: &Value) -> Option<u64> {
    answer["count"].as_u64()
}

/// Runs a command that tells how many things it was about.
fn counted(node: &Node, words: &[&str], expected: u64) -> Result<()> {
    let answer = node.socklctl(words)?;
    ensure!(
        count(&answer) == Some(expected),
        "{}: {answer} instead of {expected}",
        words.join(" ")
    );
    Ok(())
}

fn fails(node: &Node, words: &[&str], name: &str) -> Result<()> {
    let got = errno(&node.attempt(words, LIMIT)?).with_context(|| words.join(" "))?;
    ensure!(got == name, "{}: {got} instead of {name}", words.join(" "));
    Ok(())
}

/// What was added several times exists until it was deleted as often. Deletion takes patterns.
pub fn shares(lab: &mut Lab) -> Result<()> {
    let node = lab.node(0);
    node.ni_add()?;
    let add = |nid: &str, addr: &str| node.socklctl(&["peer", "add", nid, addr]).map(drop);
    for (nid, addr) in [
        ("10.0.0.2@tcp", "10.0.0.2"),
        ("10.0.0.2@tcp", "10.0.0.2"),
        ("10.0.0.2@tcp", "192.168.1.2"),
        ("10.0.0.3@tcp", "10.0.0.2"),
        ("10.0.0.3@tcp", "192.168.1.3"),
    ] {
        add(nid, addr)?;
    }
    let all = [
        "10.0.0.2@tcp 10.0.0.2 2",
        "10.0.0.2@tcp 192.168.1.2 1",
        "10.0.0.3@tcp 10.0.0.2 1",
        "10.0.0.3@tcp 192.168.1.3 1",
    ];
    expect_routes(node, &all)?;
    fails(
        node,
        &["peer", "del", "10.0.0.2@tcp", "10.9.9.9", "--single"],
        "ENOENT",
    )?;
    fails(node, &["peer", "del", "10.0.0.9@tcp"], "ENOENT")?;
    counted(node, &["peer", "del", "any", "10.9.9.9"], 0)?;
    counted(node, &["peer", "del", "tcp7"], 0)?;
    expect_routes(node, &all)?;

    // One share of one address, of one peer and of all.
    node.socklctl(&["del_peer", "10.0.0.2@tcp", "10.0.0.2", "single_share"])?;
    expect_routes(node, &["10.0.0.2@tcp 10.0.0.2 1", all[1], all[2], all[3]])?;
    counted(node, &["peer", "del", "any", "10.0.0.2", "--single"], 2)?;
    expect_routes(node, &[all[1], all[3]])?;
    // By address: the peer whose last share goes, goes.
    counted(node, &["peer", "del", "any", "192.168.1.3"], 1)?;
    expect_routes(node, &[all[1]])?;
    let left = node.list(&["peer", "list"])?.len();
    ensure!(left == 1, "{left} peers instead of one");
    counted(node, &["peer", "del", "tcp"], 1)?;
    expect_routes(node, &[])?;
    ensure!(node.list(&["peer_list"])?.is_empty(), "peers are left");

    // Twice added, twice deleted, by lctl's verbs.
    for _ in 0..2 {
        node.socklctl(&["add_peer", "10.0.0.2@tcp", "10.0.0.2", "988"])?;
    }
    for left in [1, 0] {
        node.socklctl(&["del_peer", "10.0.0.2@tcp", "10.0.0.2", "single_share"])?;
        let peers = node.list(&["peer_list"])?.len();
        ensure!(peers == left, "{peers} peers instead of {left}");
    }
    fails(
        node,
        &["del_peer", "10.0.0.2@tcp", "10.0.0.2", "single_share"],
        "ENOENT",
    )
}

/// How many connections a node has to each of the others.
fn conns(lab: &Lab) -> Result<Vec<usize>> {
    let node = lab.node(0);
    (1..4)
        .map(|other| Ok(node.conns_to(lab.node(other))?.len()))
        .collect()
}

/// Connections are closed by NID, by address, by network, and all at once. Their peers stay.
pub fn wildcards(lab: &mut Lab) -> Result<()> {
    lab.connect(4)?;
    let node = lab.node(0);
    let connect = || {
        for other in 1..4 {
            node.ping(lab.node(other))?;
        }
        // A ping asks for all types of connections, which come one after the other.
        wait::until(LIMIT, "all connections", || {
            let conns = conns(lab)?;
            ensure!(conns == [3, 3, 3], "{conns:?}");
            Ok(())
        })
    };
    connect()?;
    for (words, count, left) in [
        (&["conn", "close", "10.0.0.2@tcp"][..], 3, [0, 3, 3]),
        (&["conn", "close", "any", "10.0.0.3"], 3, [0, 0, 3]),
        (&["conn", "close", "tcp7"], 0, [0, 0, 3]),
        (&["conn", "close", "any", "10.9.9.9"], 0, [0, 0, 3]),
        (&["conn", "close", "any", "--ni", "tcp7"], 0, [0, 0, 3]),
        (&["conn", "close", "tcp", "10.0.0.4"], 3, [0, 0, 0]),
    ] {
        counted(node, words, count)?;
        let conns = conns(lab)?;
        ensure!(
            conns == left,
            "{}: {conns:?} instead of {left:?}",
            words.join(" ")
        );
    }
    let close = ["conn", "close", "10.0.0.2@tcp"];
    fails(node, &close, "ENOENT")?;
    connect()?;
    // By this node's own address.
    counted(node, &["conn", "close", "any", "10.0.0.1"], 9)?;
    connect()?;
    counted(node, &["disconnect"], 9)?;
    let peers = node.list(&["peer", "list"])?.len();
    ensure!(peers == 3, "{peers} peers are left of 3");
    Ok(())
}

/// `conn push` applies to each connection that matches, and does not change Nagle's algorithm.
pub fn push(lab: &mut Lab) -> Result<()> {
    const NAGLE: &str = "/proc/sys/socknal/nagle";
    lab.connect(2)?;
    let (node, other) = (lab.node(0), lab.node(1));
    fails(node, &["conn", "push"], "ENOENT")?;
    for nagle in [true, false] {
        fs::write(NAGLE, if nagle { "1" } else { "0" }).context(NAGLE)?;
        node.ping(other)?;
        let all = wait::until(LIMIT, "all connections", || {
            let conns = node.conns_to(other)?;
            ensure!(conns.len() == 3, "{} connections", conns.len());
            Ok(conns)
        })?;
        ensure!(
            all.iter().all(|conn| conn["nagle"] == nagle),
            "not as the tunable says: {}",
            Value::from(all)
        );
        counted(node, &["conn", "push"], 3)?;
        counted(node, &["push", "10.0.0.2@tcp"], 3)?;
        counted(node, &["conn", "push", "any", "10.0.0.2"], 3)?;
        fails(node, &["conn", "push", "any", "10.9.9.9"], "ENOENT")?;
        fails(node, &["push", "10.0.0.3@tcp"], "ENOENT")?;
        let conns = node.conns_to(other)?;
        ensure!(
            conns.len() == 3 && conns.iter().all(|conn| conn["nagle"] == nagle),
            "changed by pushing: {}",
            Value::from(conns)
        );
        node.ping(other)?;
        counted(node, &["conn", "close", "any"], 3)?;
    }
    Ok(())
}

/// The node's NID is replaced completely, or not at all.
pub fn set_nid(lab: &mut Lab) -> Result<()> {
    let (node, other) = (lab.node(0), lab.node(1));
    node.space
        .ip("addr add 10.0.0.101/24 dev eth0\naddr add 10.0.0.102/24 dev eth0\n")?;
    let nids = || -> Result<Vec<Value>> {
        let nis = node.list(&["ni", "list"])?;
        Ok(nis.iter().map(|ni| ni["nid"].clone()).collect())
    };
    let expect = |nid: &str| -> Result<()> {
        let nids = nids()?;
        ensure!(nids == [nid], "{} instead of {nid}", Value::from(nids));
        let mynid = node.socklctl(&["mynid"])?;
        ensure!(mynid["nid"] == nid, "mynid: {mynid}");
        Ok(())
    };
    fails(node, &["mynid"], "ENOENT")?;
    node.socklctl(&["mynid", "10.0.0.1@tcp"])?;
    expect("10.0.0.1@tcp")?;
    other.ni_add()?;
    node.ping(other)?;
    // The same once more changes nothing.
    let before = node.list(&["conn", "list"])?.len();
    node.socklctl(&["ni", "set", "10.0.0.1@tcp"])?;
    let after = node.list(&["conn", "list"])?.len();
    ensure!(after >= before && before > 0, "{before} became {after}");

    for failing in ["10.0.0.77@tcp", "10.0.0.77@tcp3"] {
        fails(node, &["mynid", failing], "EADDRNOTAVAIL")?;
        expect("10.0.0.1@tcp")?;
    }
    node.ping(other)?;
    node.socklctl(&["mynid", "10.0.0.101@tcp"])?;
    expect("10.0.0.101@tcp")?;
    node.ping(other)?;
    // The same address in another network.
    node.socklctl(&["mynid", "10.0.0.101@tcp7"])?;
    expect("10.0.0.101@tcp7")?;
    fails(node, &["ping", &other.nid()], "ENETUNREACH")?;
    node.socklctl(&["ni", "add", "10.0.0.102@tcp"])?;
    fails(node, &["mynid", "10.0.0.1@tcp"], "ENOTUNIQ")?;
    let nids = nids()?;
    ensure!(nids.len() == 2, "{} instead of two", Value::from(nids));
    for nid in ["10.0.0.101@tcp7", "10.0.0.102@tcp"] {
        node.socklctl(&["ni", "del", nid])?;
    }
    Ok(())
}

/// Addresses of an NI: added, listed and deleted, by the commands of socklctl and of lctl.
pub fn interface_commands(lab: &mut Lab) -> Result<()> {
    let node = lab.node(0);
    node.space
        .ip("addr add 192.168.7.1/20 dev eth0\naddr add 192.168.8.1/24 dev eth0\n")?;
    fails(node, &["interface", "add", "192.168.7.1"], "ENOENT")?;
    node.ni_add()?;
    let expect = |expected: &[&str]| -> Result<()> {
        let listed = node.list(&["interface", "list"])?;
        let addresses: Vec<_> = listed
            .iter()
            .map(|entry| entry["address"].clone())
            .collect();
        let lctl = node.list(&["interface_list"])?;
        ensure!(
            addresses == expected && lctl == listed,
            "{} instead of {expected:?}",
            Value::from(listed)
        );
        Ok(())
    };
    expect(&["10.0.0.1/24"])?;
    fails(node, &["interface", "add", "10.0.0.1"], "EEXIST")?;
    fails(
        node,
        &["interface", "add", "192.168.9.1/24"],
        "EADDRNOTAVAIL",
    )?;
    fails(node, &["interface", "del", "10.0.0.1"], "EBUSY")?;
    fails(node, &["interface", "del", "192.168.7.1"], "ENOENT")?;
    fails(node, &["interface", "del", "--ni", "tcp7"], "ENOENT")?;
    // As the device has it, and as it is said.
    node.socklctl(&["interface", "add", "192.168.7.1"])?;
    let masked = ["add_interface", "192.168.8.1", "255.255.0.0"];
    if family::is_ipv6() {
        node.socklctl(&["interface", "add", "192.168.8.1/16"])?;
    } else {
        node.socklctl(&masked)?;
    }
    expect(&["10.0.0.1/24", "192.168.7.1/20", "192.168.8.1/16"])?;
    fails(node, &["interface", "add", "192.168.7.1/8"], "EEXIST")?;
    node.socklctl(&["interface", "del", "192.168.7.1"])?;
    expect(&["10.0.0.1/24", "192.168.8.1/16"])?;
    node.socklctl(&["interface", "add", "192.168.7.1/32", "--ni", "tcp"])?;
    expect(&["10.0.0.1/24", "192.168.8.1/16", "192.168.7.1/32"])?;
    node.socklctl(&["del_interface"])?;
    expect(&["10.0.0.1/24"])?;
    // As many as a greeting can name.
    let mut lines = String::new();
    for last in 1..=16 {
        lines += &format!("addr add 172.16.0.{last}/24 dev eth0\n");
    }
    node.space.ip(&lines)?;
    for last in 1..=15 {
        node.socklctl(&["interface", "add", &format!("172.16.0.{last}")])?;
    }
    fails(node, &["interface", "add", "172.16.0.16"], "ENOSPC")?;
    node.socklctl(&["interface", "del"])?;
    expect(&["10.0.0.1/24"])?;
    // With two NIs, the command needs --ni.
    node.socklctl(&["ni", "add", "192.168.8.1@tcp7"])?;
    fails(node, &["interface", "add", "192.168.7.1"], "ENOTUNIQ")?;
    node.socklctl(&["interface", "add", "192.168.7.1", "--ni", "tcp7"])?;
    node.socklctl(&["ni", "del", "192.168.8.1@tcp7"])?;
    expect(&["10.0.0.1/24"])
}

/// A node whose configuration was removed and imported again from a file is configured as before.
pub fn export_import(lab: &mut Lab) -> Result<()> {
    const FILE: &str = "/tmp/socklnd-export.yaml";
    let (node, other) = (lab.node(0), lab.node(1));
    node.space
        .ip("addr add 10.0.0.101/24 dev eth0\naddr add 192.168.7.1/16 dev eth0\n")?;
    node.ni_add()?;
    node.socklctl(&["ni", "add", "10.0.0.101@tcp7"])?;
    other.ni_add()?;
    for (nid, addr, port) in [
        ("10.0.0.2@tcp", "10.0.0.2", "988"),
        ("10.0.0.2@tcp", "10.0.0.2", "988"),
        ("10.0.0.2@tcp", "192.168.7.2", "7988"),
        ("10.0.0.9@tcp", "10.0.0.9", "988"),
        ("10.0.0.9@tcp7", "10.0.0.9", "989"),
    ] {
        node.socklctl(&["peer", "add", nid, addr, "--port", port])?;
    }
    node.socklctl(&["interface", "add", "192.168.7.1/16", "--ni", "10.0.0.1@tcp"])?;
    let route = ["route", "add", "tcp1", "10.0.0.9@tcp", "--priority", "2"];
    node.socklctl(&route)?;
    // What the driver finds by itself is not configuration.
    other.ping(node)?;
    let export = || node.socklctl(&["export"]);
    let before = export()?;
    let expected = json!({"version": 1, "ni": [
        {"nid": "10.0.0.1@tcp", "addresses": ["192.168.7.1/16"], "peers": [
            {"nid": "10.0.0.2@tcp", "routes": [
                {"address": "10.0.0.2", "port": 988, "shares": 2},
                {"address": "192.168.7.2", "port": 7988, "shares": 1},
            ]},
            {"nid": "10.0.0.9@tcp", "routes": [{"address": "10.0.0.9", "port": 988, "shares": 1}]},
        ], "gateways": [{"nid": "10.0.0.9@tcp", "network": "tcp1", "priority": 2}]},
        {"nid": "10.0.0.101@tcp7", "peers": [
            {"nid": "10.0.0.9@tcp7", "routes": [{"address": "10.0.0.9", "port": 989, "shares": 1}]},
        ]},
    ]});
    ensure!(before == expected, "{before} instead of {expected}");
    node.space.tool("socklctl", &["export", FILE], "")?;

    // What is there already is not added again.
    let again = node.socklctl(&["import", FILE])?;
    ensure!(again["steps"] == json!([]), "imported twice: {again}");
    ensure!(export()? == before, "changed by a second import");

    let wipe = || -> Result<()> {
        for nid in ["10.0.0.1@tcp", "10.0.0.101@tcp7"] {
            node.socklctl(&["ni", "del", nid])?;
        }
        let empty = export()?;
        ensure!(empty == json!({"version": 1, "ni": []}), "left: {empty}");
        Ok(())
    };
    wipe()?;
    let check = node.socklctl(&["import", "--check", FILE])?;
    let steps = check["steps"].as_array().map_or(0, Vec::len);
    ensure!(check["applied"] == false && steps == 9, "{check}");
    ensure!(export()?["ni"] == json!([]), "changed by a check");
    node.socklctl(&["import", FILE])?;
    ensure!(export()? == before, "{} after the import", export()?);
    node.ping(other)?;

    // A part of it is lost.
    node.socklctl(&["peer", "del", "10.0.0.2@tcp", "10.0.0.2", "--single"])?;
    node.socklctl(&["interface", "del", "192.168.7.1", "--ni", "10.0.0.1@tcp"])?;
    node.socklctl(&["route", "del", "tcp1", "10.0.0.9@tcp"])?;
    let repaired = node.socklctl(&["import", FILE])?;
    let steps = repaired["steps"].as_array().map_or(0, Vec::len);
    ensure!(steps == 3, "{repaired}");
    ensure!(export()? == before, "{} after the repair", export()?);
    node.socklctl(&["ni", "del", "10.0.0.101@tcp7"])?;
    fs::remove_file(FILE)?;
    Ok(())
}

/// A file that is wrong, or can't be applied, changes nothing.
pub fn failed_import(lab: &mut Lab) -> Result<()> {
    const FILE: &str = "/tmp/socklnd-import.yaml";
    let (node, other) = (lab.node(0), lab.node(1));
    node.space.ip("addr add 192.168.1.1/24 dev eth0\n")?;
    node.ni_add()?;
    other.ni_add()?;
    // The one is found by this node, the other is named by an administrator.
    node.ping(other)?;
    node.socklctl(&["peer", "add", "10.0.0.3@tcp"])?;
    let conns = || -> Result<Vec<String>> {
        let ends = node.conns_to(other)?;
        let mut ends: Vec<_> = ends
            .iter()
            .map(|conn| format!("{} {}", conn["local"], conn["peer"]))
            .collect();
        ends.sort();
        Ok(ends)
    };
    let connected = wait::until(LIMIT, "all connections", || {
        let conns = conns()?;
        ensure!(conns.len() == 3, "{conns:?}");
        Ok(conns)
    })?;
    let found = routes(node)?;
    let before = node.socklctl(&["export"])?;
    let attempt = |text: &str| -> Result<String> {
        fs::write(FILE, family::outward(text))?;
        let output = node.attempt(&["import", FILE], LIMIT)?;
        let name = errno(&output)?;
        let after = node.socklctl(&["export"])?;
        ensure!(after == before, "{after} instead of {before}");
        // What the driver has found by itself is as it was, too.
        let now = conns()?;
        ensure!(now == connected, "{now:?} instead of {connected:?}");
        expect_routes(node, &found.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(format!("{name} {}", output.stderr))
    };
    // All but the last would go.
    let late = "\
version: 1
ni:
- nid: 10.0.0.1@tcp
  addresses: [192.168.1.1/24]
  peers:
  - {nid: 10.0.0.2@tcp, routes: [{}, {address: 10.0.0.9}]}
  - {nid: 10.0.0.3@tcp, routes: [{shares: 3}, {address: 10.0.0.4}]}
- nid: 10.0.0.77@tcp7
";
    let told = attempt(late)?;
    ensure!(
        told.starts_with("EADDRNOTAVAIL")
            && told.contains("10.0.0.77@tcp7")
            && told.contains("nothing was changed: 6 steps were undone"),
        "{told}"
    );
    for (text, sign) in [
        (late.replace("shares: 3", "shares: 0"), "shares: 0"),
        (late.replace("peers", "pears"), "unknown field"),
        (late.replace("shares: 3", "port: 7"), "at port 988 already"),
        ("version: 1\nni: [".to_owned(), "line"),
    ] {
        let told = attempt(&text)?;
        ensure!(told.contains(sign), "{told} without '{sign}'");
    }
    fs::remove_file(FILE)?;
    Ok(())
}

/// A node is configured by names of network devices and hosts, with lctl's commands, and by files
/// for LNet. With `--keep-going`, the steps that work are done although others fail.
pub fn foreign_files(lab: &mut Lab) -> Result<()> {
    const HOSTS: &str = "/etc/hosts";
    const ACCEPT: &str = "/sys/module/ksocklnd/parameters/accept";
    let (node, other) = (lab.node(0), lab.node(1));
    other.ni_add()?;
    let nids = |expected: &[&str]| -> Result<()> {
        let nids = node.socklctl(&["list_nids"])?;
        ensure!(nids == json!(expected), "{nids} instead of {expected:?}");
        Ok(())
    };
    let accept = || -> Result<String> { Ok(fs::read_to_string(ACCEPT)?.trim().to_owned()) };

    node.socklctl(&["ni", "add", "tcp", "--if", "eth0"])?;
    nids(&["10.0.0.1@tcp"])?;
    let before = fs::read_to_string(HOSTS).unwrap_or_default();
    fs::write(HOSTS, "127.0.0.1 localhost\n10.0.0.2 oss2\n")?;
    let named = node.socklctl(&["ping", "oss2@tcp"]);
    fs::write(HOSTS, before)?;
    named.context("by the name of the host")?;
    let found = node.socklctl(&["which_nid", "10.9.9.9@tcp9", "10.0.0.2@tcp"])?;
    ensure!(found == json!(["10.0.0.2@tcp"]), "which_nid: {found}");
    for (network, peers) in [("tcp", 1), ("tcp7", 0)] {
        let listed = node.list(&["--net", network, "peer_list"])?.len();
        ensure!(listed == peers, "{network}: {listed} peers");
    }
    node.socklctl(&["ni", "del", "eth0@tcp"])?;
    node.socklctl(&["net", "add", "--net", "tcp", "--if", "eth0"])?;
    node.socklctl(&["network", "down"])?;
    nids(&[])?;

    // lnetctl's, from the standard input, as its export writes it.
    let yaml = "\
net:
    - net type: lo
      local NI(s):
        - nid: 0@lo
          status: up
    - net type: tcp
      local NI(s):
        - nid: 10.0.0.1@tcp
          status: up
          interfaces:
              0: eth0
          tunables:
              peer_credits: 8
route:
    - net: tcp1
      gateway: 10.0.0.9@tcp
      hop: -1
      priority: 2
";
    let import = |arguments: &[&str], text: &str| -> Result<Value> {
        let arguments = [&["--json", "import"], arguments].concat();
        let said = node.space.tool("socklctl", &arguments, text)?;
        serde_json::from_str(&said).with_context(|| said.clone())
    };
    let imported = import(&[], yaml)?;
    let ignored = imported["ignored"][0].as_str().unwrap_or_default();
    ensure!(ignored.contains("tunables"), "{imported}");
    let now = node.socklctl(&["export"])?;
    let expected = json!({"version": 1, "ni": [{"nid": "10.0.0.1@tcp", "gateways": [
        {"nid": "10.0.0.9@tcp", "network": "tcp1", "priority": 2},
    ]}]});
    ensure!(now == expected, "{now} instead of {expected}");
    let again = import(&["-"], yaml)?;
    ensure!(again["steps"] == json!([]), "imported twice: {again}");
    node.ping(other)?;
    node.socklctl(&["net", "del", "--net", "tcp"])?;
    nids(&[])?;

    // Lines of modprobe.d, with a device that is not there.
    const FILE: &str = "/tmp/socklnd-foreign";
    fs::write(
        FILE,
        "options lnet networks=\"tcp(eth0),tcp7(eth9)\" accept=all accept_port=6988 \\\n  \
         routes=\"tcp1 10.0.0.[8-9]@tcp\"\noptions ptlrpc at_min=40\n",
    )?;
    let told = node.attempt(&["import", FILE], LIMIT)?;
    ensure!(
        !told.status.success()
            && told.stderr.contains("nothing was changed")
            && told.stderr.contains("eth9"),
        "{}",
        told.stderr
    );
    nids(&[])?;
    ensure!(accept()? == "secure", "accept was changed");
    let told = node.attempt(&["import", "--keep-going", FILE], LIMIT)?;
    ensure!(told.status.code() == Some(1), "status {}", told.status);
    for sign in ["eth9", "accept_port is 988 until", "ptlrpc at_min"] {
        ensure!(
            told.stdout.contains(sign),
            "no word of {sign}: {}",
            told.stdout
        );
    }
    nids(&["10.0.0.1@tcp"])?;
    ensure!(accept()? == "all", "accept was not changed");
    let routes = node.list(&["route", "show"])?.len();
    ensure!(routes == 2, "{routes} routes");
    fs::write(ACCEPT, "secure")?;
    node.socklctl(&["network", "down"])?;

    // A card without its address: what is about the other one is done.
    fs::write(
        FILE,
        "{version: 1, ni: [{nid: 10.0.0.77@tcp7, peers: [{nid: 10.0.0.2@tcp7}]}, \
          {nid: 10.0.0.1@tcp, peers: [{nid: 10.0.0.2@tcp}]}]}",
    )?;
    fails(node, &["import", FILE], "EADDRNOTAVAIL")?;
    nids(&[])?;
    let told = node.attempt(&["import", "-k", FILE], LIMIT)?;
    let said: Value = serde_json::from_str(&told.stdout).with_context(|| told.stdout.clone())?;
    let failed = &said["failed"];
    ensure!(
        failed[0]["why"]["errno"] == "EADDRNOTAVAIL" && failed[1]["step"]["nid"] == "10.0.0.2@tcp7",
        "{said}"
    );
    nids(&["10.0.0.1@tcp"])?;
    node.ping(other)?;
    fs::remove_file(FILE)?;
    Ok(())
}

/// Lists that are read while peers are added and deleted have each peer exactly once that exists
/// all the time.
pub fn steady_lists(lab: &mut Lab) -> Result<()> {
    const STEADY: usize = 60;
    const ROUNDS: usize = 60;
    let node = lab.node(0);
    node.ni_add()?;
    let name = |part: usize, index: usize| format!("10.{part}.0.{}@tcp", index + 1);
    for index in 0..STEADY {
        node.socklctl(&["peer", "add", &name(1, index)])?;
    }
    let stop = AtomicBool::new(false);
    let (rounds, most, least) = thread::scope(|scope| -> Result<_> {
        let over = Over(&stop);
        let churn: Vec<_> = [2, 3]
            .into_iter()
            .map(|part| {
                let stop = &stop;
                scope.spawn(move || -> Result<usize> {
                    let mut rounds = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let nid = name(part, rounds % 200);
                        node.socklctl(&["peer", "add", &nid])?;
                        if rounds % 8 == 7 {
                            for back in 0..8 {
                                let nid = name(part, (rounds - back) % 200);
                                node.socklctl(&["peer", "del", &nid])?;
                            }
                        }
                        rounds += 1;
                    }
                    Ok(rounds)
                })
            })
            .collect();
        let listed = (|| -> Result<_> {
            let (mut most, mut least) = (0, usize::MAX);
            for _ in 0..ROUNDS {
                let mut seen: BTreeMap<String, usize> = BTreeMap::new();
                for peer in node.list(&["peer", "list"])? {
                    let nid = peer["nid"].as_str().unwrap_or_default().to_owned();
                    *seen.entry(nid).or_default() += 1;
                }
                let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
                ensure!(twice.is_empty(), "listed twice: {twice:?}");
                for index in 0..STEADY {
                    let nid = name(1, index);
                    ensure!(seen.contains_key(&nid), "{nid} is missing");
                }
                most = most.max(seen.len());
                least = least.min(seen.len());
            }
            Ok((most, least))
        })();
        drop(over);
        let mut rounds = 0;
        for thread in churn {
            rounds += thread.join().unwrap_or_else(|_| Ok(0))?;
        }
        let (most, least) = listed?;
        Ok((rounds, most, least))
    })?;
    note(&format!(
        "{rounds} peers came and went; lists had {least} to {most} entries"
    ));
    ensure!(most > least, "nothing changed while lists were made");
    Ok(())
}

/// `stats --watch` shows rates. It ends when its output is closed, and so does `ping`.
pub fn watch_counters(lab: &mut Lab) -> Result<()> {
    lab.connect(2)?;
    let (node, other) = (lab.node(0), lab.node(1));
    let mut job = node.start(&["stats", "--watch", "--interval", "100ms"])?;
    job.await_output("\n", LIMIT)?;
    node.ping(other)?;
    wait::until(LIMIT, "a ping among the rates", || {
        ensure!(job.running()?, "it ended: {}", job.stderr());
        let said = job.stdout();
        // The last line may be on its way.
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let rates: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let ni = &rates["nis"][0];
            if ni["tx_msgs"].as_f64() > Some(0.0) && ni["nid"] == node.nid() {
                return Ok(());
            }
        }
        anyhow::bail!("only zeros so far")
    })?;
    job.kill();
    let three = node.space.tool(
        "socklctl",
        &["stats", "--watch", "-i", "20ms", "-c", "3"],
        "",
    )?;
    let lines = three.lines().count();
    ensure!(
        lines == 4 && three.starts_with("nid "),
        "titles and three lines expected: {three}"
    );
    // None of these ends by itself before the tool's time is up.
    for line in [
        "socklctl stats --watch -i 20ms | head -n 1",
        "socklctl ping -c 1000000 -i 20ms 10.0.0.2@tcp | head -n 1",
        "socklctl --json ping -c 1000000 -i 20ms 10.0.0.2@tcp | true",
    ] {
        node.space.tool("sh", &["-c", line], "")?;
    }
    Ok(())
}
