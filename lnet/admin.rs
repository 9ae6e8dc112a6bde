// SPDX-License-Identifier: GPL-2.0

//! The ioctls of LNet's `/dev/lnet` that are for the driver: what `lctl --net tcp` shows and changes.
//!
//! An address that is not IPv4 does not fit into their structure: all ones stand for it. A request has an
//! [`Admin`], which belongs to the thread that makes it; nothing else is kept here.

use super::{
    ffi::{
        self,
        RawCtl, //
    },
    LocalNi, //
};
use crate::{
    conn::Conn,
    ctl::{
        convert::{
            count,
            is_of_a_host,
            raw_conn_type,
            Pattern, //
        },
        Caller, //
    },
    ni::Ni,
    peer::{
        Deletion,
        Peer, //
    },
    wire::{
        Nid,
        PID_LUSTRE, //
    }, //
};
use core::net::{
    IpAddr,
    Ipv4Addr,
    SocketAddr, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Stands for an address that does not fit.
const NO_IPV4: u32 = !0;

/// The kind of network in a NID that stands for all.
const ANY: u8 = 0xff;

/// A request about an NI.
pub(super) struct Admin {
    caller: Caller,
    ni: Arc<Ni>,
}

impl Admin {
    /// A request about this NI. Thread context.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it has gone with its namespace.
    pub(super) fn new(local: &LocalNi) -> Result<Self> {
        let caller = Caller::in_net(local.ni.net().clone())?;
        let ni = caller
            .lnd
            .find_ni(&caller.net, Some(local.ni.nid()))
            .ok_or(ENODEV)?;
        Ok(Self { caller, ni })
    }

    /// Does what `cmd` says. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `ENOENT`, and those of the request.
    pub(super) fn request(&self, cmd: u32, ctl: &mut RawCtl) -> Result {
        match cmd {
            ffi::SLG_CTL_GET_INTERFACE => self.get_interface(ctl),
            ffi::SLG_CTL_GET_PEER => self.get_peer(ctl),
            ffi::SLG_CTL_ADD_PEER => self.add_peer(ctl),
            ffi::SLG_CTL_DEL_PEER => self.del_peer(ctl),
            ffi::SLG_CTL_GET_CONN => self.get_conn(ctl),
            ffi::SLG_CTL_CLOSE_CONN => self.close_conn(ctl),
            ffi::SLG_CTL_PUSH_CONN => self.push_conn(ctl),
            _ => Err(EINVAL),
        }
    }

    fn get_interface(&self, ctl: &mut RawCtl) -> Result {
        let interfaces = self.ni.interface_info()?;
        let index = ctl.count as usize;
        let interface = interfaces.get(index).ok_or(ENOENT)?;
        let netmask = u32::MAX.checked_shl(32u32.saturating_sub(interface.prefix_len.into()));
        let netmask = match interface.addr {
            IpAddr::V4(_) => netmask.unwrap_or(0),
            IpAddr::V6(_) => 0,
        };
        let peers = self.ni.peers().collect()?.len();
        set(
            ctl,
            [
                word(interface.addr),
                netmask,
                count(peers),
                interface.nroutes,
            ],
        );
        Ok(())
    }

    fn get_peer(&self, ctl: &mut RawCtl) -> Result {
        let peers = self.ni.peers().collect()?;
        let peer = peers.get(ctl.count as usize).ok_or(ENOENT)?;
        let info = peer.snapshot()?;
        let route = info.routes.first();
        ctl.nid = peer.nid().to_bytes20();
        ctl.count = u32::from(route.is_some());
        set(
            ctl,
            [
                route.map_or(0, |route| word(route.addr.ip())),
                route.map_or(0, |route| route.addr.port().into()),
                route.map_or(0, |route| word(route.local.unwrap_or(self.ni.nid().addr()))),
                count(info.conns.len()),
                PID_LUSTRE,
            ],
        );
        Ok(())
    }

    fn add_peer(&self, ctl: &RawCtl) -> Result {
        let nid = Nid::from_bytes20(&ctl.nid)?;
        let [ip, port, ..] = ctl.words;
        let port = u16::try_from(port).map_err(|_| EINVAL)?;
        let addr = Ipv4Addr::from_bits(ip);
        if !nid.is_of_a_node() || !is_of_a_host(addr) {
            return Err(EINVAL);
        }
        self.ni.add_peer(nid, SocketAddr::new(addr.into(), port))
    }

    fn del_peer(&self, ctl: &RawCtl) -> Result {
        let whom = pattern(ctl)?;
        let peers = self.caller.peers(Pattern::One(self.ni.nid()), whom)?;
        let deleted = peers.iter().filter(|p| p.del_route(None, Deletion::All));
        if deleted.count() == 0 {
            whom.check_none_found()?;
        }
        Ok(())
    }

    fn get_conn(&self, ctl: &mut RawCtl) -> Result {
        let mut left = ctl.count as usize;
        for peer in self.ni.peers().collect()?.iter() {
            let conns = peer.snapshot()?.conns;
            match conns.get(left) {
                Some(conn) => {
                    show_conn(ctl, peer, conn);
                    return Ok(());
                }
                None => left = left.saturating_sub(conns.len()),
            }
        }
        Err(ENOENT)
    }

    fn close_conn(&self, ctl: &RawCtl) -> Result {
        let whom = pattern(ctl)?;
        let [ip, ..] = ctl.words;
        let addr = (ip != 0).then_some(IpAddr::V4(Ipv4Addr::from_bits(ip)));
        // As with the C driver, those of other NIs as well.
        let peers = self.caller.peers(Pattern::Any, whom)?;
        let closed: usize = peers.iter().map(|p| p.close_matching(addr)).sum();
        // Without an address, what was wanted holds in any case.
        if closed == 0 && addr.is_some() {
            whom.check_none_found()?;
        }
        Ok(())
    }

    fn push_conn(&self, ctl: &RawCtl) -> Result {
        let peers = self.caller.peers(Pattern::Any, pattern(ctl)?)?;
        if peers.is_empty() {
            return Err(ENOENT);
        }
        for peer in peers.iter() {
            let _ = peer.push_matching(None)?;
        }
        Ok(())
    }
}

/// The peers that a request is about.
fn pattern(ctl: &RawCtl) -> Result<Pattern> {
    match ctl.nid {
        [_, ANY, ..] => Ok(Pattern::Any),
        // `lctl` sends a NID of zeros if it was given none.
        nid if nid == [0; 20] => Ok(Pattern::Any),
        nid => Ok(Pattern::One(Nid::from_bytes20(&nid)?)),
    }
}

fn show_conn(ctl: &mut RawCtl, peer: &Peer, conn: &Conn) {
    // A connection that is being closed has no socket.
    let (tx_buffer, rx_buffer, nagle) = conn.socket_options().unwrap_or_default();
    ctl.nid = peer.nid().to_bytes20();
    ctl.count = count(tx_buffer);
    ctl.flags = nagle.into();
    set(
        ctl,
        [
            word(conn.remote().ip()),
            conn.remote().port().into(),
            word(conn.local().ip()),
            // LNet's numbers are the same.
            raw_conn_type(conn.kind()),
            conn.cpu(),
            count(rx_buffer),
            PID_LUSTRE,
        ],
    );
}

/// Sets the first words, the others to 0.
fn set<const N: usize>(ctl: &mut RawCtl, words: [u32; N]) {
    ctl.words = [0; 7];
    for (to, from) in ctl.words.iter_mut().zip(words) {
        *to = from;
    }
}

/// An address as a word in the processor's byte order.
fn word(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits(),
        IpAddr::V6(_) => NO_IPV4,
    }
}
