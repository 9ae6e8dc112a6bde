// SPDX-License-Identifier: GPL-2.0

//! One end of the TCP connection, used by one thread that waits when there is nothing to do.
//!
//! A [`Connection`] belongs to its thread, which closes it by dropping it. Its [`Events`] are shared
//! with the socket's callbacks, and with whoever may want to stop the thread. Flags are atomic; the
//! lock only keeps a waiter from missing the change of one.

use crate::lib_linux::{
    socket::{
        Arrivals,
        HookedSocket,
        Socket,
        SocketEvents, //
    },
    thread, //
};
use kernel::{
    new_condvar,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        new_spinlock_irq,
        Arc,
        ArcBorrow,
        CondVar,
        SpinLockIrq, //
    }, //
};

/// What has happened to a socket and was not looked at yet.
#[pin_data]
pub(crate) struct Events {
    /// There may be something to receive.
    rx: Atomic<bool>,
    /// There is room to send again.
    tx: Atomic<bool>,
    stopped: Atomic<bool>,
    #[pin]
    lock: SpinLockIrq<()>,
    #[pin]
    wake: CondVar,
}

impl Events {
    /// Nothing has happened. May sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                rx: Atomic::new(false),
                tx: Atomic::new(false),
                stopped: Atomic::new(false),
                lock <- new_spinlock_irq!((), "tcpbench_events"),
                wake <- new_condvar!("tcpbench_wake"),
            }),
            GFP_KERNEL,
        )
    }

    /// Sets a flag. Any context.
    fn raise(&self, flag: &Atomic<bool>) {
        if !flag.xchg(true, Full) {
            // Whoever has seen the flag clear sleeps by the time the lock can be taken.
            drop(self.lock.lock());
            self.wake.notify_one();
        }
    }

    /// Waits until a flag is set. Thread context.
    ///
    /// # Errors
    ///
    /// `EINTR` if the thread is to stop, or has a signal.
    pub(crate) fn wait(&self) -> Result {
        let mut guard = self.lock.lock();
        while !self.rx.load(Relaxed) && !self.tx.load(Relaxed) {
            if self.stopped.load(Relaxed) || self.wake.wait_interruptible(&mut guard) {
                return Err(EINTR);
            }
        }
        Ok(())
    }

    /// Has nobody wait any more. Any context.
    pub(crate) fn stop(&self) {
        self.raise(&self.stopped);
    }

    /// Forgets what has happened: the caller is about to look. Returns whether there was anything.
    pub(crate) fn take(&self) -> bool {
        let rx = take(&self.rx);
        take(&self.tx) || rx
    }
}

/// Clears a flag; returns what it was. Fully ordered: what the caller finds afterwards is at least as
/// new as what set the flag.
fn take(flag: &Atomic<bool>) -> bool {
    flag.load(Relaxed) && flag.xchg(false, Full)
}

impl SocketEvents for Events {
    fn data_ready(this: ArcBorrow<'_, Self>) {
        this.raise(&this.rx);
    }

    fn write_space(this: ArcBorrow<'_, Self>) {
        this.raise(&this.tx);
    }

    fn state_change(this: ArcBorrow<'_, Self>) {
        // Receiving tells what happened.
        this.raise(&this.rx);
    }
}

impl Arrivals for Events {
    fn arrived(this: ArcBorrow<'_, Self>) {
        this.raise(&this.rx);
    }
}

/// How often one end did what.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Calls to send.
    pub(crate) sends: u64,
    /// Calls to receive, in vain included.
    pub(crate) recvs: u64,
    /// Times that the thread had nothing to do.
    pub(crate) waits: u64,
}

/// One end of an established connection.
pub(crate) struct Connection {
    socket: HookedSocket<Events>,
    events: Arc<Events>,
    can_recv: bool,
    can_send: bool,
    counts: Counts,
}

impl Connection {
    /// Takes a socket that is hooked with `events`. Any context.
    pub(crate) fn new(socket: HookedSocket<Events>, events: Arc<Events>) -> Self {
        Self {
            socket,
            events,
            // What has happened so far may have left no event: look at both.
            can_recv: true,
            can_send: true,
            counts: Counts::default(),
        }
    }

    /// How to stop the thread that uses this.
    pub(crate) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// What was done so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The sizes of the send and receive buffers, as they are now.
    pub(crate) fn buffers(&self) -> (usize, usize) {
        (self.socket.sndbuf(), self.socket.rcvbuf())
    }

    /// Sends by means of `f`, unless it is known that there is no room. Returns the number of bytes,
    /// zero if there is no room. May sleep.
    pub(crate) fn send(&mut self, f: impl FnOnce(&Socket) -> Result<usize>) -> Result<usize> {
        self.can_send |= take(&self.events.tx);
        if !self.can_send {
            return Ok(0);
        }
        self.counts.sends += 1;
        match f(&self.socket) {
            Err(e) if e == EAGAIN => {
                // With room in the buffer it was memory that was missing; nothing will tell when
                // there is some.
                self.can_send = self.socket.has_send_space();
                if self.can_send {
                    self.events.raise(&self.events.tx);
                    thread::cond_resched();
                }
                Ok(0)
            }
            result => result,
        }
    }

    /// Receives by means of `f`, unless it is known that there is nothing. Returns the number of
    /// bytes, zero if there is nothing. May sleep.
    pub(crate) fn recv(&mut self, f: impl FnOnce(&Socket) -> Result<usize>) -> Result<usize> {
        self.can_recv |= take(&self.events.rx);
        if !self.can_recv {
            return Ok(0);
        }
        self.counts.recvs += 1;
        match f(&self.socket) {
            // The other end has closed, which it does not do before all is done.
            Ok(0) => Err(ECONNRESET),
            Err(e) if e == EAGAIN => {
                self.can_recv = false;
                Ok(0)
            }
            result => result,
        }
    }

    /// Waits until it makes sense to try again. Thread context.
    pub(crate) fn wait(&mut self) -> Result {
        self.counts.waits += 1;
        self.events.wait()
    }
}
