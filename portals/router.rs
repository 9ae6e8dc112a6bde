// SPDX-License-Identifier: GPL-2.0

//! The router: through which nodes other networks are reached.
//!
//! A route says that a node of the interface's own network, a gateway, passes messages on towards
//! another network. Several gateways may lead to the same network: of those that are alive the ones
//! with the lowest priority number are used in turn. Whether a gateway is alive is known for the
//! gateway as a whole: it is taken to be when its first route is added, is not when its last
//! connection is lost or none can be made, and is again when there is one. An administrator's word
//! counts for more than that, until it is taken back.
//!
//! A [`Router`] is part of an interface's message layer and freed with it. Its table has a spinlock,
//! taken in thread context only and innermost; nothing is sent or allocated for long under it. These
//! routes are not those of [`crate::route`], which are the addresses of one peer.

use crate::wire::Nid;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};

/// The most routes of one interface.
pub(crate) const MAX_ROUTES: usize = 1024;

/// What is known about a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It is used.
    Up,
    /// It was lost, and is looked for.
    Down,
    /// An administrator says that it is not to be used.
    SetDown,
}

/// A way to another network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetRoute {
    /// The number of the network.
    pub(crate) target: u16,
    /// Who passes messages on.
    pub(crate) gateway: Nid,
    /// Lower numbers are preferred.
    pub(crate) priority: u32,
    /// The same for all routes of a gateway.
    pub(crate) health: Health,
    /// How often it was chosen.
    pub(crate) chosen: u64,
}

struct Entry {
    route: NetRoute,
    /// When it was chosen last, in choices of the whole table.
    turn: u64,
}

struct Table {
    entries: KVVec<Entry>,
    turns: u64,
}

impl Table {
    const fn new() -> Self {
        Self {
            entries: KVVec::new(),
            turns: 0,
        }
    }

    /// Adds a route; the caller has made room. `EEXIST` if it is there.
    fn add(&mut self, target: u16, gateway: Nid, priority: u32) -> Result {
        let mut health = Health::Up;
        for Entry { route, .. } in self.entries.iter() {
            if route.gateway == gateway {
                if route.target == target {
                    return Err(EEXIST);
                }
                health = route.health;
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
                health,
                chosen: 0,
            },
            turn: 0,
        };
        Ok(self.entries.push(entry, GFP_ATOMIC)?)
    }

    /// Whether another route needs more room than there is.
    fn is_full(&self) -> bool {
        let len = self.entries.len();
        len >= self.entries.capacity() && len < MAX_ROUTES
    }

    /// Replaces the room with `room` if that is larger; what is left over is in `room` afterwards, to be
    /// dropped with no lock held.
    fn enlarge(&mut self, room: &mut KVVec<Entry>) {
        if room.capacity() <= self.entries.len() {
            return;
        }
        for entry in self.entries.drain_all() {
            // There is more room than before.
            let _ = room.push_within_capacity(entry);
        }
        core::mem::swap(&mut self.entries, room);
    }

    /// The gateway whose turn it is.
    fn choose(&mut self, target: u16) -> Option<Nid> {
        let usable = |e: &&mut Entry| e.route.target == target && e.route.health == Health::Up;
        let usable = self.entries.iter_mut().filter(usable);
        let entry = usable.min_by_key(|e| (e.route.priority, e.turn))?;
        self.turns = self.turns.wrapping_add(1);
        entry.turn = self.turns;
        entry.route.chosen = entry.route.chosen.wrapping_add(1);
        Some(entry.route.gateway)
    }

    /// Changes the health of a gateway where `change` says to what. Returns the number of routes
    /// that changed.
    fn set_health(&mut self, gateway: Nid, change: impl Fn(Health) -> Option<Health>) -> usize {
        let mut changed = 0;
        for Entry { route, .. } in self.entries.iter_mut() {
            if route.gateway != gateway {
                continue;
            }
            if let Some(health) = change(route.health).filter(|new| *new != route.health) {
                route.health = health;
                changed += 1;
            }
        }
        changed
    }
}

/// The routes of one interface.
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
    /// `EEXIST` if this gateway leads there already, `ENOSPC` if there are too many routes,
    /// `ENOMEM`.
    pub(crate) fn add(&self, target: u16, gateway: Nid, priority: u32) -> Result {
        let mut room = KVVec::new();
        loop {
            let mut table = self.table.lock();
            table.enlarge(&mut room);
            if !table.is_full() {
                return table.add(target, gateway, priority);
            }
            let count = table.entries.len().saturating_mul(2);
            drop(table);
            // Memory without the lock, and what was there before is given back without it, too.
            room = KVVec::with_capacity(count.clamp(8, MAX_ROUTES), GFP_KERNEL)?;
        }
    }

    /// Takes away the routes that match. Returns how many did. Thread context.
    pub(crate) fn remove(&self, matching: impl Fn(&NetRoute) -> bool) -> usize {
        let mut table = self.table.lock();
        let before = table.entries.len();
        table.entries.retain(|entry| !matching(&entry.route));
        before.saturating_sub(table.entries.len())
    }

    /// The gateway for the next message to network `target`, if one is alive. Thread context.
    pub(crate) fn choose(&self, target: u16) -> Option<Nid> {
        self.table.lock().choose(target)
    }

    /// Whether there is a route that matches, of a gateway that is alive or of another. Thread
    /// context.
    pub(crate) fn any(&self, matching: impl Fn(&NetRoute) -> bool) -> bool {
        let table = self.table.lock();
        let mut routes = table.entries.iter().map(|entry| &entry.route);
        routes.any(matching)
    }

    /// Whether `gateway` is alive and leads to network `target`. Thread context.
    pub(super) fn is_usable(&self, gateway: Nid, target: u16) -> bool {
        self.any(|route| {
            route.gateway == gateway && route.target == target && route.health == Health::Up
        })
    }

    /// Notes that a node was found to be there or not, should it be a gateway. Returns whether that
    /// is news. Thread context.
    pub(crate) fn found(&self, gateway: Nid, alive: bool) -> bool {
        let news = self
            .table
            .lock()
            .set_health(gateway, |old| match (old, alive) {
                (Health::SetDown, _) => None,
                (_, true) => Some(Health::Up),
                (_, false) => Some(Health::Down),
            });
        news > 0
    }

    /// An administrator says that a gateway is to be used, or not. Thread context.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is no gateway.
    pub(crate) fn notify(&self, gateway: Nid, alive: bool) -> Result {
        let health = if alive { Health::Up } else { Health::SetDown };
        let mut table = self.table.lock();
        if !table.entries.iter().any(|e| e.route.gateway == gateway) {
            return Err(ENOENT);
        }
        table.set_health(gateway, |_| Some(health));
        Ok(())
    }

    /// A gateway that is looked for, from route `at` on; `at` moves behind it. Thread context.
    pub(crate) fn next_down(&self, at: &mut usize) -> Option<Nid> {
        let table = self.table.lock();
        let mut rest = table.entries.iter().enumerate().skip(*at);
        let (index, entry) = rest.find(|(_, entry)| entry.route.health == Health::Down)?;
        *at = index + 1;
        Some(entry.route.gateway)
    }

    /// All routes, as they are at one moment. May sleep.
    pub(crate) fn snapshot(&self) -> Result<KVVec<NetRoute>> {
        let mut routes = KVVec::new();
        loop {
            let count = self.table.lock().entries.len();
            // Memory first; if there are more by then, once again.
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

    fn chosen(table: &mut Table, target: u16) -> Option<Nid> {
        table.choose(target)
    }

    #[test]
    fn equals_take_turns() -> Result {
        let mut table = Table::new();
        assert_eq!(chosen(&mut table, 1), None);
        for last in 1..=3 {
            table.add(1, gateway(last), 5)?;
        }
        table.add(2, gateway(9), 0)?;
        for _ in 0..3 {
            for last in 1..=3 {
                assert_eq!(chosen(&mut table, 1), Some(gateway(last)));
            }
        }
        // One that comes later is not made up for what it missed.
        table.add(1, gateway(4), 5)?;
        assert_eq!(chosen(&mut table, 1), Some(gateway(4)));
        assert_eq!(chosen(&mut table, 1), Some(gateway(1)));
        assert_eq!(chosen(&mut table, 3), None);
        Ok(())
    }

    #[test]
    fn the_lowest_priority_that_lives() -> Result {
        let mut table = Table::new();
        table.add(1, gateway(1), 2)?;
        table.add(1, gateway(2), 1)?;
        table.add(1, gateway(3), 1)?;
        assert_eq!(chosen(&mut table, 1), Some(gateway(2)));
        assert_eq!(chosen(&mut table, 1), Some(gateway(3)));
        assert_eq!(table.set_health(gateway(2), |_| Some(Health::Down)), 1);
        assert_eq!(chosen(&mut table, 1), Some(gateway(3)));
        assert_eq!(chosen(&mut table, 1), Some(gateway(3)));
        assert_eq!(table.set_health(gateway(3), |_| Some(Health::SetDown)), 1);
        assert_eq!(chosen(&mut table, 1), Some(gateway(1)));
        assert_eq!(table.set_health(gateway(1), |_| Some(Health::Down)), 1);
        assert_eq!(chosen(&mut table, 1), None);
        assert_eq!(table.set_health(gateway(2), |_| Some(Health::Up)), 1);
        assert_eq!(chosen(&mut table, 1), Some(gateway(2)));
        Ok(())
    }

    #[test]
    fn a_gateway_is_alive_as_a_whole() -> Result {
        let router = KBox::pin_init(Router::new(), GFP_KERNEL)?;
        router.add(1, gateway(1), 0)?;
        router.add(2, gateway(1), 0)?;
        assert_eq!(router.add(1, gateway(1), 7), Err(EEXIST));
        assert!(router.is_usable(gateway(1), 2) && !router.is_usable(gateway(1), 3));
        assert!(router.found(gateway(1), false));
        assert!(!router.is_usable(gateway(1), 2));
        assert!(!router.found(gateway(1), false));
        assert_eq!((router.choose(1), router.choose(2)), (None, None));
        // So is one that it gets meanwhile.
        router.add(3, gateway(1), 0)?;
        assert_eq!(router.choose(3), None);
        let mut at = 0;
        assert_eq!(router.next_down(&mut at), Some(gateway(1)));
        assert!(router.found(gateway(1), true));
        assert_eq!(router.next_down(&mut 0), None);
        assert_eq!(router.choose(3), Some(gateway(1)));
        assert!(!router.found(gateway(2), false));
        Ok(())
    }

    #[test]
    fn the_administrators_word_counts_for_more() -> Result {
        let router = KBox::pin_init(Router::new(), GFP_KERNEL)?;
        assert_eq!(router.notify(gateway(1), false), Err(ENOENT));
        router.add(1, gateway(1), 0)?;
        router.notify(gateway(1), false)?;
        assert!(!router.found(gateway(1), true));
        assert_eq!(router.choose(1), None);
        assert_eq!(router.next_down(&mut 0), None);
        router.notify(gateway(1), true)?;
        assert_eq!(router.choose(1), Some(gateway(1)));
        assert_eq!(router.remove(|route| route.target == 2), 0);
        assert_eq!(router.remove(|route| route.gateway == gateway(1)), 1);
        assert_eq!(router.choose(1), None);
        Ok(())
    }
}
