// SPDX-License-Identifier: GPL-2.0

//! Commands about peers and routes.

use crate::{
    address::{Pattern, Shown, address_from_uapi, address_to_uapi, nid_to_uapi, socket_from_uapi},
    device::{self, Driver},
    error::{Action, Error},
    repo::wire::Nid,
    report::{Quiet, Report, or_dash, table},
    uapi,
    units::milliseconds,
};
use serde::Serialize;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The peer that was added.
#[derive(Debug, Serialize)]
pub(crate) struct Added {
    nid: Shown,
}

pub(crate) fn add(
    driver: &impl Driver,
    ni: Pattern,
    nid: Nid,
    address: Option<IpAddr>,
    port: Option<u16>,
) -> Result<Quiet<Added>, Error> {
    let mut arg = uapi::socklnd_peer_add {
        ni: ni.to_uapi(),
        nid: nid_to_uapi(nid),
        addr: address_to_uapi(address),
        port: port.unwrap_or_default(),
        ..Default::default()
    };
    driver
        .call(&device::PEER_ADD, &mut arg)
        .map_err(|errno| Error::request(Action::PeerAdd, format!("add peer {nid}"), errno))?;
    Ok(Quiet(Added {
        nid: (&arg.nid).into(),
    }))
}

/// `peer 10.0.0.2@tcp at 10.0.0.3`
pub(super) fn target(noun: &str, nid: Pattern, address: Option<IpAddr>) -> String {
    let place = |address: IpAddr| format!(" at {address}");
    format!("{noun} {nid}{}", address.map(place).unwrap_or_default())
}

/// How many objects were affected.
#[derive(Debug, Serialize)]
pub(crate) struct Count {
    pub(super) count: u32,
    #[serde(skip)]
    pub(super) what: &'static str,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.count, self.what)
    }
}

impl Report for Count {
    fn text(&self) -> String {
        self.to_string()
    }
}

/// What is deleted of each peer that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// All of it.
    All,
    /// One addition.
    Single,
    /// One addition, without closing connections.
    Undo,
}

pub(crate) fn del(
    driver: &impl Driver,
    ni: Pattern,
    nid: Pattern,
    address: Option<IpAddr>,
    what: Deletion,
) -> Result<Count, Error> {
    let mut arg = uapi::socklnd_peer_del {
        ni: ni.to_uapi(),
        nid: nid.to_uapi(),
        addr: address_to_uapi(address),
        flags: match what {
            Deletion::All => 0,
            Deletion::Single => uapi::SOCKLND_PEER_DEL_SINGLE,
            Deletion::Undo => uapi::SOCKLND_PEER_DEL_SINGLE | uapi::SOCKLND_PEER_DEL_KEEP,
        },
        ..Default::default()
    };
    driver.call(&device::PEER_DEL, &mut arg).map_err(|errno| {
        let what = format!("delete {}", target("peer", nid, address));
        Error::request(Action::PeerDel, what, errno)
    })?;
    Ok(Count {
        count: arg.count,
        what: "peer",
    })
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Peers(Vec<Peer>);

#[derive(Debug, Serialize)]
struct Peer {
    ni: Shown,
    nid: Shown,
    state: &'static str,
    conns: u32,
    share_count: u32,
    queued_txs: u32,
    /// When it was started, by its HELLO; `null` if it is not connected.
    incarnation_us: Option<u64>,
    /// How long ago data was received from it.
    idle_ms: u64,
    routes: Vec<Route>,
}

#[derive(Debug, Serialize)]
struct Route {
    /// Address and port; `null` if the module wrote an address of another kind.
    address: Option<SocketAddr>,
    /// The address of this node that it connects from; `null` while none was chosen.
    local: Option<IpAddr>,
    share_count: u32,
    connecting: bool,
    conns: u32,
    /// Connections it has opened so far.
    opened: u64,
}

impl From<&uapi::socklnd_peer_entry> for Peer {
    fn from(entry: &uapi::socklnd_peer_entry) -> Self {
        Self {
            ni: (&entry.ni).into(),
            nid: (&entry.nid).into(),
            state: match entry.state {
                uapi::SOCKLND_PEER_IDLE => "idle",
                uapi::SOCKLND_PEER_CONNECTING => "connecting",
                uapi::SOCKLND_PEER_UP => "up",
                _ => "?",
            },
            conns: entry.conns,
            share_count: entry.share_count,
            queued_txs: entry.txs,
            incarnation_us: Some(entry.incarnation_us).filter(|us| *us != 0),
            idle_ms: entry.idle_ms,
            routes: Vec::new(),
        }
    }
}

impl Route {
    fn new(entry: &uapi::socklnd_peer_entry) -> Option<Self> {
        (entry.flags & uapi::SOCKLND_PEER_HAS_ROUTE != 0).then(|| Self {
            address: socket_from_uapi(&entry.route_addr, entry.route_port),
            local: address_from_uapi(&entry.route_local),
            share_count: entry.route_share_count,
            connecting: entry.flags & uapi::SOCKLND_PEER_ROUTE_CONNECTING != 0,
            conns: entry.route_conns,
            opened: entry.route_opened,
        })
    }

    fn state(&self) -> &'static str {
        if self.connecting {
            "connecting"
        } else if self.conns > 0 {
            "up"
        } else {
            "-"
        }
    }
}

/// Peers from entries, of which those for routes of one peer are adjacent.
impl FromIterator<uapi::socklnd_peer_entry> for Peers {
    fn from_iter<I: IntoIterator<Item = uapi::socklnd_peer_entry>>(entries: I) -> Self {
        let mut peers: Vec<Peer> = Vec::new();
        for entry in entries {
            let next = Peer::from(&entry);
            if !peers
                .last()
                .is_some_and(|last| last.ni == next.ni && last.nid == next.nid)
            {
                peers.push(next);
            }
            if let Some(peer) = peers.last_mut() {
                peer.routes.extend(Route::new(&entry));
            }
        }
        peers.sort_by(|a, b| (&a.ni, &a.nid).cmp(&(&b.ni, &b.nid)));
        Self(peers)
    }
}

impl Report for Peers {
    fn text(&self) -> String {
        let titles = [
            "nid",
            "state",
            "conns>",
            "shares>",
            "queued>",
            "last alive",
            "route",
            "from",
            "shares>",
            "route state",
        ];
        let rows = self.0.iter().flat_map(|peer| {
            // At least one line; the peer's own values only in the first.
            (0..peer.routes.len().max(1)).map(move |index| {
                let own = |value: String| if index == 0 { value } else { String::new() };
                let route = peer.routes.get(index);
                [
                    own(peer.nid.to_string()),
                    own(peer.state.to_string()),
                    own(peer.conns.to_string()),
                    own(peer.share_count.to_string()),
                    own(peer.queued_txs.to_string()),
                    own(format!("{} ago", milliseconds(peer.idle_ms))),
                    or_dash(route.and_then(|route| route.address)),
                    or_dash(route.and_then(|route| route.local)),
                    or_dash(route.map(|route| route.share_count)),
                    or_dash(route.map(Route::state)),
                ]
            })
        });
        table(titles, rows)
    }
}

pub(crate) fn list(driver: &impl Driver, ni: Pattern) -> Result<Peers, Error> {
    let entries = driver
        .list(&device::PEER_LIST, ni.to_uapi())
        .map_err(|errno| Error::request(Action::List, "list peers", errno))?;
    Ok(entries.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fake::Fake;
    use rustix::io::Errno;
    use serde_json::json;

    #[test]
    fn what_is_not_said_is_left_to_the_module() {
        let fake = Fake::new(|_, arg| {
            let arg = arg.downcast_ref::<uapi::socklnd_peer_add>().unwrap();
            assert_eq!((arg.ni.lnd, arg.port, arg.addr.family), (0, 0, 0));
            Ok(())
        });
        add(
            &fake,
            Pattern::Any,
            "10.0.0.2@tcp".parse().unwrap(),
            None,
            None,
        )
        .unwrap();
    }

    #[test]
    fn deleting_counts() {
        let fake = Fake::new(|_, arg| {
            let arg = arg.downcast_mut::<uapi::socklnd_peer_del>().unwrap();
            assert_eq!(arg.flags, uapi::SOCKLND_PEER_DEL_SINGLE);
            arg.count = 1;
            Ok(())
        });
        let count = del(&fake, Pattern::Any, Pattern::Any, None, Deletion::Single).unwrap();
        assert_eq!(count.text(), "1 peer");
        assert_eq!(
            Count {
                count: 0,
                what: "peer"
            }
            .text(),
            "0 peers"
        );
        assert_eq!(serde_json::to_value(&count).unwrap(), json!({"count": 1}));
    }

    #[test]
    fn a_refusal_names_peer_and_address() {
        let fake = Fake::new(|_, _| Err(Errno::NOENT));
        let nid = "10.0.0.2@tcp".parse().unwrap();
        let error = del(
            &fake,
            Pattern::Any,
            nid,
            Some([10, 0, 0, 9].into()),
            Deletion::All,
        )
        .unwrap_err();
        let start = "can't delete peer 10.0.0.2@tcp at 10.0.0.9: ";
        assert!(error.to_string().starts_with(start), "{error}");
    }

    fn entry(nid: &str, route: Option<&str>) -> uapi::socklnd_peer_entry {
        uapi::socklnd_peer_entry {
            ni: nid_to_uapi("10.0.0.1@tcp".parse().unwrap()),
            nid: nid_to_uapi(nid.parse().unwrap()),
            state: uapi::SOCKLND_PEER_UP,
            flags: if route.is_some() {
                uapi::SOCKLND_PEER_HAS_ROUTE
            } else {
                0
            },
            idle_ms: 2500,
            route_addr: address_to_uapi(route.map(|addr| addr.parse().unwrap())),
            route_port: 988,
            ..Default::default()
        }
    }

    #[test]
    fn routes_are_put_under_their_peers() {
        let peers: Peers = [
            entry("10.0.0.2@tcp", Some("10.0.0.2")),
            entry("10.0.0.2@tcp", Some("192.168.0.2")),
            entry("10.0.0.3@tcp", None),
            entry("10.0.0.4@tcp", Some("10.0.0.4")),
        ]
        .into_iter()
        .collect();
        let routes: Vec<_> = peers.0.iter().map(|peer| peer.routes.len()).collect();
        assert_eq!(routes, [2, 0, 1]);
        let text = peers.text();
        assert_eq!(text.lines().count(), 5);
        assert!(text.lines().nth(2).unwrap().starts_with("    "), "{text}");
        assert!(text.lines().nth(3).unwrap().contains("2.5 s ago"), "{text}");
    }

    #[test]
    fn peers_as_json() {
        let mut entry = entry("10.0.0.2@tcp", Some("10.0.0.2"));
        entry.flags |= uapi::SOCKLND_PEER_ROUTE_CONNECTING;
        entry.route_local = address_to_uapi(Some([10, 0, 0, 1].into()));
        let peers: Peers = [entry].into_iter().collect();
        assert_eq!(
            serde_json::to_value(&peers).unwrap(),
            json!([{
                "ni": "10.0.0.1@tcp", "nid": "10.0.0.2@tcp", "state": "up", "conns": 0,
                "share_count": 0, "queued_txs": 0, "incarnation_us": null, "idle_ms": 2500,
                "routes": [{
                    "address": "10.0.0.2:988", "local": "10.0.0.1", "share_count": 0, "connecting": true, "conns": 0,
                    "opened": 0,
                }],
            }])
        );
    }
}
