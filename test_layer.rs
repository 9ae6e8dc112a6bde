// SPDX-License-Identifier: GPL-2.0

//! A message layer for scenarios, in kernels with KUnit: it keeps tokens and answers late, from a thread of its
//! own, with memory of all kinds in pieces at odd offsets, and counts what arrives intact.
//!
//! NIs that are started while `enabled` in debugfs's `socklnd_test_layer` is 1 have this layer instead
//! of the module's. A number that is written to `send` makes each of them send as many messages to each other
//! one in its network. `stats` counts the messages by their results.
//!
//! # Lifetime and locks
//!
//! [`State`] is one for the module, shared by [`Arc`] with the layers and with what is under way. Two mutexes
//! protect its lists: `socklnd_test_layers` that of NIs, `socklnd_test_jobs` that of answers that are
//! due. Nothing is called with either of them held. The two threads belong to the [`TestLayer`], which the
//! module drops when no NI is left.

mod buffer;

use self::buffer::{
    Buffer,
    Recipe, //
};
use crate::{
    debugfs::show_counters,
    lib_linux::{
        debugfs::{
            Dir,
            Text, //
        },
        global::{
            Instance,
            Published, //
        },
        netns::Net,
        param::Knob,
        thread::KThread,
        time, //
    },
    stats::counters,
    upper::{
        Answer,
        Cause,
        Completion,
        ConnId,
        Delivery,
        Incoming,
        KeptToken,
        Link,
        LndNi,
        Loss,
        MessageLayer,
        MessageLayers,
        NiRef,
        PeerState,
        RecvToken,
        SentHeader,
        Sink,
        Status, //
    },
    wire::{
        Body,
        Header,
        Nid,
        RawHeader,
        WireHandle,
        PID_LUSTRE, //
    }, //
};
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        CondVar,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Whether NIs that start get this layer.
static ENABLED: Knob = Knob::new(0, 0..=1);

/// How many messages are to be sent to each other NI.
static SEND: Knob = Knob::new(0, 0..=100_000);

static STATS: Text = Text(show_stats);

static STATE: Instance<State> = Instance::new();

/// Messages of one sender that are under way at most, so that memory is bounded.
const MOST: u64 = 32;

/// The interval at which the threads check for work.
const PAUSE_MS: i64 = 2;

/// An answer that is due at `due_ms`, in monotonic milliseconds.
struct Job {
    due_ms: u64,
    kept: KeptToken,
    /// The message.
    number: u64,
}

/// An NI with this layer.
struct Local {
    ni: Arc<dyn LndNi>,
    /// To how many each of the others is yet to be sent.
    left: u64,
}

counters! {
    /// What has become of messages, and what the layer was told of.
    struct Counts {
        /// Messages that were begun to be sent.
        begun,
        sent,
        unsent,
        /// Messages that began to come.
        arriving,
        intact,
        corrupt,
        discarded,
        cut_off,
        /// Changes of links.
        links,
        peers_lost,
    }
}

/// What there is once.
#[pin_data]
struct State {
    real: Arc<dyn MessageLayers>,
    #[pin]
    locals: Mutex<KVec<Local>>,
    /// An NI has come.
    #[pin]
    local_added: CondVar,
    #[pin]
    jobs: Mutex<KVec<Job>>,
    /// An answer will be due.
    #[pin]
    job_added: CondVar,
    is_over: Atomic<bool>,
    numbers: Atomic<u64>,
    counts: Counts,
}

impl State {
    fn new(real: Arc<dyn MessageLayers>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                real,
                locals <- new_mutex!(KVec::new(), "socklnd_test_layers"),
                local_added <- new_condvar!("socklnd_test_layers"),
                jobs <- new_mutex!(KVec::new(), "socklnd_test_jobs"),
                job_added <- new_condvar!("socklnd_test_jobs"),
                is_over: Atomic::new(false),
                numbers: Atomic::new(1),
                counts: Counts::new(),
            }),
            GFP_KERNEL,
        )
    }

    fn under_way(&self) -> u64 {
        let ended = self
            .counts
            .sent
            .get()
            .saturating_add(self.counts.unsent.get());
        self.counts.begun.get().saturating_sub(ended)
    }

    /// Sleeps while there is no NI with this layer, and it is not over. Nobody sends the thread signals.
    fn await_local(&self) {
        let mut locals = self.locals.lock();
        while locals.is_empty() && !self.is_over.load(Relaxed) {
            let _ = self.local_added.wait_interruptible(&mut locals);
        }
    }

    /// Sleeps while no answer will be due, and it is not over. Nobody sends the thread signals.
    fn await_job(&self) {
        let mut jobs = self.jobs.lock();
        while jobs.is_empty() && !self.is_over.load(Relaxed) {
            let _ = self.job_added.wait_interruptible(&mut jobs);
        }
    }

    /// Has both threads end.
    fn end(&self) {
        self.is_over.store(true, Relaxed);
        // A thread that has read the flag before waits once the mutex can be locked.
        drop(self.locals.lock());
        self.local_added.notify_all();
        drop(self.jobs.lock());
        self.job_added.notify_all();
    }

    /// The thread that sends.
    fn send_all(self: Arc<Self>) {
        while !self.is_over.load(Relaxed) {
            self.await_local();
            let mut wanted = 0;
            while SEND.count_down() {
                wanted += 1;
            }
            if wanted > 0 {
                for local in self.locals.lock().iter_mut() {
                    local.left += wanted;
                }
            }
            while self.under_way() < MOST && self.send_round() {}
            fsleep(Delta::from_millis(PAUSE_MS));
        }
    }

    /// Sends one message from each NI that has some left, to each other one. Returns whether any had.
    fn send_round(self: &Arc<Self>) -> bool {
        let mut senders = KVec::new();
        let mut targets = KVec::new();
        {
            let mut locals = self.locals.lock();
            let count = locals.len();
            let reserved = targets
                .reserve(count, GFP_KERNEL)
                .and_then(|()| senders.reserve(count, GFP_KERNEL));
            if reserved.is_err() {
                // Another round has another try.
                return false;
            }
            for local in locals.iter_mut() {
                let _ = targets.push_within_capacity(local.ni.nid());
                if local.left > 0 {
                    local.left -= 1;
                    let _ = senders.push_within_capacity(local.ni.clone());
                }
            }
        }
        for ni in senders.iter() {
            let own = ni.nid();
            for to in targets.iter().copied() {
                if to != own && to.net() == own.net() {
                    self.counts.begun.add(1);
                    let number = self.numbers.fetch_add(1, Relaxed);
                    if self.send_one(ni, to, number).is_err() {
                        self.counts.unsent.add(1);
                    }
                }
            }
        }
        !senders.is_empty()
    }

    fn send_one(self: &Arc<Self>, ni: &Arc<dyn LndNi>, to: Nid, number: u64) -> Result {
        let recipe = Recipe::new(number);
        let buffer = Buffer::new(&recipe)?;
        buffer.fill(recipe.len(), number)?;
        let payload = match recipe.len {
            0 => None,
            _ => Some(buffer.memory(recipe.len())?),
        };
        let header = Header {
            dest: to,
            src: ni.nid(),
            dest_pid: PID_LUSTRE,
            src_pid: PID_LUSTRE,
            payload_len: recipe.len,
            body: Body::Put {
                ack_wmd: WireHandle::NONE,
                match_bits: number,
                hdr_data: 0,
                portal: 0,
                offset: 0,
            },
        };
        let done = KBox::new(
            Sent {
                state: self.clone(),
                _buffer: buffer,
            },
            GFP_KERNEL,
        )?;
        let raw = RawHeader::from_header(&header)?;
        let header = if number % 2 == 0 {
            SentHeader::Raw(&raw)
        } else {
            SentHeader::Parsed(&header)
        };
        ni.as_arc_borrow()
            .send(to, Cause::Own, header, payload, done);
        Ok(())
    }

    /// The thread that answers.
    fn answer_all(self: Arc<Self>) {
        loop {
            self.await_job();
            let over = self.is_over.load(Relaxed);
            let now = if over { u64::MAX } else { time::monotonic_ms() };
            while let Some(job) = self.due(now) {
                let delivery = self.delivery(job.number);
                job.kept.deliver(delivery);
            }
            if over {
                return;
            }
            fsleep(Delta::from_millis(PAUSE_MS));
        }
    }

    fn due(&self, now: u64) -> Option<Job> {
        let mut jobs = self.jobs.lock();
        let at = jobs.iter().position(|job| job.due_ms <= now)?;
        jobs.remove(at).ok()
    }

    /// Where the message with this number goes.
    fn delivery(self: &Arc<Self>, number: u64) -> Delivery {
        match self.sink(number) {
            Ok(sink) => Delivery::Accept(sink),
            Err(_) => {
                self.counts.discarded.add(1);
                Delivery::Discard
            }
        }
    }

    fn sink(self: &Arc<Self>, number: u64) -> Result<Sink> {
        // Other memory than it was sent from.
        let recipe = Recipe {
            len: Recipe::new(number).len,
            ..Recipe::new(number / 3)
        };
        let buffer = Buffer::new(&recipe)?;
        let memory = buffer.memory(recipe.len())?;
        let done = Got {
            state: self.clone(),
            buffer,
            len: recipe.len(),
            number,
        };
        Ok(Sink {
            memory,
            done: KBox::new(done, GFP_KERNEL)?,
        })
    }
}

/// When a message was sent, or was not.
struct Sent {
    state: Arc<State>,
    _buffer: Buffer,
}

impl Completion for Sent {
    fn complete(self: KBox<Self>, status: Status) {
        match status {
            Ok(()) => self.state.counts.sent.add(1),
            Err(_) => self.state.counts.unsent.add(1),
        }
    }
}

/// When a payload was received, or was not.
struct Got {
    state: Arc<State>,
    buffer: Buffer,
    len: usize,
    number: u64,
}

impl Completion for Got {
    fn complete(self: KBox<Self>, status: Status) {
        let state = &self.state;
        match status.map(|()| self.buffer.is_intact(self.len, self.number)) {
            Ok(Ok(true)) => state.counts.intact.add(1),
            Ok(Ok(false)) => state.counts.corrupt.add(1),
            // There was no memory to compare with.
            Ok(Err(_)) => state.counts.discarded.add(1),
            Err(_) => state.counts.cut_off.add(1),
        }
    }
}

/// The layer of one NI.
struct Layer(Arc<State>);

impl MessageLayer for Layer {
    fn started(&self, ni: NiRef<'_>) -> Result {
        let local = Local {
            ni: ni.into(),
            left: 0,
        };
        self.0.locals.lock().push(local, GFP_KERNEL)?;
        self.0.local_added.notify_all();
        Ok(())
    }

    fn parse(&self, ni: NiRef<'_>, msg: &Incoming<'_>, token: RecvToken<'_>) -> Result<Answer> {
        let header = msg.header.map_err(|_| EPROTO)?;
        // What another layer would be given.
        if msg.raw_header()?.parse() != Ok(*header) || header.dest != ni.nid() {
            return Err(EPROTO);
        }
        let Body::Put { match_bits, .. } = header.body else {
            return Ok(token.deliver(Delivery::Discard));
        };
        let (state, number) = (&self.0, match_bits);
        if Recipe::new(number).len != header.payload_len {
            return Err(EPROTO);
        }
        state.counts.arriving.add(1);
        if number % 4 == 0 {
            return Ok(token.deliver(state.delivery(number)));
        }
        let (answer, kept) = token.keep();
        let job = Job {
            due_ms: time::monotonic_ms().saturating_add(number % 13),
            kept,
            number,
        };
        let mut jobs = state.jobs.lock();
        if jobs.reserve(1, GFP_KERNEL).is_err() {
            drop(jobs);
            // The token is dropped, and the payload with it.
            state.counts.discarded.add(1);
            return Ok(answer);
        }
        // There is room: it was reserved.
        let _ = jobs.push_within_capacity(job);
        drop(jobs);
        state.job_added.notify_all();
        Ok(answer)
    }

    fn peer_down(&self, _ni: NiRef<'_>, _peer: Nid, _loss: Loss, _last_alive_ms: u64) {
        self.0.counts.peers_lost.add(1);
    }

    fn conn_ended(&self, _conn: ConnId, _why: Error) {}

    fn peer_found(&self, _ni: NiRef<'_>, _peer: Nid, _state: PeerState) {}

    fn link_changed(&self, _ni: NiRef<'_>, _link: Link) {
        self.0.counts.links.add(1);
    }

    fn shutdown(&self, ni: NiRef<'_>) {
        let gone = {
            let mut locals = self.0.locals.lock();
            let is_it = |local: &Local| local.ni.nid() == ni.nid() && local.ni.net() == ni.net();
            let at = locals.iter().position(is_it);
            at.and_then(|at| locals.remove(at).ok())
        };
        drop(gone);
    }
}

impl MessageLayers for State {
    fn startup(&self, net: &Net, nid: Nid) -> Result<Arc<dyn MessageLayer>> {
        match (ENABLED.get(), STATE.get()) {
            (1, Some(state)) => Ok(Arc::new(Layer(state), GFP_KERNEL)?),
            _ => self.real.startup(net, nid),
        }
    }

    fn tick(&self, now_ms: u64) {
        self.real.tick(now_ms);
    }

    fn namespace_gone(&self, net: &Net) {
        self.real.namespace_gone(net);
    }
}

/// The files and the threads.
pub(crate) struct TestLayer {
    // Dropped in this order.
    _dir: Dir,
    threads: KVec<KThread>,
    _published: Published<State>,
    state: Arc<State>,
}

impl TestLayer {
    /// With `real` for all NIs that are not to have this layer. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINTR`.
    pub(crate) fn new(real: Arc<dyn MessageLayers>) -> Result<Self> {
        let state = State::new(real)?;
        let mut this = Self {
            _published: STATE.publish(state.clone())?,
            _dir: Dir::new(c"socklnd_test_layer"),
            threads: KVec::with_capacity(2, GFP_KERNEL)?,
            state,
        };
        this._dir.knob(c"enabled", &ENABLED);
        this._dir.knob(c"send", &SEND);
        this._dir.text(c"stats", &STATS);
        let threads: [(&CStr, fn(Arc<State>)); 2] = [
            (c"socklnd_test_tx", State::send_all),
            (c"socklnd_test_rx", State::answer_all),
        ];
        for (name, run) in threads {
            // If the second fails, `this` has the first, and tells it to end before it waits for it.
            let thread = KThread::spawn(name, None, this.state.clone(), run)?;
            // There is room for two.
            let _ = this.threads.push_within_capacity(thread);
        }
        Ok(this)
    }

    /// What makes the layers of NIs, in place of `real`.
    pub(crate) fn layers(real: Arc<dyn MessageLayers>) -> Arc<dyn MessageLayers> {
        match STATE.get() {
            Some(state) => state,
            None => real,
        }
    }
}

impl Drop for TestLayer {
    fn drop(&mut self) {
        self.state.end();
    }
}

fn show_stats(out: &SeqFile) {
    let Some(state) = STATE.get() else { return };
    show_counters(out, "", state.counts.all());
}
