// SPDX-License-Identifier: GPL-2.0

//! Handshakes of this node's own attempts to connect: how they begin.
//!
//! No state of its own. The peer's lock is taken to choose the address to connect from.

use super::{
    setup,
    Handshake,
    Role,
    Stage, //
};
use crate::{
    lib_linux::{
        link,
        socket::{
            Family,
            HookedSocket,
            Socket, //
        },
        time, //
    },
    peer::{
        Peer,
        Route, //
    },
    tunables,
    wire::ConnType, //
};
use core::net::SocketAddr;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Privileged local ports, which show the peer that the kernel or a privileged program connects. They are
/// tried from the highest down.
const RESERVED_PORTS: core::ops::RangeInclusive<u16> = 512..=1023;

impl Handshake {
    /// Begins an attempt to connect on a claimed route. The claim ends with the handshake, unless this fails.
    /// May sleep.
    pub(crate) fn start_active(peer: &Arc<Peer>, route: &Arc<Route>, kind: ConnType) -> Result {
        let ni = peer.ni();
        let role = Role::Active {
            peer: peer.clone(),
            route: route.clone(),
            kind,
        };
        let deadline = time::monotonic_ms().saturating_add(tunables::timeout_ms());
        let remote = tunables::with_port_for(kind, route.addr());
        let this = Self::new(ni, role, remote, Stage::Begin, deadline)?;
        ni.handshakes().add(&this)?;
        ni.context().run_handshake(this);
        Ok(())
    }

    /// Binds a socket to a privileged port and begins to connect it.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` if the local device has no link; `EADDRNOTAVAIL` if there is no local address or no port
    /// left; and those of [`Socket::bind`] and [`Socket::connect`].
    pub(super) fn open(self: &Arc<Self>) -> Result<HookedSocket<Self>> {
        let Role::Active { peer, route, .. } = &self.role else {
            return Err(EINVAL);
        };
        let local = peer.choose_source(route)?;
        self.bound.populate(local);
        let net = self.ni.net();
        // Connections to this machine itself need no device.
        if link::is_up(net, local) == Some(false) && link::is_up(net, self.remote.ip()).is_none() {
            return Err(ENETDOWN);
        }
        for port in RESERVED_PORTS.rev() {
            let socket = Socket::new_tcp(net, Family::of(local))?;
            setup(&socket, self.ni.tos())?;
            socket.set_reuseaddr(true);
            match socket.bind(&SocketAddr::new(local, port)) {
                Ok(()) => {}
                Err(e) if e == EADDRINUSE => continue,
                Err(e) => return Err(e),
            }
            let socket = socket.hook(self.clone());
            match socket.connect(&self.remote) {
                Ok(_) => return Ok(socket),
                // There is a connection from that port to this address already.
                Err(e) if e == EADDRNOTAVAIL => continue,
                Err(e) => return Err(e),
            }
        }
        Err(EADDRNOTAVAIL)
    }
}
