// SPDX-License-Identifier: GPL-2.0

//! LNet's part of the statistics in debugfs, see [`crate::debugfs`]: none.
//!
//! There is no state here.

use crate::{
    lib_linux::netns::Net,
    wire::Nid, //
};
use kernel::seq_file::SeqFile;

/// Writes the counters of this layer for debugfs: it has none.
pub(crate) fn show_ni(_out: &SeqFile, _net: &Net, _nid: Nid) {}

/// Writes the state of a node for debugfs: LNet knows it.
pub(crate) fn show_node(_out: &SeqFile, _net: &Net) {}
