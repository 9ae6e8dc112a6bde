// SPDX-License-Identifier: GPL-2.0

//! The embedded message layer's part of the statistics in debugfs, see [`crate::debugfs`].
//!
//! There is no state here.

use super::{
    LocalNi,
    LAYER, //
};
use crate::{
    debugfs::{
        count,
        lines,
        show_counters, //
    },
    fwd::Forwarder,
    lib_linux::netns::Net,
    wire::Nid, //
};
use kernel::{
    seq_file::SeqFile,
    seq_print, //
};

/// Writes the counters of the NI with this NID in `net` for debugfs. Thread context.
pub(crate) fn show_ni(out: &SeqFile, net: &Net, nid: Nid) {
    if let Some(local) = LocalNi::find(net, nid) {
        show_counters(out, "  ", local.counters().all());
    }
}

/// Writes the state of the node `net` for debugfs. Thread context.
pub(crate) fn show_node(out: &SeqFile, net: &Net) {
    if let Some(node) = LAYER.get().and_then(|layer| layer.find_node(net)) {
        show_forwarder(out, node.forwarder());
    }
}

/// The forwarding of one node.
fn show_forwarder(out: &SeqFile, forwarder: &Forwarder) {
    let info = forwarder.info();
    seq_print!(out, "forwarding namespace {}\n", forwarder.net().inode());
    lines(out, "  ", &[("on", info.is_enabled.into())]);
    for (name, pool) in [("small", &info.small), ("large", &info.large)] {
        seq_print!(out, "  pool {name}\n");
        lines(
            out,
            "    ",
            &[
                ("bytes", count(pool.bytes)),
                ("buffers", count(pool.buffers)),
                ("busy", count(pool.busy)),
                ("waiting", count(pool.waiting)),
                ("waits", pool.waits),
            ],
        );
    }
}
