// SPDX-License-Identifier: GPL-2.0

//! Routes: the gateways through which other networks are reached.
//!
//! A route says that a node of the NI's own network, a gateway, forwards messages to another
//! network. Several gateways may lead to the same network: those of them that are alive and have the lowest
//! priority number are used in turn. All routes of a gateway have the same state. A gateway is taken to be
//! alive when its first route is added. It is down when its last connection is lost, or when none can be made,
//! and alive again when there is one. An administrator can set a gateway down, whatever its connections are.
//!
//! A [`Router`] is part of an NI's message layer and freed with it. Its table has a spinlock, which is
//! taken in thread context only; no other lock is taken and nothing is sent while it is held.
//!
//! These routes are not those of [`crate::route`], which are the addresses of one peer.

use crate::wire::Nid;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};

/// The most routes of one NI.
pub(crate) const MAX_ROUTES: usize = 1024;

/// Whether a gateway forwards messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// It does.
    Alive,
    /// It does not.
    Dead,
}

/// The state of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GatewayState {
    /// It is used.
    Up,
    /// It could not be reached. It is probed now and then.
    Down,
    /// An administrator has set it down.
    SetDown,
}

/// A route to another network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetRoute {
    /// The number of the network.
    pub(crate) target: u16,
    /// The node that forwards messages there.
    pub(crate) gateway: Nid,
    /// Routes with lower numbers are preferred.
    pub(crate) priority: u32,
    /// The state of the gateway.
    pub(crate) state: GatewayState,
    /// How many messages were sent through it.
    pub(crate) chosen: u64,
}

/// Whether a state replaces one that an administrator has set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    Yes,
    No,
}

struct Entry {
    route: NetRoute,
    /// The value of [`Table::choices`] when it was chosen last.
    last_chosen: u64,
}

struct Table {
    entries: KVVec<Entry>,
    /// How often a route was chosen.
    choices: u64,
}

impl Table {
    const fn new() -> Self {
        Self {
            entries: KVVec::new(),
            choices: 0,
        }
    }

    /// Adds a route. The caller has made room. `EEXIST` if there is such a route.
    fn add(&mut self, target: u16, gateway: Nid, priority: u32) -> Result {
        let mut state = GatewayState::Up;
        for Entry { route, .. } in self.entries.iter() {
            if route.gateway == gateway {
                if route.target == target {
                    return Err(EEXIST);
                }
                state = route.state;
            }
        }
        if self.entries.len() >= MAX_ROUTES {
            return Err(ENOSPC);
        }
        let entry = Entry {
            route: NetRoute {
                target,
                gateway,
                priority,
                state,
                chosen: 0,
            },
            last_chosen: 0,
        };
        Ok(self.entries.push(entry, GFP_ATOMIC)?)
    }

    /// Whether another route needs more room than there is.
    fn is_full(&self) -> bool {
        let len = self.entries.len();
        len >= self.entries.capacity() && len < MAX_ROUTES
    }

    /// Moves the entries to `room` if that is larger. The smaller memory is in `room` afterwards, to be dropped
    /// with no lock held.
    fn grow(&mut self, room: &mut KVVec<Entry>) {
        if room.capacity() <= self.entries.len() {
            return;
        }
        for entry in self.entries.drain_all() {
            // There is more room than before.
            let _ = room.push_within_capacity(entry);
        }
        core::mem::swap(&mut self.entries, room);
    }

    /// Chooses the gateway for the next message to `target`.
    fn choose(&mut self, target: u16) -> Option<Nid> {
        let is_usable =
            |e: &&mut Entry| e.route.target == target && e.route.state == GatewayState::Up;
        let usable = self.entries.iter_mut().filter(is_usable);
        let entry = usable.min_by_key(|e| (e.route.priority, e.last_chosen))?;
        self.choices = self.choices.wrapping_add(1);
        entry.last_chosen = self.choices;
        entry.route.chosen = entry.route.chosen.wrapping_add(1);
        Some(entry.route.gateway)
    }

    /// Sets the state of a gateway, which is known to have routes or not. Returns whether that was another
    /// one before. Without `force`, the state that an administrator has set stays.
    fn set_state(&mut self, gateway: Nid, state: GatewayState, force: Force) -> bool {
        let mut is_changed = false;
        for Entry { route, .. } in self.entries.iter_mut() {
            if route.gateway != gateway {
                continue;
            }
            if route.state != state && (force == Force::Yes || route.state != GatewayState::SetDown)
            {
                route.state = state;
                is_changed = true;
            }
        }
        is_changed
    }
}

/// The routes of one NI.
#[pin_data]
pub(crate) struct Router {
    #[pin]
    table: SpinLock<Table>,
}

impl Router {
    /// No routes.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            table <- new_spinlock!(Table::new(), "socklnd_router"),
        })
    }

    /// Adds a route to network `target`, which is not the gateway's own. May sleep.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is such a route, `ENOSPC` if there are too many routes, `ENOMEM`.
    pub(crate) fn add(&self, target: u16, gateway: Nid, priority: u32) -> Result {
        let mut room = KVVec::new();
        loop {
            let mut table = self.table.lock();
            table.grow(&mut room);
            if !table.is_full() {
                return table.add(target, gateway, priority);
            }
            let count = table.entries.len().saturating_mul(2);
            drop(table);
            // Memory is allocated and freed without the lock.
            room = KVVec::with_capacity(count.clamp(8, MAX_ROUTES), GFP_KERNEL)?;
        }
    }

    /// Removes the routes that match, and returns their number. Thread context.
    pub(crate) fn remove(&self, matching: impl Fn(&NetRoute) -> bool) -> usize {
        let mut table = self.table.lock();
        let before = table.entries.len();
        table.entries.retain(|entry| !matching(&entry.route));
        before.saturating_sub(table.entries.len())
    }

    /// Chooses the gateway for the next message to network `target`. `None` if none is up. Thread context.
    pub(super) fn choose(&self, target: u16) -> Option<Nid> {
        self.table.lock().choose(target)
    }

    /// Whether there is a route that matches, in whatever state its gateway is. Thread context.
    pub(crate) fn has_route(&self, matching: impl Fn(&NetRoute) -> bool) -> bool {
        let table = self.table.lock();
        let mut routes = table.entries.iter().map(|entry| &entry.route);
        routes.any(matching)
    }

    /// Whether there is a route to network `target` through `gateway`, and that is up. Thread context.
    pub(super) fn is_usable(&self, gateway: Nid, target: u16) -> bool {
        self.has_route(|route| {
            route.gateway == gateway && route.target == target && route.state == GatewayState::Up
        })
    }

    /// Notes whether a node could be reached, should it be a gateway. Returns whether that has changed its
    /// state. Thread context.
    pub(super) fn set_liveness(&self, gateway: Nid, liveness: Liveness) -> bool {
        let state = match liveness {
            Liveness::Alive => GatewayState::Up,
            Liveness::Dead => GatewayState::Down,
        };
        self.table.lock().set_state(gateway, state, Force::No)
    }

    /// Sets a gateway up or down for an administrator. Thread context.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is no gateway.
    pub(super) fn notify(&self, gateway: Nid, liveness: Liveness) -> Result {
        let state = match liveness {
            Liveness::Alive => GatewayState::Up,
            Liveness::Dead => GatewayState::SetDown,
        };
        let mut table = self.table.lock();
        if !table.entries.iter().any(|e| e.route.gateway == gateway) {
            return Err(ENOENT);
        }
        table.set_state(gateway, state, Force::Yes);
        Ok(())
    }

    /// The next gateway that is down, from route `*at` on, which is moved behind it. Thread context.
    pub(super) fn next_down(&self, at: &mut usize) -> Option<Nid> {
        let table = self.table.lock();
        let mut rest = table.entries.iter().enumerate().skip(*at);
        let (index, entry) = rest.find(|(_, entry)| entry.route.state == GatewayState::Down)?;
        *at = index + 1;
        Some(entry.route.gateway)
    }

    /// A copy of all routes. May sleep.
    pub(crate) fn snapshot(&self) -> Result<KVVec<NetRoute>> {
        let mut routes = KVVec::new();
        loop {
            let count = self.table.lock().entries.len();
            // Memory is allocated without the lock, so there may be more routes by now.
            routes.reserve(count, GFP_KERNEL)?;
            let table = self.table.lock();
            if table.entries.len() <= count {
                for entry in table.entries.iter() {
                    let _ = routes.push_within_capacity(entry.route);
                }
                return Ok(routes);
            }
        }
    }
}

#[kunit_tests(socklnd_portals_router)]
mod tests {
    use super::*;

    fn gateway(last: u8) -> Nid {
        Nid::tcp(0, [10, 0, 0, last])
    }

    #[test]
    fn equals_take_turns() -> Result {
        let mut table = Table::new();
        assert_eq!(table.choose(1), None);
        for last in 1..=3 {
            table.add(1, gateway(last), 5)?;
        }
        table.add(2, gateway(9), 0)?;
        for _ in 0..3 {
            for last in 1..=3 {
                assert_eq!(table.choose(1), Some(gateway(last)));
            }
        }
        // A new one gets the next message, but no more than the others after that.
        table.add(1, gateway(4), 5)?;
        assert_eq!(table.choose(1), Some(gateway(4)));
        assert_eq!(table.choose(1), Some(gateway(1)));
        assert_eq!(table.choose(3), None);
        Ok(())
    }

    #[test]
    fn the_lowest_priority_that_lives() -> Result {
        let mut table = Table::new();
        table.add(1, gateway(1), 2)?;
        table.add(1, gateway(2), 1)?;
        table.add(1, gateway(3), 1)?;
        assert_eq!(table.choose(1), Some(gateway(2)));
        assert_eq!(table.choose(1), Some(gateway(3)));
        assert!(table.set_state(gateway(2), GatewayState::Down, Force::Yes));
        assert_eq!(table.choose(1), Some(gateway(3)));
        assert_eq!(table.choose(1), Some(gateway(3)));
        assert!(table.set_state(gateway(3), GatewayState::SetDown, Force::Yes));
        assert_eq!(table.choose(1), Some(gateway(1)));
        assert!(table.set_state(gateway(1), GatewayState::Down, Force::Yes));
        assert_eq!(table.choose(1), None);
        assert!(table.set_state(gateway(2), GatewayState::Up, Force::Yes));
        assert_eq!(table.choose(1), Some(gateway(2)));
        Ok(())
    }

    #[test]
    fn a_gateway_is_alive_as_a_whole() -> Result {
        let router = KBox::pin_init(Router::new(), GFP_KERNEL)?;
        router.add(1, gateway(1), 0)?;
        router.add(2, gateway(1), 0)?;
        assert_eq!(router.add(1, gateway(1), 7), Err(EEXIST));
        assert!(router.is_usable(gateway(1), 2) && !router.is_usable(gateway(1), 3));
        assert!(router.set_liveness(gateway(1), Liveness::Dead));
        assert!(!router.is_usable(gateway(1), 2));
        assert!(!router.set_liveness(gateway(1), Liveness::Dead));
        assert_eq!((router.choose(1), router.choose(2)), (None, None));
        // A new route has the state of its gateway.
        router.add(3, gateway(1), 0)?;
        assert_eq!(router.choose(3), None);
        let mut at = 0;
        assert_eq!(router.next_down(&mut at), Some(gateway(1)));
        assert!(router.set_liveness(gateway(1), Liveness::Alive));
        assert_eq!(router.next_down(&mut 0), None);
        assert_eq!(router.choose(3), Some(gateway(1)));
        assert!(!router.set_liveness(gateway(2), Liveness::Dead));
        Ok(())
    }

    #[test]
    fn the_administrators_word_counts_for_more() -> Result {
        let router = KBox::pin_init(Router::new(), GFP_KERNEL)?;
        assert_eq!(router.notify(gateway(1), Liveness::Dead), Err(ENOENT));
        router.add(1, gateway(1), 0)?;
        router.notify(gateway(1), Liveness::Dead)?;
        assert!(!router.set_liveness(gateway(1), Liveness::Alive));
        assert_eq!(router.choose(1), None);
        assert_eq!(router.next_down(&mut 0), None);
        router.notify(gateway(1), Liveness::Alive)?;
        assert_eq!(router.choose(1), Some(gateway(1)));
        assert_eq!(router.remove(|route| route.target == 2), 0);
        assert_eq!(router.remove(|route| route.gateway == gateway(1)), 1);
        assert_eq!(router.choose(1), None);
        Ok(())
    }
}
