// SPDX-License-Identifier: GPL-2.0

//! Requests about peers, their addresses and their connections.
//!
//! There is no state here.

use super::{
    convert::{
        addr,
        check_zero,
        conn_type,
        count,
        nid,
        pattern,
        Pattern, //
    },
    ffi as uapi,
    Caller, //
};
use crate::{
    conn::Handshake,
    lib_linux::socket::Handover,
    peer::Deletion,
    tunables, //
};
use core::net::SocketAddr;
use kernel::prelude::*;

pub(super) fn peer_add(caller: &Caller, request: &uapi::socklnd_peer_add) -> Result {
    check_zero([u32::from(request.pad), request.flags, request.pad2])?;
    let nid = nid(&request.nid)?;
    let addr = addr(&request.addr)?.unwrap_or(nid.addr());
    let port = match request.port {
        0 => tunables::port(),
        port => port,
    };
    let ni = caller.ni_for(pattern(&request.ni)?, nid)?;
    ni.add_peer(nid, SocketAddr::new(addr, port))
}

pub(super) fn peer_del(caller: &Caller, request: &mut uapi::socklnd_peer_del) -> Result {
    const UNDO: u32 = uapi::SOCKLND_PEER_DEL_SINGLE | uapi::SOCKLND_PEER_DEL_KEEP;
    check_zero([request.pad])?;
    let what = match request.flags {
        0 => Deletion::All,
        uapi::SOCKLND_PEER_DEL_SINGLE => Deletion::Single,
        UNDO => Deletion::Undo,
        _ => return Err(EINVAL),
    };
    let addr = addr(&request.addr)?;
    let nid = pattern(&request.nid)?;
    let peers = caller.peers(pattern(&request.ni)?, nid)?;
    let deleted = peers.iter().filter(|p| p.del_route(addr, what));
    request.count = count(deleted.count());
    if request.count == 0 {
        nid.check_none_found()?;
    }
    Ok(())
}

pub(super) fn conn_close(caller: &Caller, request: &mut uapi::socklnd_conn_close) -> Result {
    check_zero([request.flags, request.pad])?;
    let addr = addr(&request.addr)?;
    let nid = pattern(&request.nid)?;
    let peers = caller.peers(pattern(&request.ni)?, nid)?;
    let closed = peers.iter().map(|p| p.close_matching(addr));
    request.count = count(closed.sum());
    if request.count == 0 {
        nid.check_none_found()?;
    }
    Ok(())
}

pub(super) fn conn_push(caller: &Caller, request: &mut uapi::socklnd_conn_close) -> Result {
    check_zero([request.flags, request.pad])?;
    let addr = addr(&request.addr)?;
    let nid = pattern(&request.nid)?;
    let mut pushed = 0usize;
    for peer in caller.peers(pattern(&request.ni)?, nid)?.iter() {
        pushed = pushed.saturating_add(peer.push_matching(addr)?);
    }
    request.count = count(pushed);
    if pushed == 0 {
        return Err(ENOENT);
    }
    Ok(())
}

pub(super) fn conn_register(caller: &Caller, request: &uapi::socklnd_register) -> Result {
    check_zero([request.flags, request.pad])?;
    let ni = pattern(&request.ni)?;
    let active = match (conn_type(request.type_)?, pattern(&request.nid)?) {
        (None, Pattern::Any) => None,
        (Some(kind), Pattern::One(nid)) => Some((kind, nid)),
        _ => return Err(EINVAL),
    };
    let ni = match active {
        None => caller.only_ni(ni)?,
        Some((_, nid)) => caller.ni_for(ni, nid)?,
    };
    if active.is_some_and(|(_, nid)| nid == ni.nid()) {
        return Err(EINVAL);
    }
    Handshake::start_handover(&ni, Handover::from_fd(request.fd, &caller.net)?, active)
}
