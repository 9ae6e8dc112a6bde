// SPDX-License-Identifier: GPL-2.0

//! What developers see: statistics, and test hooks, in `/sys/kernel/debug/socklnd`.
//!
//! Debugfs belongs to the machine's root and knows no namespaces: `stats` shows the interfaces of
//! all. It is a text of headings, each followed by lines of a name and a value, indented by what
//! belongs to what. Names may be added; they are not renamed. Nothing here is shared: a text is made
//! from what the counters say at that moment, and no lock is held while it is.

use crate::{
    conn::Conn,
    fault,
    layer::door,
    lib_linux::debugfs::{
        Dir,
        Text, //
    },
    ni::Ni,
    peer::Peer,
    stats::{
        Events,
        Traffic, //
    },
    wire::ConnType,
    Lnd,
    LND, //
};
use kernel::{
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::Arc, //
};

static STATS: Text = Text(show_stats);

/// Makes the files. They go when the result is dropped. May sleep.
pub(crate) fn register() -> Dir {
    let dir = Dir::new(c"socklnd");
    dir.text(c"stats", &STATS);
    dir.knob(c"enomem_tx", &fault::ENOMEM_TX);
    dir.knob(c"enomem_accept", &fault::ENOMEM_ACCEPT);
    dir.knob(c"enomem_handshake", &fault::ENOMEM_HANDSHAKE);
    dir.knob(c"stall_tx", &fault::STALL_TX);
    dir.knob(c"stall_rx", &fault::STALL_RX);
    dir.knob(c"stall_reaper", &fault::STALL_REAPER);
    dir.knob(c"hold_connect", &fault::HOLD_CONNECT);
    dir
}

/// Writes lines of a name and a value.
pub(crate) fn lines(out: &SeqFile, indent: &str, values: &[(&str, u64)]) {
    for (name, value) in values {
        seq_print!(out, "{indent}{name} {value}\n");
    }
}

/// What is never negative, though its type could be.
pub(crate) fn count(value: impl TryInto<u64>) -> u64 {
    value.try_into().unwrap_or(0)
}

/// Writes the statistics of the whole module. May sleep.
fn show_stats(out: &SeqFile) {
    let Some(lnd) = LND.get() else { return };
    if show_all(out, &lnd).is_err() {
        // There are too many interfaces or peers for what memory there is.
        seq_print!(out, "incomplete\n");
    }
}

fn show_all(out: &SeqFile, lnd: &Lnd) -> Result {
    let nis = lnd.all_nis()?;
    let [busy, resting] = lnd.reaper().list_lens();
    let [busy_looks, resting_looks] = lnd.reaper().looks();
    seq_print!(out, "node\n");
    lines(
        out,
        "  ",
        &[
            ("interfaces", count(nis.len())),
            (
                "handshake_queue_peak",
                count(lnd.autoconnect().queue_peak()),
            ),
            ("busy_peers", count(busy)),
            ("busy_looks", busy_looks),
            ("resting_peers", count(resting)),
            ("resting_looks", resting_looks),
            ("zc_batches", count(lnd.zc_batches())),
        ],
    );
    for sched in lnd.scheds() {
        seq_print!(out, "  scheduler {}\n", sched.cpu());
        lines(
            out,
            "    ",
            &[
                ("conns", count(sched.nconns())),
                ("queue_peak", count(sched.queue_peak())),
            ],
        );
    }
    for (index, ni) in nis.iter().enumerate() {
        // Once for each node: with its first interface.
        if !nis.iter().take(index).any(|other| other.net() == ni.net()) {
            door::show_node(out, ni.net());
        }
        show_ni(out, ni)?;
    }
    Ok(())
}

fn show_ni(out: &SeqFile, ni: &Arc<Ni>) -> Result {
    seq_print!(
        out,
        "interface {} namespace {}\n",
        ni.nid(),
        ni.net().inode()
    );
    show_traffic(out, &ni.ledger().total());
    show_events(out, ni.events());
    door::show_interface(out, ni.net(), ni.nid());
    let live = ni.live();
    lines(
        out,
        "  ",
        &[
            ("refusals", ni.events().refusals.get()),
            ("bad_handshakes", ni.events().bad_handshakes.get()),
            ("strangers_refused", ni.events().strangers_refused.get()),
            ("strangers_closed", ni.events().strangers_closed.get()),
            ("calls_refused", ni.events().calls_refused.get()),
            ("conns_per_peer", ni.conns_per_peer().into()),
            ("link_changes", ni.events().link_changes.get()),
            ("peers", count(live.peers().get())),
            ("conns", count(live.conns().get())),
            ("handshakes", count(live.handshakes().get())),
            ("txs", count(live.txs().get())),
        ],
    );
    for peer in ni.peers().collect()?.iter() {
        show_peer(out, peer)?;
    }
    Ok(())
}

/// For interfaces and for peers, which are told apart by their headings.
fn show_traffic(out: &SeqFile, traffic: &Traffic) {
    lines(
        out,
        "  ",
        &[
            ("tx_msgs", traffic.tx_msgs.get()),
            ("tx_bytes", traffic.tx_bytes.get()),
            ("rx_msgs", traffic.rx_msgs.get()),
            ("rx_bytes", traffic.rx_bytes.get()),
        ],
    );
}

fn show_events(out: &SeqFile, events: &Events) {
    lines(
        out,
        "  ",
        &[
            ("connect_attempts", events.attempts.get()),
            ("connect_failures", events.connect_failures.get()),
            ("connects", events.connects.get()),
            ("accepts", events.accepts.get()),
            ("misrouted", events.misrouted.get()),
            ("protocol_errors", events.protocol_errors.get()),
            ("disconnects", events.disconnects.get()),
            ("timeouts", events.timeouts.get()),
            ("tx_errors", events.tx_errors.get()),
            ("enomem", events.enomem.get()),
        ],
    );
}

fn show_peer(out: &SeqFile, peer: &Arc<Peer>) -> Result {
    let info = peer.snapshot()?;
    seq_print!(out, "peer {} of {}\n", peer.nid(), peer.ni().nid());
    show_traffic(out, &peer.total_traffic());
    show_events(out, peer.events());
    let (unacked, acked) = peer.zc_req_counts();
    lines(
        out,
        "  ",
        &[
            ("queued_msgs", count(info.queued)),
            ("queued_msgs_peak", count(info.queued_peak)),
            ("unacked_msgs", unacked),
            ("acked_msgs", acked),
        ],
    );
    for route in info.routes.iter() {
        seq_print!(out, "  route {:?}\n", route.addr);
        lines(
            out,
            "    ",
            &[
                ("shares", route.shares.into()),
                ("attempts", route.attempts),
                ("failures", route.failures),
                ("opened", route.opened),
            ],
        );
    }
    for conn in info.conns.iter() {
        show_conn(out, conn);
    }
    Ok(())
}

fn show_conn(out: &SeqFile, conn: &Conn) {
    let kind = match conn.kind() {
        ConnType::Any => "any",
        ConnType::Control => "control",
        ConnType::BulkIn => "bulk_in",
        ConnType::BulkOut => "bulk_out",
    };
    seq_print!(
        out,
        "  conn {} {:?} {:?}\n",
        kind,
        conn.local(),
        conn.remote()
    );
    let traffic = conn.traffic();
    let (full, enomem) = conn.waits();
    lines(
        out,
        "    ",
        &[
            ("protocol", conn.proto().number().into()),
            ("cpu", conn.cpu().into()),
            ("tx_msgs", traffic.tx_msgs.get()),
            ("tx_bytes", traffic.tx_bytes.get()),
            ("rx_msgs", traffic.rx_msgs.get()),
            ("rx_bytes", traffic.rx_bytes.get()),
            ("queued_bytes", conn.queued()),
            ("queued_bytes_peak", conn.queued_peak()),
            ("send_buffer_full", full),
            ("enomem", enomem),
        ],
    );
    // As the socket itself has them; one that is being closed has none any more.
    conn.with_socket(|socket| {
        let (idle, interval, probes) = socket.keepalive();
        lines(
            out,
            "    ",
            &[
                ("send_buffer", count(socket.sndbuf())),
                ("receive_buffer", count(socket.rcvbuf())),
                ("window_scale", socket.window_scale().into()),
                ("nagle", u64::from(!socket.nodelay())),
                ("keepalive_idle", count(idle)),
                ("keepalive_intvl", count(interval)),
                ("keepalive_count", count(probes)),
                ("tos", count(socket.tos())),
            ],
        );
    });
}
