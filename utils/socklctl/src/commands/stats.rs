// SPDX-License-Identifier: GPL-2.0

//! The command `stats`.

mod openmetrics;
mod watch;

pub(crate) use openmetrics::OpenMetrics;
pub(crate) use watch::run as watch;

use super::conn::Traffic;
use crate::{
    address::{Pattern, Shown},
    device::{self, Driver},
    error::{Action, Error},
    report::{Report, table},
    uapi,
    units::bytes,
};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Stats(Vec<Ni>);

#[derive(Debug, Serialize)]
struct Ni {
    nid: Shown,
    tx: Traffic,
    rx: Traffic,
    connects: u64,
    accepts: u64,
    refusals: u64,
    drops: u64,
    misrouted: u64,
    zero_copy: ZeroCopy,
    forwarding: Forwarding,
    errors: Errors,
    live: Live,
}

/// What was sent without copying it.
#[derive(Debug, Serialize)]
struct ZeroCopy {
    msgs: u64,
    bytes: u64,
    copied: u64,
}

/// Counts of messages that were forwarded, and of those that were not.
#[derive(Debug, Serialize)]
struct Forwarding {
    msgs: u64,
    bytes: u64,
    failed: u64,
    /// Causes of misrouted messages.
    forged: u64,
    direct: u64,
    off: u64,
    no_route: u64,
    back: u64,
}

/// Errors, by cause.
#[derive(Debug, Serialize)]
struct Errors {
    connect: u64,
    handshake: u64,
    protocol: u64,
    disconnect: u64,
    timeout: u64,
    tx: u64,
    nomem: u64,
}

/// Objects that exist now.
#[derive(Debug, Serialize)]
struct Live {
    peers: u64,
    routes: u64,
    conns: u64,
    handshakes: u64,
    txs: u64,
}

/// Counters of one peer.
#[derive(Debug, Serialize)]
struct Peer {
    ni: Shown,
    nid: Shown,
    tx: Traffic,
    rx: Traffic,
    zero_copy: Traffic,
    attempts: u64,
    connects: u64,
    accepts: u64,
    misrouted: u64,
    errors: PeerErrors,
    queued_msgs: u64,
    queued_msgs_peak: u64,
    idle_ms: u64,
}

/// Errors with one peer, by cause.
#[derive(Debug, Serialize)]
struct PeerErrors {
    connect: u64,
    protocol: u64,
    disconnect: u64,
    timeout: u64,
    tx: u64,
    nomem: u64,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Peers(Vec<Peer>);

impl From<&uapi::socklnd_peer_stats_entry> for Peer {
    fn from(entry: &uapi::socklnd_peer_stats_entry) -> Self {
        let traffic = |msgs, bytes| Traffic { msgs, bytes };
        Self {
            ni: (&entry.ni).into(),
            nid: (&entry.nid).into(),
            tx: traffic(entry.tx_msgs, entry.tx_bytes),
            rx: traffic(entry.rx_msgs, entry.rx_bytes),
            zero_copy: traffic(entry.zc_msgs, entry.zc_bytes),
            attempts: entry.attempts,
            connects: entry.connects,
            accepts: entry.accepts,
            misrouted: entry.misrouted,
            errors: PeerErrors {
                connect: entry.err_connect,
                protocol: entry.err_protocol,
                disconnect: entry.err_disconnect,
                timeout: entry.err_timeout,
                tx: entry.err_tx,
                nomem: entry.err_nomem,
            },
            queued_msgs: entry.queued_msgs,
            queued_msgs_peak: entry.queued_msgs_peak,
            idle_ms: entry.idle_ms,
        }
    }
}

/// A line for each peer; the JSON form has more.
impl Report for Peers {
    fn text(&self) -> String {
        let titles = [
            "nid",
            "sent>",
            "bytes>",
            "received>",
            "bytes>",
            "made>",
            "accepted>",
            "failed>",
            "lost>",
            "timeouts>",
            "unsent>",
            "waiting>",
            "at most>",
        ];
        let rows = self.0.iter().map(|peer| {
            let lost = peer.errors.protocol.saturating_add(peer.errors.disconnect);
            [
                peer.nid.to_string(),
                peer.tx.msgs.to_string(),
                bytes(peer.tx.bytes),
                peer.rx.msgs.to_string(),
                bytes(peer.rx.bytes),
                peer.connects.to_string(),
                peer.accepts.to_string(),
                peer.errors.connect.to_string(),
                lost.to_string(),
                peer.errors.timeout.to_string(),
                peer.errors.tx.to_string(),
                peer.queued_msgs.to_string(),
                peer.queued_msgs_peak.to_string(),
            ]
        });
        table(titles, rows)
    }
}

pub(crate) fn peers(driver: &impl Driver, ni: Pattern) -> Result<Peers, Error> {
    let entries = driver
        .list(&device::PEER_STATS, ni.to_uapi())
        .map_err(|errno| Error::request(Action::List, "read the counters of peers", errno))?;
    let mut peers: Vec<_> = entries.iter().map(Peer::from).collect();
    peers.sort_by(|a, b| (&a.ni, &a.nid).cmp(&(&b.ni, &b.nid)));
    Ok(Peers(peers))
}

impl Errors {
    fn total(&self) -> u64 {
        let Self {
            connect,
            handshake,
            protocol,
            disconnect,
            timeout,
            tx,
            nomem,
        } = *self;
        [connect, handshake, protocol, disconnect, timeout, tx, nomem]
            .iter()
            .fold(0, |sum: u64, count| sum.saturating_add(*count))
    }
}

impl From<&uapi::socklnd_stats_entry> for Ni {
    fn from(entry: &uapi::socklnd_stats_entry) -> Self {
        Self {
            nid: (&entry.nid).into(),
            tx: Traffic {
                msgs: entry.tx_msgs,
                bytes: entry.tx_bytes,
            },
            rx: Traffic {
                msgs: entry.rx_msgs,
                bytes: entry.rx_bytes,
            },
            connects: entry.connects,
            accepts: entry.accepts,
            refusals: entry.refusals,
            drops: entry.drops,
            misrouted: entry.misrouted,
            zero_copy: ZeroCopy {
                msgs: entry.zc_msgs,
                bytes: entry.zc_bytes,
                copied: entry.zc_copied,
            },
            forwarding: Forwarding {
                msgs: entry.fwd_msgs,
                bytes: entry.fwd_bytes,
                failed: entry.fwd_failed,
                forged: entry.fwd_forged,
                direct: entry.fwd_direct,
                off: entry.fwd_off,
                no_route: entry.fwd_no_route,
                back: entry.fwd_back,
            },
            errors: Errors {
                connect: entry.err_connect,
                handshake: entry.err_handshake,
                protocol: entry.err_protocol,
                disconnect: entry.err_disconnect,
                timeout: entry.err_timeout,
                tx: entry.err_tx,
                nomem: entry.err_nomem,
            },
            live: Live {
                peers: entry.peers,
                routes: entry.routes,
                conns: entry.conns,
                handshakes: entry.handshakes,
                txs: entry.txs,
            },
        }
    }
}

/// A block of lines for each NI.
impl Report for Stats {
    fn text(&self) -> String {
        let blocks: Vec<String> = self.0.iter().map(Ni::text).collect();
        blocks.join("\n\n")
    }
}

impl Ni {
    fn text(&self) -> String {
        let Self {
            tx,
            rx,
            zero_copy,
            forwarding,
            errors,
            live,
            ..
        } = self;
        let rows = [
            ("messages sent", tx.msgs),
            ("bytes sent", tx.bytes),
            ("zero-copy messages sent", zero_copy.msgs),
            ("zero-copy bytes sent", zero_copy.bytes),
            ("zero-copy, but copied later", zero_copy.copied),
            ("messages received", rx.msgs),
            ("bytes received", rx.bytes),
            ("connections opened", self.connects),
            ("connections accepted", self.accepts),
            ("connections refused", self.refusals),
            ("messages dropped", self.drops),
            ("messages misrouted", self.misrouted),
            ("misrouted: wrong sender", forwarding.forged),
            ("misrouted: for a neighbour", forwarding.direct),
            ("misrouted: forwarding is off", forwarding.off),
            ("misrouted: no route", forwarding.no_route),
            ("misrouted: only the way back", forwarding.back),
            ("messages forwarded", forwarding.msgs),
            ("bytes forwarded", forwarding.bytes),
            ("not forwarded: failed", forwarding.failed),
            ("errors: connecting", errors.connect),
            ("errors: handshakes", errors.handshake),
            ("errors: protocol", errors.protocol),
            ("errors: disconnected", errors.disconnect),
            ("errors: timeouts", errors.timeout),
            ("errors: sending", errors.tx),
            ("errors: memory", errors.nomem),
            ("live peers", live.peers),
            ("live routes", live.routes),
            ("live connections", live.conns),
            ("live handshakes", live.handshakes),
            ("live transmits", live.txs),
        ];
        let nid = self.nid.to_string() + ">";
        table(
            ["", nid.as_str()],
            rows.map(|(name, value)| [name.to_string(), value.to_string()]),
        )
    }
}

pub(crate) fn list(driver: &impl Driver, ni: Pattern) -> Result<Stats, Error> {
    let entries = driver
        .list(&device::STATS, ni.to_uapi())
        .map_err(|errno| Error::request(Action::List, "read the counters", errno))?;
    Ok(Stats(entries.iter().map(Ni::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::nid_to_uapi, device::fake::Fake};

    #[test]
    fn counters_as_text_and_json() {
        let entry = uapi::socklnd_stats_entry {
            nid: nid_to_uapi("10.0.0.1@tcp".parse().unwrap()),
            tx_msgs: 7,
            err_handshake: 2,
            conns: 3,
            zc_copied: 5,
            ..Default::default()
        };
        let report = list(&Fake::lists(vec![vec![entry, entry]]), Pattern::Any).unwrap();
        let text = report.text();
        assert_eq!(text.matches("10.0.0.1@tcp").count(), 2);
        let row = text.lines().find(|line| line.starts_with("messages sent "));
        assert!(row.is_some_and(|row| row.ends_with(" 7")), "{text}");

        let json = serde_json::to_value(&report).unwrap();
        let first = &json[0];
        assert_eq!(first["nid"], "10.0.0.1@tcp");
        assert_eq!(first["tx"]["msgs"], 7);
        assert_eq!(first["errors"]["handshake"], 2);
        assert_eq!(first["live"]["conns"], 3);
        assert_eq!(first["zero_copy"]["copied"], 5);
        assert_eq!(first["drops"], 0);
    }

    #[test]
    fn peers_as_text_and_json() {
        let of = |nid: &str| uapi::socklnd_peer_stats_entry {
            nid: nid_to_uapi(nid.parse().unwrap()),
            rx_msgs: 7,
            err_protocol: 1,
            err_disconnect: 2,
            queued_msgs_peak: 12,
            ..Default::default()
        };
        let entries = vec![of("10.0.0.3@tcp"), of("10.0.0.2@tcp")];
        let report = peers(&Fake::lists(vec![entries]), Pattern::Any).unwrap();
        let text = report.text();
        let row = text.lines().nth(1).unwrap();
        assert!(
            row.starts_with("10.0.0.2@tcp ") && row.ends_with(" 12"),
            "{text}"
        );
        assert!(row.contains(" 3 "), "{text}");

        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json[1]["nid"], "10.0.0.3@tcp");
        assert_eq!(json[1]["rx"]["msgs"], 7);
        assert_eq!(json[1]["errors"]["disconnect"], 2);
        assert_eq!(json[1]["queued_msgs_peak"], 12);
    }
}
