// SPDX-License-Identifier: GPL-2.0

//! Handshakes on sockets that programs hand over.
//!
//! Such a socket can only be taken when the program has closed it, and the handshake begins then. No
//! event says that, so the reaper posts the handshake again and again. The state is that of the
//! handshake, behind its mutex.

use super::{
    setup,
    Handshake,
    Io,
    Role,
    Stage, //
};
use crate::{
    lib_linux::{
        socket::{
            Handover,
            Taken, //
        },
        time, //
    },
    ni::Ni,
    tunables,
    wire::{
        ConnType,
        Nid, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

impl Handshake {
    /// Begins to take a socket from a program. The connection is one of this type to this peer if the program
    /// has opened it (`made`), else one that the other node has opened. The program has as long to close its
    /// socket as the other node has for a passive handshake. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOTCONN`, `ENOMEM`, `ESHUTDOWN`: the program keeps the socket.
    pub(crate) fn start_handover(
        ni: &Arc<Ni>,
        handover: Handover,
        made: Option<(ConnType, Nid)>,
    ) -> Result {
        let remote = handover.peer_addr()?;
        let role = match made {
            Some((kind, nid)) => Role::Registered { nid, kind },
            None => Role::Passive { listener: None },
        };
        let deadline = time::monotonic_ms().saturating_add(tunables::handshake_timeout_ms());
        let stage = Stage::HandedOver(handover);
        let this = Self::new(ni, role, remote, stage, deadline)?;
        ni.handshakes().add(&this)?;
        ni.context().run_handshake(this);
        Ok(())
    }

    /// Takes the socket and begins the handshake, if the program has closed it. Returns whether it has.
    pub(super) fn take_socket(self: &Arc<Self>, io: &mut Io) -> Result<bool> {
        let Stage::HandedOver(handover) = core::mem::replace(&mut io.stage, Stage::Over) else {
            return Ok(false);
        };
        let socket = match handover.take() {
            Ok(Taken::Socket(socket)) => socket,
            Ok(Taken::NotYet(handover)) => {
                io.stage = Stage::HandedOver(handover);
                self.ni.context().poll_handover(self.clone());
                return Ok(false);
            }
            Err(e) => {
                io.stage = Stage::Failed;
                return Err(e);
            }
        };
        // From here on an error closes the connection.
        io.stage = Stage::Failed;
        setup(&socket, self.ni.tos())?;
        let local = socket.local_addr()?.ip().to_canonical();
        if self.ni.interfaces().find(local).is_some() {
            self.bound.populate(local);
        }
        let time = match &self.role {
            Role::Registered { nid, kind } => {
                io.tried = match self.ni.peers().find(*nid) {
                    Some(peer) => peer.proto_to_try(self.remote.ip()),
                    None => self.ni.first_proto(*nid, self.remote.ip()),
                };
                self.send_request_and_hello(&socket, *nid, *kind, io.tried)?;
                tunables::timeout_ms()
            }
            _ => tunables::handshake_timeout_ms(),
        };
        let deadline = time::monotonic_ms().saturating_add(time);
        self.deadline_ms.store(deadline, Relaxed);
        io.stage = Stage::Reading(socket.hook(self.clone()));
        Ok(true)
    }
}
