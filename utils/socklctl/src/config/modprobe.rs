// SPDX-License-Identifier: GPL-2.0

//! Lines of modprobe.d: the parameters of `lnet` and `ksocklnd`, as for the C driver.

use super::{
    File,
    lnet::{Builder, cut_networks},
};
use crate::netdev::NetDevices;

/// The commands that such a file has.
const COMMANDS: [&str; 8] = [
    "alias",
    "blacklist",
    "config",
    "include",
    "install",
    "options",
    "remove",
    "softdep",
];

/// Parameters of `lnet` that this driver has by the same names.
const SHARED: [&str; 4] = ["accept", "accept_port", "accept_backlog", "accept_timeout"];

/// Whether the first line that is neither empty nor a comment begins with a command of modprobe.d.
pub(super) fn is_one(text: &str) -> bool {
    let first = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'));
    let command = first.and_then(|line| line.split_whitespace().next());
    command.is_some_and(|command| COMMANDS.contains(&command))
}

/// Reads such a file.
pub(super) fn parse(text: &str, netdevs: &NetDevices) -> File {
    let mut builder = Builder::new(netdevs);
    for (number, line) in lines(text) {
        let mut words = words(&line).into_iter();
        let place = format!("line {number}");
        match words.next().as_deref() {
            None => {}
            Some("options") => match words.next() {
                None => builder.problem(&place, "no module is named"),
                Some(module) => {
                    for word in words {
                        option(&mut builder, &place, &module, &word);
                    }
                }
            },
            Some(command) if COMMANDS.contains(&command) => {
                builder.ignore(&place, format!("'{command}' is for modprobe"));
            }
            Some(command) => builder.problem(
                &place,
                format!("'{command}' is not a command of modprobe.d"),
            ),
        }
    }
    builder.build()
}

/// Lines that are neither empty nor comments, with their numbers. A backslash at the end continues a line.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (index, line) in text.lines().enumerate() {
        let (part, more) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match all.last_mut() {
            Some((_, whole)) if goes_on => *whole += part,
            _ => all.push((index + 1, part.to_string())),
        }
        goes_on = more;
    }
    all.retain(|(_, line)| !line.trim().is_empty() && !line.trim().starts_with('#'));
    all
}

/// Words, which are separated by blanks. Quotes are removed; a blank between them is part of the word.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn option(builder: &mut Builder<'_>, place: &str, module: &str, word: &str) {
    let (name, value) = word.split_once('=').unwrap_or((word, "1"));
    let place = format!("{place}: {module} {name}");
    match (module, name) {
        ("lnet", "networks") => {
            for network in cut_networks(value) {
                builder.network_with_devices(&place, network);
            }
        }
        ("lnet", "ip2nets") => builder.ip2nets(&place, value),
        ("lnet", "routes") => builder.routes(&place, value),
        ("lnet", "forwarding") => match value {
            "enabled" => builder.routing(),
            "" | "disabled" => {}
            _ => builder.problem(&place, format!("'{value}' is neither enabled nor disabled")),
        },
        ("lnet", "small_router_buffers" | "large_router_buffers") => {
            // 0: LNet's default.
            if value != "0" {
                builder.set(name, value);
            }
        }
        ("lnet", name) if SHARED.contains(&name) => builder.set(name, value),
        ("ksocklnd", name) => builder.set(name, value),
        ("lnet", _) => builder.ignore(&place, "this driver has nothing like it"),
        _ => builder.ignore(&place, "a parameter of another module"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netdevs() -> NetDevices {
        NetDevices::of(&[
            "lo 127.0.0.1",
            "eth0 10.0.0.1",
            "eth1 192.168.1.1",
            "eth2 fd00::1",
        ])
    }

    fn nids(file: &File) -> Vec<String> {
        file.config
            .nis
            .iter()
            .map(|ni| ni.nid.to_string())
            .collect()
    }

    fn routes(file: &File) -> Vec<String> {
        let nis = file.config.nis.iter();
        let routes = nis.flat_map(|ni| ni.gateways.iter().map(move |gateway| (ni, gateway)));
        routes
            .map(|(ni, gateway)| {
                let (nid, priority) = (gateway.nid, gateway.priority);
                format!("tcp{} {nid} {priority} from {}", gateway.network, ni.nid)
            })
            .collect()
    }

    #[test]
    fn a_file_of_a_site() {
        let text = r#"
# Lustre
options lnet networks="tcp0(eth0),tcp1(eth1)[0,1],o2ib(ib0)" accept=all \
  accept_port=6988 forwarding="enabled" live_router_check_interval=60
options lnet 'routes=tcp2 10.0.0.[8-9]@tcp; o2ib 2 10.0.0.7@tcp; tcp3 2 192.168.1.9@tcp1:3 # there'
options ksocklnd sock_timeout=0 nconnds=100
options ko2iblnd map_on_demand=32
alias tcp ksocklnd
"#;
        assert!(is_one(text));
        let file = parse(text, &netdevs());
        assert_eq!(file.problems, [""; 0]);
        assert_eq!(nids(&file), ["10.0.0.1@tcp", "192.168.1.1@tcp1"]);
        assert_eq!(
            routes(&file),
            [
                "tcp2 10.0.0.8@tcp 0 from 10.0.0.1@tcp",
                "tcp2 10.0.0.9@tcp 0 from 10.0.0.1@tcp",
                "tcp3 192.168.1.9@tcp1 3 from 192.168.1.1@tcp1",
            ]
        );
        assert!(file.config.routing);
        let settings = [
            ("accept", "all"),
            ("accept_port", "6988"),
            ("sock_timeout", "0"),
            ("nconnds", "100"),
        ];
        assert_eq!(
            file.settings,
            settings.map(|(name, value)| (name.to_string(), value.to_string()))
        );
        for (ignored, sign) in file.ignored.iter().zip([
            "line 3: lnet networks: 'tcp1(eth1)[0,1]': the driver chooses",
            "line 3: lnet networks: o2ib: 'o2ib' is not a network of this driver",
            "line 3: lnet live_router_check_interval: this driver has nothing like it",
            "line 5: lnet routes: o2ib: 'o2ib' is not a network",
            "line 7: ko2iblnd map_on_demand: a parameter of another module",
            "line 8: 'alias' is for modprobe",
        ]) {
            assert!(ignored.starts_with(sign), "{ignored}, not {sign}");
        }
        assert_eq!(file.ignored.len(), 6, "{:?}", file.ignored);
    }

    #[test]
    fn networks_without_devices_and_with_wrong_ones() {
        let file = parse("options lnet networks=tcp", &netdevs());
        assert_eq!(nids(&file), ["10.0.0.1@tcp"]);
        let file = parse(
            "options lnet networks=tcp(eth2),tcp1(eth9),tcp2(eth0",
            &netdevs(),
        );
        assert_eq!(nids(&file), ["fd00::1@tcp"]);
        assert_eq!(
            file.problems,
            [
                "line 1: lnet networks: tcp1: there is no network device eth9 here",
                "line 1: lnet networks: tcp2: 'tcp2(eth0' has no ')'",
            ]
        );
        // Several networks on one device are usual.
        let file = parse("options lnet networks=tcp(eth0),tcp1(eth0)", &netdevs());
        assert_eq!(nids(&file), ["10.0.0.1@tcp", "10.0.0.1@tcp1"]);
        assert_eq!(file.problems, [""; 0]);
        // An NI for each of several devices.
        let file = parse("options lnet networks=tcp(eth0,eth1)", &netdevs());
        assert_eq!(nids(&file), ["10.0.0.1@tcp", "192.168.1.1@tcp"]);
    }

    #[test]
    fn networks_by_the_addresses_of_this_node() {
        for (rules, expected) in [
            ("tcp0 10.*.*.*; tcp1 192.168.1.[2-9]", &["10.0.0.1@tcp"][..]),
            ("tcp(eth1) 10.0.0.1", &["192.168.1.1@tcp"]),
            ("tcp 11.*.*.*; tcp *.*.*.*; tcp 10.0.0.1", &["10.0.0.1@tcp"]),
            (
                "tcp1(eth1), tcp(eth0) 10.0.0.*",
                &["192.168.1.1@tcp1", "10.0.0.1@tcp"],
            ),
            ("o2ib *.*.*.*", &[]),
        ] {
            let file = parse(&format!("options lnet ip2nets=\"{rules}\""), &netdevs());
            assert_eq!(nids(&file), expected, "{rules}");
            assert_eq!(file.problems, [""; 0], "{rules}");
        }
        let file = parse("options lnet ip2nets=\"tcp; tcp 10.x\"", &netdevs());
        assert_eq!(file.problems.len(), 2, "{:?}", file.problems);
    }

    #[test]
    fn wrong_lines_are_told() {
        let text = "options\noptions lnet routes=\"tcp1; tcp2 10.0.0.[1@tcp; tcp3 10.0.0.9@tcp:x; tcp4 nobody@tcp\"\n\
                    options lnet forwarding=maybe networks=tcp(eth0)\nfrobnicate x\noptions lnet 'routes=tcp5 10.9.9.9@tcp9'";
        let file = parse(text, &netdevs());
        for (problem, sign) in file.problems.iter().zip([
            "line 1: no module is named",
            "line 2: lnet routes: tcp1: a route without a gateway",
            "line 2: lnet routes: tcp2: '10.0.0.[1@tcp' is not a list",
            "line 2: lnet routes: tcp3: '10.0.0.9@tcp:x' has no priority",
            "line 2: lnet routes: tcp4: gateway 'nobody@tcp' is not a NID",
            "line 3: lnet forwarding: 'maybe'",
            "line 4: 'frobnicate' is not a command",
        ]) {
            assert!(problem.starts_with(sign), "{problem}, not {sign}");
        }
        assert_eq!(file.problems.len(), 7, "{:?}", file.problems);
        assert!(
            file.ignored
                .iter()
                .any(|line| line.contains("10.9.9.9@tcp9 is in no network"))
        );
        assert_eq!(routes(&file), [""; 0]);
        assert!(!is_one("version: 1\nni: []"));
        assert!(!is_one(""));
    }
}
