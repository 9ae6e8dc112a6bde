// SPDX-License-Identifier: GPL-2.0

//! Schedulers: the threads that send and receive.
//!
//! There is one per processor, bound to it while it is online. A scheduler of a processor that comes online
//! later starts when the first connection is created that it could serve. A connection belongs to one scheduler
//! for its whole life, and only that scheduler does its socket I/O. The socket's `data_ready` and `write_space`
//! callbacks, and transmits that are queued, post the connection to it. A scheduler without work sleeps.
//!
//! A scheduler uses a connection only through [`Serve`].
//!
//! [`Sched`] is shared by [`Arc`] between [`crate::Lnd`], its thread and its connections. The mailbox's lock
//! protects its queue, and a similar one the list of complete zero-copy batches. What a connection waits for is
//! one atomic word, [`Readiness`], so that a callback takes no lock unless it has to post the connection.

mod readiness;

use crate::{
    lib_linux::{
        misc::{
            self,
            CpuDistance, //
        },
        queue::Fifo,
        socket::{
            ZcDone,
            ZcList,
            ZcOps, //
        },
        thread::{
            self,
            KThread, //
        }, //
    },
    mailbox::{
        Mail,
        Mailbox, //
    },
    stats::Gauge, //
};
use core::ops::Deref;
use kernel::{
    list::{
        ListArcSafe,
        ListItem,
        TryNewListArc, //
    },
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        new_spinlock_irq,
        Arc,
        Mutex,
        SpinLockIrq, //
    }, //
};

pub(crate) use readiness::Readiness;

/// The ID of a connection's links in its scheduler's mailbox.
pub(crate) const SCHED_LIST: u64 = 1;

/// A connection as schedulers see it.
pub(crate) trait Serve:
    ListItem<SCHED_LIST> + ListArcSafe<SCHED_LIST> + TryNewListArc<SCHED_LIST> + Send + Sync + 'static
{
    /// Transmits that it has sent without a copy.
    type ZcBatch: ZcOps + Send + 'static;

    /// Memory that a turn uses. A scheduler has it once, as its connections take turns.
    type Scratch: Send + 'static;

    /// Allocates it. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn scratch() -> Result<Self::Scratch>;

    /// One turn of I/O, of bounded length. The scheduler's thread, no lock held.
    fn run(self: Arc<Self>, scratch: &mut Self::Scratch);

    /// Completes a batch of which TCP needs no page any more. The scheduler's thread, no lock held.
    fn finish(batch: KBox<ZcDone<Self::ZcBatch>>);
}

/// A scheduler: a queue of connections that can make progress, and the thread that serves them.
#[pin_data]
pub(crate) struct Sched<C: Serve> {
    #[pin]
    mailbox: Mailbox<C, SCHED_LIST>,
    /// Batches of which TCP needs no page any more.
    #[pin]
    zc_done: SpinLockIrq<Fifo<ZcDone<C::ZcBatch>>>,
    /// Its connections' batches that packets refer to.
    zc_list: Arc<ZcList<C::ZcBatch>>,
    /// How many batches its connections have, those included that messages can still be added to, and those
    /// in `zc_done`.
    zc_batches: Arc<Gauge>,
    cpu: u32,
    /// How many connections it serves.
    nconns: Atomic<i64>,
    /// Whether the thread runs and has not been stopped.
    running: Atomic<bool>,
    #[pin]
    thread: Mutex<Option<KThread>>,
}

impl<C: Serve> Sched<C> {
    /// A scheduler for `cpu`. Its thread is started by [`Sched::start`]. May sleep.
    pub(crate) fn new(cpu: u32) -> Result<Arc<Self>> {
        let zc_list = ZcList::new()?;
        let zc_batches = Gauge::new()?;
        Arc::pin_init(
            pin_init!(Self {
                zc_list,
                zc_batches,
                mailbox <- Mailbox::new(),
                zc_done <- new_spinlock_irq!(Fifo::new(), "socklnd_sched_zc_done"),
                cpu,
                nconns: Atomic::new(0),
                running: Atomic::new(false),
                thread <- new_mutex!(None, "socklnd_sched_thread"),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts the thread, unless it runs. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ENODEV` if the processor is not online, and those of [`KThread::spawn`].
    pub(crate) fn start(self: &Arc<Self>) -> Result {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let name = CString::try_from_fmt(fmt!("socklnd_sd{:02}", self.cpu))?;
            *thread = Some(KThread::spawn(
                &name,
                Some(self.cpu),
                (self.clone(), C::scratch()?),
                Self::run,
            )?);
            self.running.store(true, Relaxed);
        }
        Ok(())
    }

    /// Makes the thread end when its queue is empty, and waits for that. Called when there are no NIs any more.
    /// Sleeps.
    pub(crate) fn stop(&self) {
        self.mailbox.stop();
        let thread = self.thread.lock().take();
        drop(thread);
        self.running.store(false, Relaxed);
    }

    /// Whether its thread runs. Any context.
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Relaxed)
    }

    /// Whether its processor is online and its thread runs, so that it can serve a new connection. Starts the
    /// thread if necessary. May sleep.
    pub(crate) fn is_ready(self: &Arc<Self>) -> bool {
        misc::is_cpu_online(self.cpu) && (self.is_running() || self.start().is_ok())
    }

    /// The processor that the thread is bound to.
    pub(crate) fn cpu(&self) -> u32 {
        self.cpu
    }

    /// How many connections it serves.
    pub(crate) fn nconns(&self) -> i64 {
        self.nconns.load(Relaxed)
    }

    /// The most connections that have waited for it at the same time. Any context.
    pub(crate) fn queue_peak(&self) -> usize {
        self.mailbox.peak()
    }

    /// Its connections' batches that packets refer to.
    pub(crate) fn zc_list(&self) -> &Arc<ZcList<C::ZcBatch>> {
        &self.zc_list
    }

    /// How many batches its connections have.
    pub(crate) fn zc_batches(&self) -> &Arc<Gauge> {
        &self.zc_batches
    }

    /// Queues a connection, as its [`Readiness`] demands. Any context.
    pub(crate) fn enqueue(&self, conn: Arc<C>) {
        self.mailbox.post(conn);
    }

    /// Has the thread complete a batch of which TCP needs no page any more. Any context.
    pub(crate) fn post_zc_done(&self, batch: KBox<ZcDone<C::ZcBatch>>) {
        self.zc_done.lock().push_back(batch);
        self.mailbox.kick();
    }

    fn finish_zc_done(&self) {
        let mut zc_done = Fifo::new();
        zc_done.append(&mut self.zc_done.lock());
        while let Some(batch) = zc_done.pop_front() {
            C::finish(batch);
        }
    }

    fn run((this, mut scratch): (Arc<Self>, C::Scratch)) {
        loop {
            let mail = this.mailbox.take(None);
            this.finish_zc_done();
            match mail {
                // After its turn the connection goes to the end of the queue, so none starves.
                Mail::Object(conn) => conn.run(&mut scratch),
                Mail::Tick => {}
                Mail::Stop => return,
            }
            thread::cond_resched();
        }
    }
}

/// The index of the scheduler for a new connection: of the nearest ones, that with the fewest connections.
///
/// `scheds` has the distance of each one's processor from where the connection's packets arrive, and how many
/// connections it serves.
pub(crate) fn choose(scheds: impl Iterator<Item = (CpuDistance, i64)>) -> Option<usize> {
    let indexed = scheds.enumerate();
    indexed.min_by_key(|(_, key)| *key).map(|(index, _)| index)
}

/// A connection's reference to its scheduler, which counts the connection while this exists.
pub(crate) struct Assignment<C: Serve>(Arc<Sched<C>>);

impl<C: Serve> Assignment<C> {
    /// A reference to `sched`.
    pub(crate) fn new(sched: Arc<Sched<C>>) -> Self {
        sched.nconns.add(1, Relaxed);
        Self(sched)
    }
}

impl<C: Serve> Deref for Assignment<C> {
    type Target = Arc<Sched<C>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<C: Serve> Drop for Assignment<C> {
    fn drop(&mut self) {
        self.0.nconns.add(-1, Relaxed);
    }
}

#[kunit_tests(socklnd_sched_choice)]
mod tests {
    use super::*;

    #[test]
    fn near_goes_before_idle() {
        use CpuDistance::*;
        let choice = |scheds: &[(CpuDistance, i64)]| choose(scheds.iter().copied());
        assert_eq!(choice(&[]), None);
        assert_eq!(
            choice(&[(Far, 0), (Node, 3), (Same, 9), (Core, 1)]),
            Some(2)
        );
        assert_eq!(
            choice(&[(Far, 0), (Node, 3), (Core, 5), (Core, 4)]),
            Some(3)
        );
        assert_eq!(choice(&[(Far, 0), (Node, 3), (Node, 2)]), Some(2));
        // Without affinity all are as far.
        assert_eq!(choice(&[(Far, 2), (Far, 1), (Far, 1)]), Some(1));
    }
}
