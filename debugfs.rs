// SPDX-License-Identifier: GPL-2.0

//! Statistics and fault injection for developers, in `/sys/kernel/debug/socklnd`.
//!
//! Debugfs belongs to the machine's root and knows no namespaces: `stats` shows the NIs of all namespaces.
//! It consists of headings, each followed by lines of a name and a value; indentation shows what belongs to a
//! heading. Names may be added, but are not changed. Nothing here is shared: the text is made
//! from the counters when it is read, and no lock is held meanwhile.

use crate::{
    conn::Conn,
    fault,
    layer,
    lib_linux::debugfs::{
        Dir,
        Text, //
    },
    ni::Ni,
    peer::Peer,
    stats::Counter,
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

/// Creates the files, until the result is dropped. May sleep.
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

/// A value as `u64`; 0 if it does not fit.
pub(crate) fn count(value: impl TryInto<u64>) -> u64 {
    value.try_into().unwrap_or(0)
}

/// Writes the counters with their names.
pub(crate) fn show_counters<'a>(
    out: &SeqFile,
    indent: &str,
    counters: impl Iterator<Item = (&'static str, &'a Counter)>,
) {
    for (name, counter) in counters {
        seq_print!(out, "{indent}{name} {}\n", counter.get());
    }
}

/// Writes the statistics of the module. May sleep.
fn show_stats(out: &SeqFile) {
    let Some(lnd) = LND.get() else { return };
    if show_all(out, &lnd).is_err() {
        // Out of memory for the list of NIs or peers.
        seq_print!(out, "incomplete\n");
    }
}

fn show_all(out: &SeqFile, lnd: &Lnd) -> Result {
    let nis = lnd.all_nis()?;
    let [busy, idle] = lnd.reaper().list_lens();
    let [busy_checks, idle_checks] = lnd.reaper().checks();
    seq_print!(out, "node\n");
    lines(
        out,
        "  ",
        &[
            ("nis", count(nis.len())),
            (
                "handshake_queue_peak",
                count(lnd.autoconnect().queue_peak()),
            ),
            ("busy_peers", count(busy)),
            ("busy_checks", busy_checks),
            ("idle_peers", count(idle)),
            ("idle_checks", idle_checks),
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
        // A node is shown once, with its first NI.
        if !nis.iter().take(index).any(|other| other.net() == ni.net()) {
            layer::debugfs::show_node(out, ni.net());
        }
        show_ni(out, ni)?;
    }
    Ok(())
}

fn show_ni(out: &SeqFile, ni: &Arc<Ni>) -> Result {
    seq_print!(out, "ni {} namespace {}\n", ni.nid(), ni.net().inode());
    show_counters(out, "  ", ni.ledger().total().all());
    show_counters(out, "  ", ni.events().all());
    layer::debugfs::show_ni(out, ni.net(), ni.nid());
    let live = ni.live();
    lines(
        out,
        "  ",
        &[
            ("conns_per_peer", ni.conns_per_peer().into()),
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

fn show_peer(out: &SeqFile, peer: &Arc<Peer>) -> Result {
    let info = peer.snapshot()?;
    seq_print!(out, "peer {} of {}\n", peer.nid(), peer.ni().nid());
    show_counters(out, "  ", peer.total_traffic().all());
    show_counters(out, "  ", peer.events().all());
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
    show_counters(out, "    ", conn.traffic().all());
    let (full, enomem) = conn.waits();
    lines(
        out,
        "    ",
        &[
            ("protocol", conn.proto().number().into()),
            ("cpu", conn.cpu().into()),
            ("queued_bytes", conn.queued()),
            ("queued_bytes_peak", conn.queued_peak()),
            ("send_buffer_full", full),
            ("enomem", enomem),
        ],
    );
    // The options that the socket has; a connection that is being closed has no socket.
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
