// SPDX-License-Identifier: GPL-2.0

//! What this node sends in a handshake: acceptor requests and HELLOs.
//!
//! No state of its own. No lock is needed: the socket belongs to the caller.

use super::{
    Handshake,
    Role, //
};
use crate::{
    lib_linux::socket::Socket,
    wire::{
        AcceptorRequest,
        ByteOrder,
        ConnType,
        Hello,
        IpVec,
        Nid,
        Proto,
        HELLO_MAX,
        PID_LUSTRE,
        REQUEST_MAX, //
    }, //
};
use core::net::IpAddr;
use kernel::prelude::*;

impl Handshake {
    /// Introduces us on the connection of an attempt of ours, which the peer has accepted: who connects
    /// and says nothing looks like a port scan. Returns in which version.
    pub(super) fn introduce_attempt(&self, socket: &Socket) -> Result<Proto> {
        let Role::Active { peer, kind, .. } = &self.role else {
            return Err(EINVAL);
        };
        let proto = peer.proto_to_try(self.remote.ip());
        self.introduce(socket, peer.nid(), *kind, proto)?;
        Ok(proto)
    }

    /// Says whom the connection is for, and who we are.
    pub(super) fn introduce(
        &self,
        socket: &Socket,
        target: Nid,
        kind: ConnType,
        proto: Proto,
    ) -> Result {
        let mut bytes = [0; REQUEST_MAX];
        send_all(socket, AcceptorRequest { target }.build(&mut bytes)?)?;
        let ips = if proto.names_addresses() {
            self.published()
        } else {
            IpVec::new()
        };
        self.send_hello(socket, proto, target, Some(kind), &ips)
    }

    /// The addresses of all interfaces, as a HELLO names them.
    fn published(&self) -> IpVec {
        let mut ips = IpVec::new();
        self.ni.interfaces().for_each(|interface| {
            if let IpAddr::V4(ip) = interface.addr() {
                // There are no more interfaces than fit.
                let _ = ips.push(ip);
            }
        });
        ips
    }

    /// Sends our HELLO for a connection of type `kind`, naming `ips`; without a type, a refusal.
    pub(super) fn send_hello(
        &self,
        socket: &Socket,
        proto: Proto,
        dest: Nid,
        kind: Option<ConnType>,
        ips: &IpVec,
    ) -> Result {
        let hello = Hello {
            proto,
            order: ByteOrder::NATIVE,
            src: self.ni.nid(),
            dest: Some(dest),
            src_pid: PID_LUSTRE,
            // Not known, and nobody looks at it.
            dest_pid: 0,
            incarnation: self.ni.incarnation(),
            kind,
            ips: *ips,
        };
        send_all(socket, hello.build(&mut [0; HELLO_MAX])?)
    }
}

/// Sends all of `bytes`, which are few and the first on their socket, or fails.
pub(super) fn send_all(socket: &Socket, bytes: &[u8]) -> Result {
    if socket.send_bytes(bytes)? == bytes.len() {
        Ok(())
    } else {
        Err(EIO)
    }
}
