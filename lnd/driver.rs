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
    tunables,
    upper::{
        Driver,
        LndNi,
        MessageLayer,
        NiSettings, //
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
    ) -> Result<NiSettings> {
        let this: Arc<Self> = self.into();
        misc::memalloc_nofs(|| {
            let ni = this.add_ni_under(net, nid, || Ok(layer))?;
            Ok(LndNi::settings(&*ni))
        })
    }

    fn stop(&self, net: &Net, nid: Nid) -> Result {
        misc::memalloc_nofs(|| self.del_ni(net, Some(nid)))
    }

    fn timeout_s(&self) -> u32 {
        u32::try_from(tunables::timeout_ms() / 1000).unwrap_or(u32::MAX)
    }
}
