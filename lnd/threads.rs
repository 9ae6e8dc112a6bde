// SPDX-License-Identifier: GPL-2.0

//! The order in which the module's threads start and stop.
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

/// The module's threads. Dropping this stops and joins them.
pub(crate) struct Threads {
    lnd: Arc<Lnd>,
    handles: KVec<KThread>,
}

impl Threads {
    /// Starts all threads. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EINTR` if the caller is killed; then no thread is left.
    pub(crate) fn start(lnd: &Arc<Lnd>) -> Result<Self> {
        // If an error drops this, the threads started so far are stopped.
        let mut this = Self {
            lnd: lnd.clone(),
            handles: KVec::new(),
        };
        this.add(|| lnd.reaper.start(lnd))?;
        for sched in lnd.scheds.iter() {
            match sched.start() {
                // Its processor is offline: it starts when that is online.
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

    /// Starts a thread. Room for its handle is reserved before, because a handle that is dropped alone would
    /// wait for a thread that was not told to end.
    fn add(&mut self, start: impl FnOnce() -> Result<KThread>) -> Result {
        self.handles.reserve(1, GFP_KERNEL)?;
        let handle = start()?;
        let _ = self.handles.push_within_capacity(handle);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // No NI is left, so nothing new is posted; the queues may still have entries.
        self.lnd.acceptor.stop();
        self.lnd.autoconnect.stop();
        for sched in self.lnd.scheds.iter() {
            sched.stop();
        }
        self.lnd.reaper.stop();
        self.handles.clear();
    }
}
