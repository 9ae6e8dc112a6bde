// SPDX-License-Identifier: GPL-2.0

//! Autoconnect daemons: the threads that run handshakes.
//!
//! A few daemons serve the active and passive handshakes of all NIs. None of them ever waits for the network:
//! a handshake is posted here when there is an event on its socket. So a peer that is slow or silent costs
//! memory until the deadline of its handshake, but blocks no thread.
//!
//! Shared by [`Arc`] between [`crate::Lnd`] and the threads; protected by the mailbox's lock.

use crate::{
    conn::{
        Handshake,
        HANDSHAKE_LIST, //
    },
    lib_linux::thread::KThread,
    mailbox::{
        Mail,
        Mailbox, //
    }, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// The daemons' queue.
#[pin_data]
pub(crate) struct Autoconnect {
    #[pin]
    mailbox: Mailbox<Handshake, HANDSHAKE_LIST>,
}

impl Autoconnect {
    /// A queue whose daemons are not started. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                mailbox <- Mailbox::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts the `index`-th daemon. Dropping the thread joins it: call [`Autoconnect::stop`]
    /// before. May sleep.
    pub(crate) fn start(self: &Arc<Self>, index: u32) -> Result<KThread> {
        let name = CString::try_from_fmt(fmt!("socklnd_cd{index:02}"))?;
        KThread::spawn(&name, None, self.clone(), Self::run)
    }

    /// Makes the daemons end. Any context.
    pub(crate) fn stop(&self) {
        self.mailbox.stop();
    }

    /// The most handshakes that have waited for a daemon at the same time. Any context.
    pub(crate) fn queue_peak(&self) -> usize {
        self.mailbox.peak()
    }

    /// Queues a handshake that can continue. Any context.
    pub(crate) fn post(&self, handshake: Arc<Handshake>) {
        self.mailbox.post(handshake);
    }

    fn run(this: Arc<Self>) {
        loop {
            match this.mailbox.take(None) {
                Mail::Object(handshake) => handshake.progress(),
                Mail::Tick => {}
                Mail::Stop => return,
            }
        }
    }
}
