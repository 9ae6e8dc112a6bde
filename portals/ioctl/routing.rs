// SPDX-License-Identifier: GPL-2.0

//! Requests about routes through gateways, and about forwarding.
//!
//! There is no state here.

use super::{
    super::{
        router::{
            self,
            GatewayState,
            Liveness, //
        },
        LocalNi,
        LAYER, //
    },
    local_ni, //
};
use crate::{
    ctl::{
        convert::{
            check_zero,
            count,
            network,
            nid,
            pattern,
            raw_network,
            raw_nid, //
        },
        ffi as uapi,
        list::Entry,
        Caller, //
    },
    fwd::PoolInfo,
    ni::Ni, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

// CAST: A small constant.
static_assert!(router::MAX_ROUTES == uapi::SOCKLND_ROUTE_MAX as usize);

pub(super) fn route_add(caller: &Caller, request: &uapi::socklnd_route) -> Result {
    check_zero([request.flags, request.pad])?;
    let ni = pattern(&request.ni)?;
    let gateway = nid(&request.gateway)?;
    let target = network(&request.target)?.ok_or(EINVAL)?;
    let ni = caller.ni_for(ni, gateway)?;
    local_ni(caller, ni.nid())?.add_route(target, gateway, request.priority)
}

pub(super) fn route_del(caller: &Caller, request: &mut uapi::socklnd_route) -> Result {
    check_zero([request.priority, request.flags, request.pad])?;
    let gateway = pattern(&request.gateway)?;
    let target = network(&request.target)?;
    let mut deleted = 0usize;
    for ni in caller.nis(pattern(&request.ni)?)?.iter() {
        // One that is being started or was shut down has no routes.
        let Ok(local) = local_ni(caller, ni.nid()) else {
            continue;
        };
        let gone = local.router().remove(|route| {
            gateway.matches(route.gateway) && target.is_none_or(|net| net == route.target)
        });
        deleted = deleted.saturating_add(gone);
    }
    request.count = count(deleted);
    if deleted == 0 {
        gateway.check_none_found()?;
    }
    Ok(())
}

pub(super) fn route_notify(caller: &Caller, request: &uapi::socklnd_gateway) -> Result {
    check_zero([request.flags])?;
    let ni = pattern(&request.ni)?;
    let gateway = nid(&request.gateway)?;
    let liveness = match request.state {
        uapi::SOCKLND_GATEWAY_UP => Liveness::Alive,
        uapi::SOCKLND_GATEWAY_SET_DOWN => Liveness::Dead,
        _ => return Err(EINVAL),
    };
    let ni = caller.ni_for(ni, gateway)?;
    local_ni(caller, ni.nid())?.notify_gateway(gateway, liveness)
}

pub(super) fn routing_set(caller: &Caller, request: &uapi::socklnd_routing_set) -> Result {
    check_zero([request.flags, request.pad, request.pad2])?;
    if request.on > 1 {
        return Err(EINVAL);
    }
    let node = LAYER.get().ok_or(ENODEV)?.find_or_add_node(&caller.net)?;
    match request.on {
        0 => node.forwarder().disable(),
        _ => node.forwarder().enable()?,
    }
    Ok(())
}

pub(super) fn routing_get(caller: &Caller, request: &mut uapi::socklnd_routing) -> Result {
    check_zero([request.flags])?;
    *request = Default::default();
    let layer = LAYER.get().ok_or(ENODEV)?;
    if let Some(node) = layer.find_node(&caller.net) {
        let info = node.forwarder().info();
        request.on = info.is_enabled.into();
        request.small = raw_pool(&info.small);
        request.large = raw_pool(&info.large);
    }
    Ok(())
}

fn raw_pool(pool: &PoolInfo) -> uapi::socklnd_fwd_pool {
    uapi::socklnd_fwd_pool {
        bytes: count(pool.bytes),
        buffers: count(pool.buffers),
        busy: count(pool.busy),
        waiting: count(pool.waiting),
        waits: pool.waits,
    }
}

impl Entry for uapi::socklnd_route_entry {
    const OLDEST_SIZE: usize = uapi::SOCKLND_ROUTE_ENTRY_SIZE_VER0 as usize;

    fn collect(ni: &Arc<Ni>, into: &mut KVVec<Self>) -> Result {
        let Some(local) = LocalNi::find(ni.net(), ni.nid()) else {
            return Ok(());
        };
        for route in local.router().snapshot()?.iter() {
            let entry = Self {
                ni: raw_nid(ni.nid()),
                gateway: raw_nid(route.gateway),
                target: raw_network(route.target),
                priority: route.priority,
                state: match route.state {
                    GatewayState::Up => uapi::SOCKLND_GATEWAY_UP,
                    GatewayState::Down => uapi::SOCKLND_GATEWAY_DOWN,
                    GatewayState::SetDown => uapi::SOCKLND_GATEWAY_SET_DOWN,
                },
                chosen: route.chosen,
            };
            into.push(entry, GFP_KERNEL)?;
        }
        Ok(())
    }
}

#[kunit_tests(socklnd_portals_ioctl_routing)]
mod tests {
    use super::*;
    use crate::wire::Nid;

    #[test]
    fn malformed_requests_are_refused() -> Result {
        let caller = Caller::any()?;
        let gateway = raw_nid(Nid::tcp(7, [10, 0, 0, 1]));
        let good = uapi::socklnd_route {
            gateway,
            target: raw_network(8),
            ..Default::default()
        };
        for mut bad in [
            uapi::socklnd_route { flags: 1, ..good },
            uapi::socklnd_route { pad: 1, ..good },
            uapi::socklnd_route {
                target: gateway,
                ..good
            },
        ] {
            assert_eq!(route_add(&caller, &bad), Err(EINVAL));
            assert_eq!(route_del(&caller, &mut bad), Err(EINVAL));
        }
        let mut bad = uapi::socklnd_route {
            priority: 1,
            ..good
        };
        assert_eq!(route_del(&caller, &mut bad), Err(EINVAL));
        for bad in [
            uapi::socklnd_route {
                target: Default::default(),
                ..good
            },
            uapi::socklnd_route {
                gateway: Default::default(),
                ..good
            },
        ] {
            assert_eq!(route_add(&caller, &bad), Err(EINVAL));
        }
        let good = uapi::socklnd_gateway {
            gateway,
            state: uapi::SOCKLND_GATEWAY_UP,
            ..Default::default()
        };
        for bad in [
            uapi::socklnd_gateway { flags: 1, ..good },
            uapi::socklnd_gateway { state: 0, ..good },
            // Only the driver sets this state.
            uapi::socklnd_gateway {
                state: uapi::SOCKLND_GATEWAY_DOWN,
                ..good
            },
            uapi::socklnd_gateway { state: 4, ..good },
            uapi::socklnd_gateway {
                gateway: raw_network(7),
                ..good
            },
        ] {
            assert_eq!(route_notify(&caller, &bad), Err(EINVAL));
        }
        let good = uapi::socklnd_routing_set::default();
        for bad in [
            uapi::socklnd_routing_set { on: 2, ..good },
            uapi::socklnd_routing_set { flags: 1, ..good },
            uapi::socklnd_routing_set { pad: 1, ..good },
            uapi::socklnd_routing_set { pad2: 1, ..good },
        ] {
            assert_eq!(routing_set(&caller, &bad), Err(EINVAL));
        }
        let mut bad = uapi::socklnd_routing {
            flags: 1,
            ..Default::default()
        };
        assert_eq!(routing_get(&caller, &mut bad), Err(EINVAL));
        Ok(())
    }
}
