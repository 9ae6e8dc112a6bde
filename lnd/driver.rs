// SPDX-License-Identifier: GPL-2.0

//! What the driver offers to a message layer that starts NIs itself, see [`crate::upper`].
//!
//! Nothing is kept here.

use super::Lnd;
use crate::{
    lib_linux::{
        misc,
        netns::Net, //
    },
    upper::{
        Driver,
        LndNi,
        MessageLayer, //
    },
    wire::Nid, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

impl Driver for Lnd {
    fn start(
        self: ArcBorrow<'_, Self>,
        net: &Net,
        nid: Nid,
        layer: Arc<dyn MessageLayer>,
    ) -> Result<Arc<dyn LndNi>> {
        let this: Arc<Self> = self.into();
        misc::memalloc_nofs(|| {
            let ni: Arc<dyn LndNi> = this.add_ni_under(net, nid, || Ok(layer))?;
            Ok(ni)
        })
    }

    fn stop(&self, net: &Net, nid: Nid) -> Result {
        misc::memalloc_nofs(|| self.del_ni(net, Some(nid)))
    }

    fn close_peer(&self, peer: Nid, why: Error) {
        let Ok(nis) = self.all_nis() else { return };
        for ni in nis.iter().filter(|ni| ni.nid().net() == peer.net()) {
            LndNi::close_peer(&**ni, peer, why);
        }
    }
}
