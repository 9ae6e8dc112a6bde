// SPDX-License-Identifier: GPL-2.0

//! The memory of all sessions of all bulk services. Any node may open sessions, so there is one bound for the
//! module, which is a parameter.
//!
//! A [`BulkMemory`] is shared by [`Arc`] between the module, the services and the reservations. A spinlock protects
//! it; nothing is freed while that is held. It lists the services, so that one that needs memory can make
//! the others evict sessions. A [`Reservation`] lives as long as the memory that it is for.

use crate::{
    lib_linux::misc,
    tunables, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// A service with sessions that have reserved memory.
pub(super) trait Evict: Send + Sync {
    /// Evicts a session whose client is down or idle. Returns whether there was one. A service that is being
    /// changed, such as the caller's own, evicts none. May sleep.
    fn evict_one(&self) -> bool;
}

struct Inner {
    /// Bytes that are reserved.
    used: usize,
    services: KVec<Arc<dyn Evict>>,
}

/// How much memory sessions use.
#[pin_data]
pub(crate) struct BulkMemory {
    #[pin]
    inner: SpinLock<Inner>,
}

impl BulkMemory {
    /// No memory is used. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                inner <- new_spinlock!(
                    Inner {
                        used: 0,
                        services: KVec::new(),
                    },
                    "socklnd_bulk_memory"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Lists a service. `ENOMEM`. Thread context.
    pub(super) fn add_service(&self, service: Arc<dyn Evict>) -> Result {
        let mut inner = self.inner.lock();
        Ok(inner.services.push(service, GFP_ATOMIC)?)
    }

    /// Removes a service from the list. Thread context, no spinlock held.
    pub(super) fn remove_service<S: Evict>(&self, service: &Arc<S>) {
        misc::assert_may_sleep();
        let mut inner = self.inner.lock();
        let mut services = inner.services.iter();
        let at = services.position(|other| core::ptr::addr_eq(&**other, &**service));
        let removed = at.and_then(|at| inner.services.remove(at).ok());
        drop(inner);
        drop(removed);
    }

    /// Reserves `bytes`. `None` if that would be too many. Thread context.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let mut inner = self.inner.lock();
        let used = inner.used.checked_add(bytes)?;
        if used > tunables::bulk_bytes() {
            return None;
        }
        inner.used = used;
        drop(inner);
        Some(Reservation {
            memory: self.clone(),
            bytes,
        })
    }

    /// Makes one of the services evict a session. Returns whether one did. May sleep.
    pub(super) fn reclaim(&self) -> bool {
        let mut index = 0;
        loop {
            // In a statement of its own, so that the lock is released before a session is evicted.
            let service = self.inner.lock().services.get(index).cloned();
            match service {
                Some(service) if service.evict_one() => return true,
                Some(_) => index += 1,
                None => return false,
            }
        }
    }
}

/// This number of bytes is reserved until it is dropped.
pub(super) struct Reservation {
    memory: Arc<BulkMemory>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut inner = self.memory.inner.lock();
        inner.used = inner.used.saturating_sub(self.bytes);
    }
}
