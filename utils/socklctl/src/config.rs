// SPDX-License-Identifier: GPL-2.0

//! A node's configuration: as it is in a file, and checked.
//!
//! A file is parsed into a [`Config`], which is valid, or into a list of problems. [`File`] also reads Lustre's
//! formats.

mod expression;
mod lnet;
mod lnetctl;
mod modprobe;

use crate::{
    address::{Pattern, Prefix, parse_network, parse_nid},
    error::Error,
    netdev::NetDevices,
    repo::wire::Nid,
    uapi,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    net::IpAddr,
    path::Path,
};

/// The version of the file's format.
const VERSION: u64 = 1;

/// How often one route may have been added.
const MAX_SHARES: u64 = 65535;

/// No configuration is longer than this, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// What was configured on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// Whether it forwards messages. A file that does not say that changes nothing.
    pub(crate) routing: bool,
    pub(crate) nis: Vec<NiConfig>,
}

/// An NI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NiConfig {
    pub(crate) nid: Nid,
    /// Addresses that it uses in addition to the one in its NID.
    pub(crate) addresses: Vec<Prefix>,
    pub(crate) peers: Vec<PeerConfig>,
    /// Gateways to other networks.
    pub(crate) gateways: Vec<GatewayConfig>,
}

/// A route to another network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatewayConfig {
    pub(crate) nid: Nid,
    /// The other network's number.
    pub(crate) network: u16,
    pub(crate) priority: u32,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerConfig {
    pub(crate) nid: Nid,
    pub(crate) routes: Vec<RouteConfig>,
}

/// An address of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteConfig {
    pub(crate) addr: IpAddr,
    /// `None`: that of the parameter `accept_port`.
    pub(crate) port: Option<u16>,
    /// How often it was added.
    pub(crate) shares: u32,
}

/// The file's contents, with nothing checked but their structure.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawConfig {
    version: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    routing: bool,
    ni: Vec<RawNi>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawNi {
    nid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    peers: Vec<RawPeer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gateways: Vec<RawGateway>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawGateway {
    nid: String,
    network: String,
    #[serde(default)]
    priority: u64,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawPeer {
    nid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes: Option<Vec<RawRoute>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shares: Option<u64>,
}

/// What a file says of a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) config: Config,
    /// Parameters of the module, by name.
    pub(crate) settings: Vec<(String, String)>,
    /// What in it does not apply to this driver.
    pub(crate) ignored: Vec<String>,
    /// Errors in it; what they are about is not in the other fields.
    pub(crate) problems: Vec<String>,
}

impl File {
    /// Reads a file; `-` is the standard input.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let mut text = String::new();
        let from: io::Result<Box<dyn Read>> = if path == Path::new("-") {
            Ok(Box::new(io::stdin()))
        } else {
            fs::File::open(path).map(|file| Box::new(file) as _)
        };
        let read = from.and_then(|from| from.take(MAX_FILE + 1).read_to_string(&mut text));
        read.map_err(|source| Error::File {
            what: "read",
            path: path.into(),
            source,
        })?;
        let invalid = |problem: String| Error::Invalid {
            path: path.into(),
            problems: vec![problem],
        };
        if text.len() as u64 > MAX_FILE {
            return Err(invalid("it is longer than 16 MiB".to_string()));
        }
        // Only files of Lustre name network devices. They report which one is missing.
        let netdevs = NetDevices::read().unwrap_or_default();
        Self::parse(&text, &netdevs).map_err(invalid)
    }

    /// Reads one of the formats: YAML of this tool (of which JSON is a part) or of lnetctl, or lines of
    /// modprobe.d. An error says why it is none of them.
    pub(crate) fn parse(text: &str, netdevs: &NetDevices) -> Result<Self, String> {
        if modprobe::is_one(text) {
            return Ok(modprobe::parse(text, netdevs));
        }
        if let Some(file) = lnetctl::parse(text, netdevs)? {
            return Ok(file);
        }
        let (config, problems) = Config::parse(text)?;
        Ok(Self {
            config,
            problems,
            ..Self::default()
        })
    }
}

impl Config {
    /// Reads YAML, of which JSON is a part. Returns what is valid, and all errors in the rest. The result is an
    /// error if the structure is wrong.
    fn parse(text: &str) -> Result<(Self, Vec<String>), String> {
        let raw: RawConfig = yaml_serde::from_str(text).map_err(|error| error.to_string())?;
        if raw.version != VERSION {
            let version = raw.version;
            return Err(format!(
                "version: {version} is not known; this socklctl reads version {VERSION}"
            ));
        }
        let mut checker = Checker::default();
        let config = checker.config(&raw);
        Ok((config, checker.problems))
    }

    /// The configuration as a file has it.
    pub(crate) fn to_raw(&self) -> RawConfig {
        let route = |route: &RouteConfig| RawRoute {
            address: Some(route.addr.to_string()),
            port: route.port.map(u64::from),
            shares: Some(route.shares.into()),
        };
        let peer = |peer: &PeerConfig| RawPeer {
            nid: peer.nid.to_string(),
            routes: Some(peer.routes.iter().map(route).collect()),
        };
        let gateway = |gateway: &GatewayConfig| RawGateway {
            nid: gateway.nid.to_string(),
            network: Pattern::Net(gateway.network).to_string(),
            priority: gateway.priority.into(),
        };
        let ni = |ni: &NiConfig| RawNi {
            nid: ni.nid.to_string(),
            addresses: ni.addresses.iter().map(Prefix::to_string).collect(),
            peers: ni.peers.iter().map(peer).collect(),
            gateways: ni.gateways.iter().map(gateway).collect(),
        };
        RawConfig {
            version: VERSION,
            routing: self.routing,
            ni: self.nis.iter().map(ni).collect(),
        }
    }
}

impl RawConfig {
    /// As YAML.
    pub(crate) fn to_yaml(&self) -> String {
        // Fails only for values that YAML can't represent. There are strings and numbers only.
        yaml_serde::to_string(self).unwrap_or_default()
    }
}

/// Checks a whole file and collects all errors.
#[derive(Default)]
struct Checker {
    problems: Vec<String>,
}

impl Checker {
    fn problem(&mut self, place: &str, problem: impl AsRef<str>) {
        self.problems.push(format!("{place}: {}", problem.as_ref()));
    }

    fn config(&mut self, raw: &RawConfig) -> Config {
        let mut seen = BTreeSet::new();
        let mut nis = Vec::new();
        for (index, raw) in raw.ni.iter().enumerate() {
            let place = format!("ni[{index}]");
            let Some(ni) = self.ni(&place, raw) else {
                continue;
            };
            if seen.insert(ni.nid) {
                nis.push(ni);
            } else {
                self.problem(&place, format!("{} appears twice", ni.nid));
            }
        }
        Config {
            routing: raw.routing,
            nis,
        }
    }

    fn nid(&mut self, place: &str, text: &str) -> Option<Nid> {
        match parse_nid(text) {
            Ok(nid) if nid.addr().is_loopback() => {
                let problem = format!("{} is an address that other nodes can't reach", nid.addr());
                self.problem(place, problem);
                None
            }
            Ok(nid) => self.addr(place, nid.addr()).map(|_| nid),
            Err(problem) => {
                self.problem(place, format!("'{text}' is {problem}"));
                None
            }
        }
    }

    /// Refuses addresses that the module does.
    fn addr(&mut self, place: &str, addr: IpAddr) -> Option<IpAddr> {
        let problem = match addr {
            _ if addr.is_unspecified() || addr.is_multicast() => "is no address of a host",
            IpAddr::V4(v4) if v4.is_broadcast() => "is no address of a host",
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                "is link-local, which needs a network device"
            }
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "is an IPv4-mapped address",
            _ => return Some(addr),
        };
        self.problem(place, format!("{addr} {problem}"));
        None
    }

    fn number(&mut self, place: &str, value: u64, most: u64) -> Option<u64> {
        if (1..=most).contains(&value) {
            return Some(value);
        }
        self.problem(place, format!("{value} is not between 1 and {most}"));
        None
    }

    fn ni(&mut self, place: &str, raw: &RawNi) -> Option<NiConfig> {
        let nid = self.nid(&format!("{place}.nid"), &raw.nid);
        let mut seen = BTreeSet::from_iter(nid.map(|nid| nid.addr()));
        let mut addresses = Vec::new();
        for (index, text) in raw.addresses.iter().enumerate() {
            let place = format!("{place}.addresses[{index}]");
            match text.parse::<Prefix>() {
                Ok(prefix) if self.addr(&place, prefix.addr).is_none() => {}
                Ok(prefix) if !seen.insert(prefix.addr) => {
                    self.problem(&place, format!("{} appears twice", prefix.addr));
                }
                Ok(prefix) => addresses.push(prefix),
                Err(problem) => self.problem(&place, format!("'{text}': {problem}")),
            }
        }
        let most = uapi::SOCKLND_IF_MAX as usize - 1;
        if raw.addresses.len() > most {
            let problem = format!("more than {most} in addition to the one in the NID");
            self.problem(&format!("{place}.addresses"), problem);
            addresses.truncate(most);
        }
        let mut seen = BTreeSet::new();
        let mut peers = Vec::new();
        for (index, raw) in raw.peers.iter().enumerate() {
            let place = format!("{place}.peers[{index}]");
            let Some(peer) = self.peer(&place, raw) else {
                continue;
            };
            let place = format!("{place}.nid");
            let known = self.problems.len();
            if nid.is_some_and(|nid| nid.net() != peer.nid.net()) {
                let problem = format!("{} is not in the network of {}", peer.nid, raw_name(nid));
                self.problem(&place, problem);
            }
            if nid == Some(peer.nid) {
                self.problem(&place, format!("{} is this node itself", peer.nid));
            }
            if !seen.insert(peer.nid) {
                self.problem(&place, format!("{} appears twice", peer.nid));
            }
            if self.problems.len() == known {
                peers.push(peer);
            }
        }
        let mut seen = BTreeSet::new();
        let mut gateways = Vec::new();
        for (index, raw) in raw.gateways.iter().enumerate() {
            let place = format!("{place}.gateways[{index}]");
            let Some(gateway) = self.gateway(&place, nid, raw) else {
                continue;
            };
            if !seen.insert((gateway.nid, gateway.network)) {
                let (nid, network) = (gateway.nid, Pattern::Net(gateway.network));
                self.problem(&place, format!("{nid} to {network} appears twice"));
                continue;
            }
            gateways.push(gateway);
        }
        let most = uapi::SOCKLND_ROUTE_MAX as usize;
        if raw.gateways.len() > most {
            self.problem(&format!("{place}.gateways"), format!("more than {most}"));
            gateways.truncate(most);
        }
        Some(NiConfig {
            nid: nid?,
            addresses,
            peers,
            gateways,
        })
    }

    fn gateway(&mut self, place: &str, ni: Option<Nid>, raw: &RawGateway) -> Option<GatewayConfig> {
        let known = self.problems.len();
        let nid = self.nid(&format!("{place}.nid"), &raw.nid);
        let network = match parse_network(&raw.network) {
            Ok(network) => Some(network),
            Err(problem) => {
                let text = &raw.network;
                self.problem(
                    &format!("{place}.network"),
                    format!("'{text}' is {problem}"),
                );
                None
            }
        };
        let priority = u32::try_from(raw.priority).ok();
        if priority.is_none() {
            let problem = format!("{} is more than {}", raw.priority, u32::MAX);
            self.problem(&format!("{place}.priority"), problem);
        }
        if let (Some(ni), Some(nid)) = (ni, nid) {
            if nid.net() != ni.net() || nid == ni {
                let problem = format!("{nid} is not another node in the network of {ni}");
                self.problem(&format!("{place}.nid"), problem);
            }
        }
        if network.is_some() && network == ni.map(|ni| ni.net()) {
            let problem = format!("{} needs no gateway", raw.network);
            self.problem(&format!("{place}.network"), problem);
        }
        if self.problems.len() > known {
            return None;
        }
        Some(GatewayConfig {
            nid: nid?,
            network: network?,
            priority: priority?,
        })
    }

    fn peer(&mut self, place: &str, raw: &RawPeer) -> Option<PeerConfig> {
        let nid = self.nid(&format!("{place}.nid"), &raw.nid);
        let usual = [RawRoute::default()];
        let raw_routes = raw.routes.as_deref().unwrap_or(&usual);
        if raw_routes.is_empty() {
            self.problem(
                &format!("{place}.routes"),
                "a list without routes; leave it out for a route to the address in the NID",
            );
        }
        let mut seen = BTreeSet::new();
        let mut routes = Vec::new();
        for (index, raw) in raw_routes.iter().enumerate() {
            let place = format!("{place}.routes[{index}]");
            let Some(route) = self.route(&place, nid, raw) else {
                continue;
            };
            if !seen.insert(route.addr) {
                let problem = format!("{} appears twice", route.addr);
                self.problem(&format!("{place}.address"), problem);
                continue;
            }
            routes.push(route);
        }
        Some(PeerConfig { nid: nid?, routes })
    }

    fn route(&mut self, place: &str, nid: Option<Nid>, raw: &RawRoute) -> Option<RouteConfig> {
        let at = format!("{place}.address");
        let addr = match &raw.address {
            // If the NID is invalid, that was reported already.
            None => nid.map(|nid| nid.addr()),
            Some(text) => match text.parse() {
                Ok(addr) => self.addr(&at, addr),
                Err(_) => {
                    self.problem(&at, format!("'{text}' is not an IP address"));
                    None
                }
            },
        };
        let port = match raw.port {
            None => Some(None),
            Some(port) => {
                let port = self.number(&format!("{place}.port"), port, u16::MAX.into());
                port.and_then(|port| u16::try_from(port).ok()).map(Some)
            }
        };
        let shares = raw.shares.unwrap_or(1);
        let shares = self.number(&format!("{place}.shares"), shares, MAX_SHARES);
        Some(RouteConfig {
            addr: addr?,
            port: port?,
            shares: shares.and_then(|shares| u32::try_from(shares).ok())?,
        })
    }
}

fn raw_name(nid: Option<Nid>) -> String {
    nid.map(|nid| nid.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "\
version: 1
routing: true
ni:
- nid: 10.0.0.1@tcp
  addresses:
  - 192.168.1.1/24
  peers:
  - nid: 10.0.0.2@tcp
    routes:
    - address: 192.168.1.2
      port: 7988
      shares: 2
  gateways:
  - nid: 10.0.0.9@tcp
    network: tcp1
    priority: 3
- nid: 10.0.1.1@tcp7
";

    #[test]
    fn a_file_goes_there_and_back() {
        let config = parsed(FULL);
        assert_eq!(config.to_raw().to_yaml(), FULL);
        assert_eq!(config.nis[0].peers[0].routes[0].shares, 2);
        assert_eq!(config.nis[1].peers, []);
        let json = serde_json::to_string(&config.to_raw()).unwrap();
        assert_eq!(parsed(&json), config);
    }

    #[test]
    fn what_is_left_out_is_as_usual() {
        let text = "{version: 1, ni: [{nid: 10.0.0.1@tcp, peers: [{nid: 10.0.0.2@tcp}]}]}";
        let config = parsed(text);
        assert_eq!(
            config.nis[0].peers[0].routes,
            [RouteConfig {
                addr: [10, 0, 0, 2].into(),
                port: None,
                shares: 1
            }]
        );
        assert_eq!(parsed("version: 1\nni: []"), Config::default());
    }

    #[track_caller]
    fn parsed(text: &str) -> Config {
        let (config, problems) = Config::parse(text).unwrap();
        assert_eq!(problems, [""; 0]);
        config
    }

    #[track_caller]
    fn problems(text: &str, expected: &[&str]) {
        let found = match Config::parse(text) {
            Ok((_, problems)) => problems,
            Err(problem) => vec![problem],
        };
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}, not {expected}");
        }
    }

    #[test]
    fn files_of_another_structure_are_refused_with_the_place() {
        problems("", &["version"]);
        problems("version: 1", &["missing field `ni`"]);
        problems("version: 1\nni: []\nnis: []", &["unknown field `nis`"]);
        problems(
            "version: 1\nni:\n- nid: 10.0.0.1@tcp\n  peer: []",
            &["unknown field `peer`"],
        );
        problems("version: 1\nni: [", &["line 3"]);
        problems("version: 1\nversion: 1\nni: []", &["duplicate"]);
        problems("version: one\nni: []", &["invalid type"]);
        problems("version: 2\nni: []", &["version: 2 is not known"]);
    }

    #[test]
    fn gateways_that_make_no_sense() {
        problems(
            "\
version: 1
ni:
- nid: 10.0.0.1@tcp
  gateways:
  - {nid: 10.0.0.1@tcp, network: tcp1}
  - {nid: 10.0.0.9@tcp1, network: tcp2}
  - {nid: 10.0.0.9@tcp, network: tcp}
  - {nid: 10.0.0.9@tcp, network: any}
  - {nid: 10.0.0.9@tcp, network: tcp1, priority: 4294967296}
  - {nid: 10.0.0.9@tcp, network: tcp3}
  - {nid: 10.0.0.9@tcp, network: tcp3, priority: 1}
",
            &[
                "gateways[0].nid: 10.0.0.1@tcp is not another node",
                "gateways[1].nid: 10.0.0.9@tcp1 is not another node",
                "gateways[2].network: tcp needs no gateway",
                "gateways[3].network: 'any' is not the name",
                "gateways[4].priority: 4294967296 is more",
                "gateways[6]: 10.0.0.9@tcp to tcp3 appears twice",
            ],
        );
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        problems(
            "\
version: 1
ni:
- nid: 10.0.0.1
- nid: 10.0.0.1@tcp
  addresses: [10.0.0.1/8, 1.2.3.4/33, 1.2.3.4, 1.2.3.4/8, 224.0.0.1]
  peers:
  - nid: 10.0.0.1@tcp
  - nid: 10.0.0.2@tcp1
  - nid: 10.0.0.3@tcp
    routes: []
  - nid: 10.0.0.3@tcp
    routes: [{port: 0}, {port: 65536}, {shares: 0}, {}, {}, {address: here}, {address: 'fe80::1'}, {address: '::ffff:10.0.0.9'}]
- nid: 10.0.0.1@tcp1
- nid: 10.0.0.1@tcp
- nid: ff02::1@tcp
- nid: 127.0.0.1@tcp
",
            &[
                "ni[0].nid: '10.0.0.1' is not a NID",
                "ni[1].addresses[0]: 10.0.0.1 appears twice",
                "ni[1].addresses[1]: '1.2.3.4/33'",
                "ni[1].addresses[3]: 1.2.3.4 appears twice",
                "ni[1].addresses[4]: 224.0.0.1 is no address of a host",
                "ni[1].peers[0].nid: 10.0.0.1@tcp is this node itself",
                "ni[1].peers[1].nid: 10.0.0.2@tcp1 is not in the network of 10.0.0.1@tcp",
                "ni[1].peers[2].routes: a list without routes",
                "ni[1].peers[3].routes[0].port: 0 is not between 1 and 65535",
                "ni[1].peers[3].routes[1].port: 65536",
                "ni[1].peers[3].routes[2].shares: 0",
                "ni[1].peers[3].routes[4].address: 10.0.0.3 appears twice",
                "ni[1].peers[3].routes[5].address: 'here' is not an IP address",
                "ni[1].peers[3].routes[6].address: fe80::1 is link-local",
                "ni[1].peers[3].routes[7].address: ::ffff:10.0.0.9 is an IPv4-mapped address",
                "ni[1].peers[3].nid: 10.0.0.3@tcp appears twice",
                "ni[3]: 10.0.0.1@tcp appears twice",
                "ni[4].nid: ff02::1 is no address of a host",
                "ni[5].nid: 127.0.0.1 is an address that other nodes can't reach",
            ],
        );
    }

    /// Of a file with a mistake, all else can be used.
    #[test]
    fn what_makes_sense_is_kept() {
        let text = "\
version: 1
ni:
- nid: 10.0.0.1
- nid: 10.0.0.1@tcp
  addresses: [1.2.3.4/33, 1.2.3.5]
  peers:
  - nid: 10.0.0.2@tcp1
  - nid: 10.0.0.3@tcp
    routes: [{port: 0}, {address: 10.0.0.4}, {address: 10.0.0.4}]
  gateways: [{nid: 10.0.0.9@tcp, network: tcp}, {nid: 10.0.0.9@tcp, network: tcp3}]
";
        let (config, problems) = Config::parse(text).unwrap();
        assert_eq!(problems.len(), 6, "{problems:?}");
        let kept = "\
version: 1
ni:
- nid: 10.0.0.1@tcp
  addresses:
  - 1.2.3.5
  peers:
  - nid: 10.0.0.3@tcp
    routes:
    - address: 10.0.0.4
      shares: 1
  gateways:
  - nid: 10.0.0.9@tcp
    network: tcp3
    priority: 0
";
        assert_eq!(config.to_raw().to_yaml(), kept);
    }

    #[test]
    fn ipv6_is_served() {
        let text = "{version: 1, ni: [{nid: 'fd00::1@tcp', addresses: ['fd00::3/64'], \
                    peers: [{nid: 'fd00::2@tcp', routes: [{address: 'fd00::4'}]}]}]}";
        let config = parsed(text);
        assert_eq!(config.nis[0].addresses[0].to_string(), "fd00::3/64");
    }

    #[test]
    fn addresses_are_limited() {
        let addresses: Vec<_> = (1..=16).map(|i| format!("10.1.0.{i}")).collect();
        let text = |count: usize| {
            let list = addresses[..count].join(", ");
            format!("{{version: 1, ni: [{{nid: 10.0.0.1@tcp, addresses: [{list}]}}]}}")
        };
        assert_eq!(parsed(&text(15)).nis[0].addresses.len(), 15);
        problems(&text(16), &["more than 15"]);
    }
}
