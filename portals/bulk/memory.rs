// SPDX-License-Identifier: GPL-2.0

//! The memory of all sessions of all bulk services: strangers open sessions, so there is one bound for the
//! module, which is a parameter.
//!
//! A [`BulkMemory`] is shared by [`Arc`] between the module, the services and what was granted. Its
//! spinlock protects it; nothing is freed under it. It knows the services that are offered, so that one
//! which needs memory can have others forget sessions of clients that are gone or silent. A [`Grant`] lives
//! as long as the memory that it stands for.

use super::server::BulkService;
use crate::tunables;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

struct Inner {
    used: usize,
    services: KVec<Arc<BulkService>>,
}

/// What sessions use, and who offers them.
#[pin_data]
pub(crate) struct BulkMemory {
    #[pin]
    inner: SpinLock<Inner>,
}

impl BulkMemory {
    /// Nothing is used. May sleep.
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

    /// A service is offered. `ENOMEM`. Thread context.
    pub(super) fn enlist(&self, service: &Arc<BulkService>) -> Result {
        let mut inner = self.inner.lock();
        Ok(inner.services.push(service.clone(), GFP_ATOMIC)?)
    }

    /// It is no longer. Thread context, no spinlock held.
    pub(super) fn strike(&self, service: &BulkService) {
        let mut inner = self.inner.lock();
        let mut services = inner.services.iter();
        let at = services.position(|other| core::ptr::eq(&**other, service));
        let gone = at.and_then(|at| inner.services.remove(at).ok());
        drop(inner);
        drop(gone);
    }

    /// Grants `bytes` if there are as many left. Thread context.
    pub(super) fn grant(self: &Arc<Self>, bytes: usize) -> Option<Grant> {
        let mut inner = self.inner.lock();
        let used = inner.used.checked_add(bytes)?;
        if used > tunables::bulk_bytes() {
            return None;
        }
        inner.used = used;
        drop(inner);
        Some(Grant {
            memory: self.clone(),
            bytes,
        })
    }

    /// Has some service forget a session that may be forgotten; one that is being changed this moment,
    /// as is the caller's, is left out. Returns whether there was one. May sleep.
    pub(super) fn reclaim(&self) -> bool {
        let mut index = 0;
        loop {
            // In a statement of its own: nothing is forgotten under the lock.
            let service = self.inner.lock().services.get(index).cloned();
            match service {
                Some(service) if service.forget_one() => return true,
                Some(_) => index += 1,
                None => return false,
            }
        }
    }
}

/// So many bytes in use, until it is dropped.
pub(super) struct Grant {
    memory: Arc<BulkMemory>,
    bytes: usize,
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut inner = self.memory.inner.lock();
        inner.used = inner.used.saturating_sub(self.bytes);
    }
}
