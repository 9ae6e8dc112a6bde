// SPDX-License-Identifier: GPL-2.0

//! Counters in the text format of OpenMetrics, which Prometheus's node exporter reads from a file.

use super::{Ni, Peer, Peers, Stats, Traffic};
use crate::report::Report;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use serde::Serialize;

type Labels = Vec<(&'static str, String)>;
type Value<T> = fn(&T) -> u64;

/// All metrics, as text.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct OpenMetrics(String);

impl Report for OpenMetrics {
    fn text(&self) -> String {
        self.0.trim_end().to_string()
    }
}

/// Metrics about objects of one kind, each with labels of its own.
struct Page<'a, T> {
    registry: Registry,
    objects: Vec<(Labels, &'a T)>,
}

impl<'a, T> Page<'a, T> {
    fn new(prefix: &str, objects: &'a [T], labels: fn(&T) -> Labels) -> Self {
        Self {
            registry: Registry::with_prefix(prefix),
            objects: objects.iter().map(|of| (labels(of), of)).collect(),
        }
    }

    /// A counter, with the unit of what it counts if there is one.
    fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, value: impl Fn(&T) -> u64) {
        let family = Family::<Labels, Counter>::default();
        for (labels, object) in &self.objects {
            family.get_or_create(labels).inc_by(value(object));
        }
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, family),
            None => self.registry.register(name, help, family),
        }
    }

    /// Messages and bytes each way.
    fn traffic(&mut self, tx: fn(&T) -> &Traffic, rx: fn(&T) -> &Traffic) {
        let bytes = || Some(Unit::Bytes);
        self.counter("sent_messages", "Messages sent", None, |of| tx(of).msgs);
        self.counter("sent", "Bytes sent", bytes(), |of| tx(of).bytes);
        self.counter("received_messages", "Messages received", None, |of| {
            rx(of).msgs
        });
        self.counter("received", "Bytes received", bytes(), |of| rx(of).bytes);
    }

    /// Counters that differ by their cause.
    fn by_cause(&mut self, name: &str, help: &str, values: &[(&'static str, Value<T>)]) {
        let family = Family::<Labels, Counter>::default();
        for (labels, object) in &self.objects {
            for (cause, value) in values {
                let mut labels = labels.clone();
                labels.push(("cause", (*cause).to_string()));
                family.get_or_create(&labels).inc_by(value(object));
            }
        }
        self.registry.register(name, help, family);
    }

    /// A number of objects that exist now.
    fn gauge(&mut self, name: &str, help: &str, value: Value<T>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, object) in &self.objects {
            let value = i64::try_from(value(object)).unwrap_or(i64::MAX);
            family.get_or_create(labels).set(value);
        }
        self.registry.register(name, help, family);
    }

    fn finish(&self) -> OpenMetrics {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = encode(&mut text, &self.registry);
        OpenMetrics(text)
    }
}

impl From<&Stats> for OpenMetrics {
    fn from(stats: &Stats) -> Self {
        let labels = |ni: &Ni| vec![("nid", ni.nid.to_string())];
        let mut page = Page::new("socklnd", &stats.0, labels);
        let bytes = || Some(Unit::Bytes);
        page.traffic(|ni| &ni.tx, |ni| &ni.rx);
        page.counter(
            "zero_copy_sent",
            "Bytes sent without a copy",
            bytes(),
            |ni| ni.zero_copy.bytes,
        );
        page.counter("connects", "Connections opened", None, |ni| ni.connects);
        page.counter("accepts", "Connections accepted", None, |ni| ni.accepts);
        page.counter("refusals", "Connections refused", None, |ni| ni.refusals);
        page.counter("dropped_messages", "Messages dropped", None, |ni| ni.drops);
        page.counter(
            "misrouted_messages",
            "Messages that should not have been sent to this node",
            None,
            |ni| ni.misrouted,
        );
        page.counter("forwarded_messages", "Messages forwarded", None, |ni| {
            ni.forwarding.msgs
        });
        page.counter("forwarded", "Bytes forwarded", bytes(), |ni| {
            ni.forwarding.bytes
        });
        page.by_cause(
            "errors",
            "Errors by cause",
            &[
                ("connect", |ni| ni.errors.connect),
                ("handshake", |ni| ni.errors.handshake),
                ("protocol", |ni| ni.errors.protocol),
                ("disconnect", |ni| ni.errors.disconnect),
                ("timeout", |ni| ni.errors.timeout),
                ("send", |ni| ni.errors.tx),
                ("memory", |ni| ni.errors.nomem),
            ],
        );
        page.gauge("peers", "Peers", |ni| ni.live.peers);
        page.gauge("routes", "Addresses of peers", |ni| ni.live.routes);
        page.gauge("connections", "Connections", |ni| ni.live.conns);
        page.gauge("handshakes", "Handshakes under way", |ni| {
            ni.live.handshakes
        });
        page.gauge("transmits", "Messages that are being sent", |ni| {
            ni.live.txs
        });
        page.finish()
    }
}

impl From<&Peers> for OpenMetrics {
    fn from(peers: &Peers) -> Self {
        let labels =
            |peer: &Peer| vec![("nid", peer.ni.to_string()), ("peer", peer.nid.to_string())];
        let mut page = Page::new("socklnd_peer", &peers.0, labels);
        page.traffic(|peer| &peer.tx, |peer| &peer.rx);
        page.counter("connects", "Connections opened", None, |peer| peer.connects);
        page.counter("accepts", "Connections accepted", None, |peer| peer.accepts);
        page.by_cause(
            "errors",
            "Errors by cause",
            &[
                ("connect", |peer| peer.errors.connect),
                ("protocol", |peer| peer.errors.protocol),
                ("disconnect", |peer| peer.errors.disconnect),
                ("timeout", |peer| peer.errors.timeout),
                ("send", |peer| peer.errors.tx),
                ("memory", |peer| peer.errors.nomem),
            ],
        );
        page.gauge(
            "queued_messages",
            "Messages that wait for a connection",
            |peer| peer.queued_msgs,
        );
        page.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::{Pattern, nid_to_uapi},
        commands::stats::{list, peers},
        device::fake::Fake,
        uapi,
    };

    #[test]
    fn names_and_units_are_those_of_openmetrics() {
        let of = |nid: &str, bytes| uapi::socklnd_stats_entry {
            nid: nid_to_uapi(nid.parse().unwrap()),
            tx_bytes: bytes,
            err_timeout: 3,
            conns: 4,
            ..Default::default()
        };
        let entries = vec![of("10.0.0.1@tcp", 70), of("10.0.0.2@tcp1", 80)];
        let stats = list(&Fake::lists(vec![entries]), Pattern::Any).unwrap();
        let text = OpenMetrics::from(&stats).text();
        for line in [
            "# TYPE socklnd_sent_bytes counter",
            "# UNIT socklnd_sent_bytes bytes",
            "socklnd_sent_bytes_total{nid=\"10.0.0.1@tcp\"} 70",
            "socklnd_sent_bytes_total{nid=\"10.0.0.2@tcp1\"} 80",
            "socklnd_errors_total{nid=\"10.0.0.1@tcp\",cause=\"timeout\"} 3",
            "# TYPE socklnd_connections gauge",
            "socklnd_connections{nid=\"10.0.0.1@tcp\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line}: {text}");
        }
        assert!(text.ends_with("# EOF"), "{text}");
    }

    #[test]
    fn peers_have_two_labels() {
        let entry = uapi::socklnd_peer_stats_entry {
            ni: nid_to_uapi("10.0.0.1@tcp".parse().unwrap()),
            nid: nid_to_uapi("10.0.0.3@tcp".parse().unwrap()),
            rx_msgs: 7,
            ..Default::default()
        };
        let peers = peers(&Fake::lists(vec![vec![entry]]), Pattern::Any).unwrap();
        let text = OpenMetrics::from(&peers).text();
        let line =
            "socklnd_peer_received_messages_total{nid=\"10.0.0.1@tcp\",peer=\"10.0.0.3@tcp\"} 7";
        assert!(text.contains(line), "{text}");
    }
}
