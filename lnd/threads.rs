// SPDX-License-Identifier: GPL-2.0

//! The module's threads: the order in which they start and stop.
//!
//! [`Threads`] belongs to the module, and is used by the thread that inserts or removes it.

use super::Lnd;
use crate::{
    lib_linux::thread::KThread,
    tunables, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The threads. Dropping them stops and joins them.
pub(crate) struct Threads {
    lnd: Arc<Lnd>,
    handles: KVec<KThread>,
}

impl Threads {
    /// Starts all. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINTR` if the caller is killed; then none is left.
    pub(crate) fn start(lnd: &Arc<Lnd>) -> Result<Self> {
        // Half-started is dropped like fully started.
        let mut this = Self {
            lnd: lnd.clone(),
            handles: KVec::new(),
        };
        this.add(|| lnd.reaper.start(lnd))?;
        for sched in lnd.scheds.iter() {
            match sched.start() {
                // Not now: when it has come.
                Err(e) if e == ENODEV => {}
                started => started?,
            }
        }
        for index in 0..tunables::daemons() {
            this.add(|| lnd.autoconnect.start(index))?;
        }
        this.add(|| lnd.acceptor.start())?;
        Ok(this)
    }

    /// Starts a thread. There is room for its handle before it runs: a handle that is dropped on
    /// its own would wait for a thread that nobody has told to end.
    fn add(&mut self, start: impl FnOnce() -> Result<KThread>) -> Result {
        self.handles.reserve(1, GFP_KERNEL)?;
        let handle = start()?;
        let _ = self.handles.push_within_capacity(handle);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // No interface is left, so nothing comes any more; the queues may hold remains.
        self.lnd.acceptor.stop();
        self.lnd.autoconnect.stop();
        for sched in self.lnd.scheds.iter() {
            sched.stop();
        }
        self.lnd.reaper.stop();
        self.handles.clear();
    }
}
