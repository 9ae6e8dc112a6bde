// SPDX-License-Identifier: GPL-2.0

//! What an NI offers to the message layer, see [`crate::upper`].
//!
//! Nothing is kept here.

use super::Ni;
use crate::{
    lib_linux::{
        misc,
        netns::Net, //
    },
    upper::{
        Cause,
        Completion,
        Failure,
        Health,
        Link,
        LndNi,
        Payload,
        SentHeader, //
    },
    wire::Nid, //
};
use kernel::{
    prelude::*,
    sync::ArcBorrow, //
};

impl LndNi for Ni {
    fn nid(&self) -> Nid {
        Ni::nid(self)
    }

    fn net(&self) -> &Net {
        Ni::net(self)
    }

    fn send(
        self: ArcBorrow<'_, Self>,
        to: Nid,
        cause: Cause,
        header: SentHeader<'_>,
        payload: Option<Payload>,
        done: KBox<dyn Completion>,
    ) {
        misc::assert_may_sleep();
        misc::memalloc_nofs(|| {
            let failure = if to == self.nid {
                self.send_to_self(header, payload, done)
            } else {
                self.send_to_peer(to, cause, header, payload, done)
            };
            if let Err((why, done)) = failure {
                self.events.tx_errors.add(1);
                done.complete(Err(why));
            }
        });
    }

    fn link(&self) -> Link {
        Ni::link(self)
    }

    fn conns_per_peer(&self) -> u32 {
        Ni::conns_per_peer(self)
    }

    fn check_peer(&self, peer: Nid) -> Result {
        if peer.net() != self.nid.net() || peer == self.nid {
            return Err(EINVAL);
        }
        self.check_nid(peer)
    }

    fn probe(self: ArcBorrow<'_, Self>, peer: Nid, now_ms: u64) -> bool {
        // Without memory for it, the next look may have more luck.
        self.peer_for(peer, Cause::Own)
            .is_ok_and(|peer| peer.probe(now_ms))
    }

    fn close_peer(&self, peer: Nid, why: Error) {
        if let Some(peer) = self.peers.find(peer) {
            let why = Failure::new(why, Health::LocalDropped);
            if peer.close_where(why, |_| true) > 0 {
                peer.unlink_if_unused();
            }
        }
    }

    fn give_up(&self, peer: Nid) {
        if let Some(peer) = self.peers.find(peer) {
            peer.give_up();
        }
    }
}
