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
    /// Sends the request and the HELLO on the connection of an attempt that the peer has accepted; without
    /// them it would look like a port scan. Returns the version of the HELLO.
    pub(super) fn send_attempt_hello(&self, socket: &Socket) -> Result<Proto> {
        let Role::Active { peer, kind, .. } = &self.role else {
            return Err(EINVAL);
        };
        let proto = peer.proto_to_try(self.remote.ip());
        self.send_request_and_hello(socket, peer.nid(), *kind, proto)?;
        Ok(proto)
    }

    /// Sends the acceptor request and the HELLO.
    pub(super) fn send_request_and_hello(
        &self,
        socket: &Socket,
        target: Nid,
        kind: ConnType,
        proto: Proto,
    ) -> Result {
        let mut bytes = [0; REQUEST_MAX];
        send_all(socket, AcceptorRequest { target }.build(&mut bytes)?)?;
        let ips = if proto.names_addresses() {
            self.local_ips()
        } else {
            IpVec::new()
        };
        self.send_hello(socket, proto, target, Some(kind), &ips)
    }

    /// The IPv4 addresses of all interfaces, for a HELLO.
    fn local_ips(&self) -> IpVec {
        let mut ips = IpVec::new();
        for interface in self.ni.interfaces().lock().present() {
            if let IpAddr::V4(ip) = interface.addr() {
                // There is room: the number of interfaces is limited.
                let _ = ips.push(ip);
            }
        }
        ips
    }

    /// Sends a HELLO for a connection of type `kind` with the addresses `ips`; without a type it refuses the
    /// connection.
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
            // It is not known, and receivers ignore it.
            dest_pid: 0,
            incarnation: self.ni.incarnation(),
            kind,
            ips: *ips,
        };
        send_all(socket, hello.build(&mut [0; HELLO_MAX])?)
    }
}

/// Sends all of `bytes` or fails. They are the first on their socket, so they fit into the send buffer.
pub(super) fn send_all(socket: &Socket, bytes: &[u8]) -> Result {
    if socket.send_bytes(bytes)? == bytes.len() {
        Ok(())
    } else {
        Err(EIO)
    }
}
