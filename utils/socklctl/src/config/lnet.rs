// SPDX-License-Identifier: GPL-2.0

//! What Lustre's two formats have in common: networks and routes.

use super::{Config, File, GatewayConfig, NiConfig, expression};
use crate::{
    address::{Pattern, parse_nid},
    netdev::NetDevices,
    repo::wire::Nid,
    uapi,
};
use std::net::IpAddr;

/// Collects what a file says.
pub(super) struct Builder<'a> {
    netdevs: &'a NetDevices,
    file: File,
    /// Routes, which are checked when all NIs are known.
    routes: Vec<Route>,
}

struct Route {
    place: String,
    network: u16,
    gateway: Nid,
    priority: u32,
}

impl<'a> Builder<'a> {
    pub(super) fn new(netdevs: &'a NetDevices) -> Self {
        Self {
            netdevs,
            file: File::default(),
            routes: Vec::new(),
        }
    }

    /// Something in the file is wrong.
    pub(super) fn problem(&mut self, place: &str, problem: impl AsRef<str>) {
        self.file
            .problems
            .push(format!("{place}: {}", problem.as_ref()));
    }

    /// Something in the file does not apply to this driver.
    pub(super) fn ignore(&mut self, place: &str, why: impl AsRef<str>) {
        self.file.ignored.push(format!("{place}: {}", why.as_ref()));
    }

    pub(super) fn routing(&mut self) {
        self.file.config.routing = true;
    }

    /// A parameter of the module.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        // As for modprobe, the last one counts.
        self.file.settings.retain(|(known, _)| known != name);
        self.file
            .settings
            .push((name.to_string(), value.to_string()));
    }

    /// Whether this node has the address.
    pub(super) fn is_local(&self, addr: IpAddr) -> bool {
        self.netdevs.usable().any(|found| found.addr == addr)
    }

    /// The number of a network of this driver, `tcp7`. Others are ignored.
    pub(super) fn network(&mut self, place: &str, name: &str) -> Option<u16> {
        match Pattern::network(name) {
            Some(Pattern::Net(net)) => Some(net),
            _ => {
                self.ignore(
                    place,
                    format!("'{name}' is not a network of this driver, like tcp"),
                );
                None
            }
        }
    }

    /// An NI with this NID.
    pub(super) fn ni(&mut self, nid: Nid) {
        let nis = &mut self.file.config.nis;
        if nis.iter().any(|ni| ni.nid == nid) {
            return;
        }
        nis.push(NiConfig {
            nid,
            addresses: Vec::new(),
            peers: Vec::new(),
            gateways: Vec::new(),
        });
    }

    /// An NI in this network with the address that a device has, or the first that is there.
    pub(super) fn add_device(&mut self, place: &str, net: u16, device: Option<&str>) {
        let found = match device {
            Some(device) => self.netdevs.address_of(device),
            None => self.netdevs.first(),
        };
        match found {
            Ok(addr) => self.ni(Nid::tcp(net, addr)),
            Err(why) => self.problem(place, why.to_string()),
        }
    }

    /// NIs for a network as in `networks=`: `tcp7(eth0,eth1)[0,1]`.
    pub(super) fn network_with_devices(&mut self, place: &str, text: &str) {
        let (name, rest) = text.split_once('(').unwrap_or((text, ""));
        let (name, cpts) = match name.split_once('[') {
            Some((name, _)) => (name, true),
            None => (name, rest.contains(")[")),
        };
        if cpts {
            self.ignore(
                place,
                format!("'{text}': the driver chooses the processors"),
            );
        }
        let name = name.trim();
        let place = format!("{place}: {name}");
        let Some(net) = self.network(&place, name) else {
            return;
        };
        let Some((netdevs, after)) = rest.split_once(')') else {
            if rest.is_empty() {
                self.add_device(&place, net, None);
            } else {
                self.problem(&place, format!("'{text}' has no ')'"));
            }
            return;
        };
        if !(after.trim().is_empty() || after.trim_start().starts_with('[')) {
            self.problem(&place, format!("'{}' after ')'", after.trim()));
        }
        for item in cut(netdevs, ',') {
            let device = item.split('[').next().unwrap_or_default().trim();
            self.add_device(&place, net, Some(device));
        }
    }

    /// NIs for a network where an address of this node matches one of the patterns. Returns
    /// whether one does. With devices, only their addresses count, and they are those that are used.
    pub(super) fn network_by_address(
        &mut self,
        place: &str,
        net: u16,
        devices: &[String],
        patterns: &[String],
    ) -> bool {
        let mut any = false;
        let netdevs = self.netdevs;
        for pattern in patterns {
            for found in netdevs.usable() {
                let IpAddr::V4(addr) = found.addr else {
                    continue;
                };
                let named = devices.is_empty() || devices.contains(&found.device);
                match expression::matches(pattern, addr) {
                    None => {
                        self.problem(
                            place,
                            format!("'{pattern}' is not a pattern of IPv4 addresses"),
                        );
                        return any;
                    }
                    Some(true) if named => {
                        any = true;
                        self.ni(Nid::tcp(net, found.addr));
                    }
                    Some(_) => {}
                }
            }
        }
        any
    }

    /// The value of `ip2nets=`: of each network the first rule that matches.
    pub(super) fn ip2nets(&mut self, place: &str, text: &str) {
        let mut known: Vec<u16> = Vec::new();
        for rule in cut_rules(text) {
            let mut words = cut(rule, ' ').peekable();
            // There may be several networks, separated by commas with blanks around them.
            let mut nets = String::new();
            while let Some(word) = words.next_if(|word| !is_pattern(word)) {
                nets += word;
            }
            let patterns: Vec<_> = words.map(str::to_string).collect();
            let place = format!("{place}: {nets}");
            if patterns.is_empty() {
                self.problem(&place, "no pattern of addresses");
                continue;
            }
            for net in cut_networks(&nets) {
                let name = net.split(['(', '[']).next().unwrap_or_default();
                let Some(number) = self.network(&place, name) else {
                    continue;
                };
                if known.contains(&number) {
                    continue;
                }
                let mut probe = Builder::new(self.netdevs);
                let matched = probe.network_by_address(&place, number, &[], &patterns);
                self.file.problems.append(&mut probe.file.problems);
                if !matched {
                    continue;
                }
                known.push(number);
                if net.contains('(') {
                    self.network_with_devices(&place, net);
                } else {
                    // Without a device, it is the address that matched.
                    for ni in probe.file.config.nis.iter().take(1) {
                        self.ni(ni.nid);
                    }
                }
            }
        }
    }

    /// A route, whose NI may come later in the file.
    pub(super) fn route(&mut self, place: &str, network: u16, gateway: &str, priority: u32) {
        match parse_nid(gateway) {
            Ok(gateway) => self.routes.push(Route {
                place: place.to_string(),
                network,
                gateway,
                priority,
            }),
            // It belongs to another driver's network.
            Err(_) if is_foreign(gateway) => {
                self.ignore(
                    place,
                    format!("gateway {gateway} is in no network of this driver"),
                );
            }
            Err(why) => self.problem(place, format!("gateway '{gateway}' is {why}")),
        }
    }

    /// The value of `routes=`: `tcp1 [2] 10.0.0.[1-4]@tcp[:priority]; ...`
    pub(super) fn routes(&mut self, place: &str, text: &str) {
        for rule in cut_rules(text) {
            // A list in brackets may have blanks.
            let rule = without_blanks_in_brackets(rule);
            let mut words = cut(&rule, ' ');
            let name = words.next().unwrap_or_default();
            let place = format!("{place}: {name}");
            let Some(nets) = expression::expand(name) else {
                self.problem(&place, "no list of networks");
                continue;
            };
            let mut gateways = Vec::new();
            let mut given = 0;
            for word in words {
                // The number of hops has no effect.
                if word.parse::<u32>().is_ok() {
                    continue;
                }
                given += 1;
                let (gateway, priority) = cut_priority(word);
                let Some(priority) = priority else {
                    self.problem(&place, format!("'{word}' has no priority after ':'"));
                    continue;
                };
                match expression::expand(gateway) {
                    Some(all) => gateways.extend(all.into_iter().map(|nid| (nid, priority))),
                    None => self.problem(&place, format!("'{gateway}' is not a list of NIDs")),
                }
            }
            if given == 0 {
                self.problem(&place, "a route without a gateway");
            }
            for net in nets {
                let Some(number) = self.network(&place, &net) else {
                    continue;
                };
                for (gateway, priority) in &gateways {
                    self.route(&place, number, gateway, *priority);
                }
            }
        }
    }

    /// The result, in which each route belongs to the NI that is in its gateway's network.
    pub(super) fn build(mut self) -> File {
        for route in std::mem::take(&mut self.routes) {
            let Route {
                place,
                network,
                gateway,
                priority,
            } = route;
            let Config { nis, .. } = &mut self.file.config;
            // A file that routers share has routes to their own networks. They are ignored silently, as by LNet.
            if nis
                .iter()
                .any(|ni| ni.nid.net() == network || ni.nid == gateway)
            {
                self.ignore(
                    &place,
                    format!("{gateway}: this node needs no gateway to that network"),
                );
                continue;
            }
            let Some(ni) = nis.iter_mut().find(|ni| ni.nid.net() == gateway.net()) else {
                self.ignore(
                    &place,
                    format!("gateway {gateway} is in no network of this node"),
                );
                continue;
            };
            let known = |other: &GatewayConfig| (other.nid, other.network) == (gateway, network);
            if ni.gateways.iter().any(known) {
                continue;
            }
            if ni.gateways.len() >= uapi::SOCKLND_ROUTE_MAX as usize {
                let most = uapi::SOCKLND_ROUTE_MAX;
                self.problem(&place, format!("{}: more than {most} routes", gateway));
                continue;
            }
            ni.gateways.push(GatewayConfig {
                nid: gateway,
                network,
                priority,
            });
        }
        self.file
    }
}

/// The parts of a text, without blanks around them and without empty ones.
pub(super) fn cut(text: &str, at: char) -> impl Iterator<Item = &str> {
    let blank = at == ' ';
    text.split(move |c: char| if blank { c.is_whitespace() } else { c == at })
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// Rules, which end at semicolons and line ends. `#` begins a comment.
fn cut_rules(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', '\n'])
        .map(|rule| rule.split('#').next().unwrap_or_default().trim())
        .filter(|rule| !rule.is_empty())
}

/// `tcp(eth0,eth1),tcp1(eth2)`: commas in brackets don't separate.
pub(super) fn cut_networks(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let between = text.split(move |c| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    between
        .map(str::trim)
        .filter(|net| !net.is_empty())
        .collect()
}

fn without_blanks_in_brackets(text: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ => {}
        }
        !(inside && c.is_whitespace())
    };
    text.chars().filter(keep).collect()
}

/// Whether this is a pattern of addresses, not a network: it begins with a number, `*` or a bracket.
fn is_pattern(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit() || "*[".contains(c))
}

/// Whether this is a NID of another driver.
fn is_foreign(nid: &str) -> bool {
    let network = nid.rsplit_once('@').map(|(_, network)| network);
    network.is_some_and(|network| Pattern::network(network).is_none())
}

/// `10.0.0.1@tcp:3`; without a number, it is 0.
fn cut_priority(word: &str) -> (&str, Option<u32>) {
    let at = word.rfind('@').unwrap_or(0);
    match word.split_at(at).1.split_once(':') {
        None => (word, Some(0)),
        Some((network, priority)) => {
            let (gateway, _) = word.split_at(at + network.len());
            (gateway, priority.parse().ok())
        }
    }
}
