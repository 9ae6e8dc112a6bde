// SPDX-License-Identifier: GPL-2.0

//! Sockets that another part of the kernel claims.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bpf::{SockOps, When};
use crate::command::run;
use crate::lab::Lab;
use crate::wait;

const LIMIT: Duration = Duration::from_secs(20);

/// A BPF program puts each connection into a sockmap before it is accepted. Such a connection is
/// refused, and the log names the owner. All other connections work, and sockets of the module
/// can't be put into a sockmap.
pub fn sockmap(lab: &mut Lab) -> Result<()> {
    let (node, taken, known) = (lab.node(0), lab.node(1), lab.node(2));
    lab.connect(3)?;
    known.ping(node)?;
    let before = node.counter("/errors/handshake")?;

    let program = SockOps::attach(When::Passive)?;
    let refused = taken.try_ping(node, Duration::from_secs(3))?;
    ensure!(
        !refused.status.success(),
        "a socket that is taken was used: {}",
        refused.stdout
    );
    wait::until(LIMIT, "the refusal counted", || {
        let errors = node.counter("/errors/handshake")?;
        ensure!(errors > before, "still {errors}");
        Ok(())
    })?;
    ensure!(
        node.conns_to(taken)?.is_empty(),
        "there is a connection all the same"
    );
    let log = run(&mut Command::new("dmesg"), "", LIMIT)?.stdout;
    ensure!(
        log.contains("its socket was taken by a BPF program (sockmap)"),
        "no word of it in the log"
    );
    known.ping(node)?;
    node.close_conns()?;
    wait::until(LIMIT, "closed", || {
        let left = known.conns_to(node)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    drop(program);
    wait::until(LIMIT, "connected without the program", || taken.ping(node))?;

    node.close_conns()?;
    wait::until(LIMIT, "closed", || {
        let left = taken.conns_to(node)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    let _program = SockOps::attach(When::Active)?;
    wait::until(LIMIT, "connected in spite of the program", || {
        taken.ping(node)
    })?;
    node.close_conns()
}
