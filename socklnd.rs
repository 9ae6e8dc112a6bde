// SPDX-License-Identifier: GPL-2.0

//! `ksocklnd`: Lustre's socket network driver.
//!
//! Moves LNet messages between nodes over TCP, from kernel to kernel. `README.md` has a picture of
//! the parts; each file says at its top what it is and who protects and frees what is in it.
//!
//! # Locks
//!
//! Outermost first. Nobody sleeps or does socket I/O under a spinlock.
//!
//! 1. `Lnd`'s configuration mutex: interfaces come and go one at a time. Nobody waits with it held
//!    until one has ended. Inside it, and elsewhere outermost, the mutex of the acceptor's listeners,
//!    and inside that one a listener's own.
//! 2. A connection's I/O mutex, or a handshake's: taken by the thread that does its I/O, and by the
//!    reaper. The message layer is called under it.
//! 3. A bucket of an interface's peer table (spinlock).
//! 4. A peer (spinlock): its routes, connections and queue.
//! 5. A connection's queue of transmits, an interface instance's list of interfaces, or a peer's
//!    messages that it has yet to acknowledge (spinlocks). `Lnd`'s list of interface instances is
//!    alone but for the second of them, inside it.
//! 6. A pool of forwarding buffers (spinlock), alone but for the first two.
//! 7. A mailbox, a scheduler's list of returned loans, or its book of those that are out (spinlocks,
//!    interrupts off, never two of them): the only locks that callbacks of sockets and of loans take.
//!
//! The ledger of an interface (a mutex) is taken with none of the others held but the first.

#![deny(unsafe_code)]

mod acceptor;
mod autoconnect;
mod conn;
mod context;
mod ctl;
mod debugfs;
mod fwd;
mod hooks;
mod interface;
#[allow(unsafe_code)]
mod lib_linux;
mod mailbox;
mod ni;
mod peer;
mod portals;
mod reaper;
mod route;
mod sched;
mod stats;
mod trace;
mod tunables;
mod tx;
mod wire;

use crate::{
    acceptor::Acceptor,
    autoconnect::Autoconnect,
    conn::{
        Batch,
        Sched, //
    },
    fwd::Forwarder,
    lib_linux::{
        debugfs::Dir,
        global::{
            Instance,
            Published, //
        },
        inetaddr::{
            AddressHandler,
            AddressWatch, //
        },
        misc::{
            self,
            CpuDistance, //
        },
        netns::{
            Net,
            PernetHandler,
            PernetRegistration, //
        },
        page::FragCaches,
        sysctl,
        thread::KThread, //
    },
    ni::Ni,
    portals::bulk::BulkMemory,
    reaper::Reaper,
    stats::Waited,
    wire::Nid, //
};
use core::net::IpAddr;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        new_spinlock,
        Arc,
        Mutex,
        SpinLock, //
    }, //
};

/// How long the module's end waits for network devices before it says so, in milliseconds.
const LOANS_QUIET_MS: u32 = 1000;

/// How often it says so then, in milliseconds.
const LOANS_NAG_MS: u32 = 10_000;

module! {
    type: Ksocklnd,
    name: "ksocklnd",
    authors: ["The socklnd developers"],
    description: "Lustre socket network driver",
    license: "GPL",
}

/// The driver, for those whom the kernel calls without a context.
pub(crate) static LND: Instance<Lnd> = Instance::new();

/// The driver: its threads' queues and its interfaces.
#[pin_data]
pub(crate) struct Lnd {
    scheds: KVec<Arc<Sched>>,
    reaper: Arc<Reaper>,
    autoconnect: Arc<Autoconnect>,
    acceptor: Arc<Acceptor<Ni>>,
    bulk_memory: Arc<BulkMemory>,
    /// How many interfaces were made so far.
    serials: Atomic<u64>,
    /// Held while an interface comes into the list or goes out of it. Says whether that is over for
    /// good. Whoever looks at interfaces needs no more than the list's own lock.
    #[pin]
    config: Mutex<bool>,
    #[pin]
    nis: SpinLock<KVec<Arc<Ni>>>,
    /// One for each namespace in which there has been an interface.
    #[pin]
    forwarders: SpinLock<KVec<Arc<Forwarder>>>,
}

impl Lnd {
    fn new() -> Result<Arc<Self>> {
        let mut scheds = KVec::new();
        match tunables::schedulers() {
            Some(count) => {
                for cpu in misc::online_cpus().take(count) {
                    scheds.push(Sched::new(cpu)?, GFP_KERNEL)?;
                }
            }
            // Also for processors that may come later; a thread they get when they are there.
            None => {
                for cpu in misc::possible_cpus() {
                    scheds.push(Sched::new(cpu)?, GFP_KERNEL)?;
                }
            }
        }
        let reaper = Reaper::new()?;
        let autoconnect = Autoconnect::new()?;
        let acceptor = Acceptor::new()?;
        let bulk_memory = BulkMemory::new()?;
        Arc::pin_init(
            pin_init!(Self {
                scheds,
                reaper,
                autoconnect,
                acceptor,
                bulk_memory,
                serials: Atomic::new(0),
                config <- new_mutex!(false, "socklnd_config"),
                nis <- new_spinlock!(KVec::new(), "socklnd_nis"),
                forwarders <- new_spinlock!(KVec::new(), "socklnd_forwarders"),
            }),
            GFP_KERNEL,
        )
    }

    /// The reaper.
    pub(crate) fn reaper(&self) -> &Arc<Reaper> {
        &self.reaper
    }

    /// The autoconnect daemons.
    pub(crate) fn autoconnect(&self) -> &Arc<Autoconnect> {
        &self.autoconnect
    }

    /// The memory of all bulk services.
    pub(crate) fn bulk_memory(&self) -> &Arc<BulkMemory> {
        &self.bulk_memory
    }

    /// The acceptor.
    pub(crate) fn acceptor(&self) -> &Arc<Acceptor<Ni>> {
        &self.acceptor
    }

    /// The schedulers that have a thread.
    pub(crate) fn scheds(&self) -> impl Iterator<Item = &Arc<Sched>> {
        self.scheds.iter().filter(|sched| sched.is_running())
    }

    /// How many loans of pages to TCP are not finished, of interfaces that have ended too. Any context.
    pub(crate) fn loans(&self) -> i64 {
        self.scheds.iter().map(|sched| sched.loans().get()).sum()
    }

    /// The number of the next interface. Any context.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// The scheduler for a new connection, whose packets arrive on `cpu`: the one there, else the
    /// least busy one nearby. Without affinity, or before there were packets, the least busy of all. Of
    /// those whose processors are offline one is taken only if there is no other. May sleep.
    pub(crate) fn choose_sched(&self, cpu: Option<u32>) -> Result<Arc<Sched>> {
        let cpu = cpu.filter(|_| tunables::irq_affinity());
        let distance = |sched: &Sched| match cpu {
            Some(cpu) => misc::cpu_distance(cpu, sched.cpu()),
            None => CpuDistance::Far,
        };
        let choose = |is_meant: fn(&Arc<Sched>) -> bool| {
            let key = |sched: &Arc<Sched>| match is_meant(sched) {
                true => (distance(sched), sched.nconns()),
                false => (CpuDistance::Far, i64::MAX),
            };
            let chosen = sched::choose(self.scheds.iter().map(key))?;
            self.scheds
                .get(chosen)
                .filter(|sched| is_meant(sched))
                .cloned()
        };
        choose(Sched::is_ready)
            .or_else(|| choose(|sched| sched.is_running()))
            .ok_or(ENODEV)
    }

    /// Applies the tunables that may change during a socket's life to all there are. May sleep.
    ///
    /// # Errors
    ///
    /// The first one; others are changed all the same.
    pub(crate) fn apply_tunables(&self) -> Result {
        let mut result = Ok(());
        for ni in self.all_nis()?.iter() {
            result = result.and(ni.apply_tunables());
        }
        result
    }

    /// Has the reaper look at all peers. May sleep.
    pub(crate) fn remind(&self) -> Result {
        for ni in self.all_nis()?.iter() {
            for peer in ni.peers().collect()?.iter() {
                peer.watch();
            }
        }
        Ok(())
    }

    /// Brings up `nid` in `net`. May sleep.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it is up, `ESHUTDOWN` while the module goes, and those of [`Ni::start`].
    pub(crate) fn add_ni(self: &Arc<Self>, net: Net, nid: Nid) -> Result {
        let over = self.config.lock();
        if *over {
            return Err(ESHUTDOWN);
        }
        if self.find_ni(&net, Some(nid)).is_some() {
            return Err(EEXIST);
        }
        self.start_ni(&net, nid)
    }

    /// Starts an interface that is not there; the holder of `config`.
    fn start_ni(self: &Arc<Self>, net: &Net, nid: Nid) -> Result {
        self.nis.lock().reserve(1, GFP_ATOMIC)?;
        let ni = Ni::start(self, net.clone(), nid)?;
        let pushed = self.nis.lock().push(ni.clone(), GFP_ATOMIC);
        if let Err(e) = pushed {
            ni.end();
            ni.await_end();
            return Err(e.into());
        }
        // What happened to its address before it was listed passed it by.
        self.reaper.look_at_addresses();
        // And what was changed. Without memory for that it is as good as one that was started a moment
        // earlier.
        let _ = ni.apply_tunables();
        Ok(())
    }

    /// Shuts down the interfaces of `net` that match. `ENOENT` if none does. Sleeps, but for nobody
    /// outside, and others can configure meanwhile.
    pub(crate) fn del_ni(&self, net: &Net, nid: Option<Nid>) -> Result {
        let mut any = false;
        while let Some(ni) = self.end_ni(|ni| ni.net() == net && nid.is_none_or(|n| ni.nid() == n))
        {
            ni.await_end();
            any = true;
        }
        if any {
            Ok(())
        } else {
            Err(ENOENT)
        }
    }

    /// Takes out an interface that matches, and ends it; the caller waits until it has ended. May sleep.
    fn end_ni(&self, matching: impl Fn(&Ni) -> bool) -> Option<Arc<Ni>> {
        let _config = self.config.lock();
        let ni = self.take_ni(matching)?;
        ni.end();
        Some(ni)
    }

    /// Makes `nid` the only NID in `net`: starts its interface, in place of another if there is one.
    /// Sleeps.
    ///
    /// If it can't be started, the old one stays.
    ///
    /// # Errors
    ///
    /// `ENOTUNIQ` if there are several, and those of [`Lnd::add_ni`] but `EEXIST`.
    pub(crate) fn set_ni(self: &Arc<Self>, net: &Net, nid: Nid) -> Result {
        if let Some(old) = self.replace_ni(net, nid)? {
            old.await_end();
        }
        Ok(())
    }

    /// As [`Lnd::set_ni`]; what comes back has been ended, and the caller waits until that is over.
    fn replace_ni(self: &Arc<Self>, net: &Net, nid: Nid) -> Result<Option<Arc<Ni>>> {
        let over = self.config.lock();
        if *over {
            return Err(ESHUTDOWN);
        }
        if self.nis.lock().iter().filter(|ni| ni.net() == net).count() > 1 {
            return Err(ENOTUNIQ);
        }
        let old = self.find_ni(net, None);
        if old.as_ref().is_some_and(|old| old.nid() == nid) {
            return Ok(None);
        }
        self.start_ni(net, nid)?;
        if let Some(old) = &old {
            // Nobody else takes it out: `config` is held.
            let _ = self.take_ni(|ni| core::ptr::eq(ni, &**old));
            old.end();
        }
        Ok(old)
    }

    /// Shuts down all interfaces and admits no more. Sleeps; only this waits for network devices.
    fn close(&self) {
        *self.config.lock() = true;
        while let Some(ni) = self.end_ni(|_| true) {
            ni.await_end();
        }
        self.await_loans();
    }

    /// Waits until everybody has let go of the pages that were lent to TCP: whoever does calls this
    /// module's code. It can take as long as a queueing discipline delays packets, or as a program
    /// takes to say what is to become of them. So it says what it waits for, and a signal ends it: then
    /// what is still out is given up for good. Sleeps.
    fn await_loans(&self) {
        let mut limit_ms = LOANS_QUIET_MS;
        for sched in self.scheds.iter() {
            loop {
                match sched.loans().try_wait_zero(limit_ms) {
                    Waited::Zero => break,
                    Waited::InVain => self.tell_of_loans(),
                    Waited::Interrupted => return self.give_up_loans(),
                }
                limit_ms = LOANS_NAG_MS;
            }
        }
    }

    /// Says that the module's end waits for loans. Thread context.
    fn tell_of_loans(&self) {
        let mut books = self.scheds.iter().map(|sched| sched.book());
        let Some((ni, peer)) = books.find_map(|book| book.with_one(Batch::nids)) else {
            // The last ones are just coming back.
            return;
        };
        pr_warn!(
            "removal waits for {} loans of pages, one of {ni} for {peer}: packets with these are in a \
             network device, its queueing discipline, or a netfilter queue; a signal ends the wait\n",
            self.loans()
        );
    }

    /// Gives up the loans that are out. Sleeps, for this module's threads.
    fn give_up_loans(&self) {
        let mut given_up = 0u64;
        for sched in self.scheds.iter() {
            sched.book().disown(|batch: Batch| {
                given_up = given_up.saturating_add(1);
                batch.give_up();
            });
        }
        // The schedulers finish what came back meanwhile.
        for sched in self.scheds.iter() {
            sched.loans().wait_zero();
        }
        pr_warn!("removal was interrupted: {given_up} loans were given up\n");
    }

    fn take_ni(&self, matching: impl Fn(&Ni) -> bool) -> Option<Arc<Ni>> {
        let mut nis = self.nis.lock();
        let at = nis.iter().position(|ni| matching(ni))?;
        nis.remove(at).ok()
    }

    /// The interface with this NID in `net`; the first one there, without a NID.
    pub(crate) fn find_ni(&self, net: &Net, nid: Option<Nid>) -> Option<Arc<Ni>> {
        let nis = self.nis.lock();
        let mut nis = nis.iter();
        nis.find(|ni| ni.net() == net && nid.is_none_or(|n| ni.nid() == n))
            .cloned()
    }

    /// The interface of `net` in network number `network`. Thread context.
    pub(crate) fn ni_in_network(&self, net: &Net, network: u16) -> Option<Arc<Ni>> {
        let nis = self.nis.lock();
        let mut nis = nis.iter();
        nis.find(|ni| ni.net() == net && ni.nid().net() == network)
            .cloned()
    }

    /// The forwarder of `net`, if there is one. Thread context.
    pub(crate) fn find_forwarder(&self, net: &Net) -> Option<Arc<Forwarder>> {
        let forwarders = self.forwarders.lock();
        forwarders.iter().find(|f| f.net() == net).cloned()
    }

    /// The forwarder of `net`, made if there is none: on or off, as the module was told. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also for its buffers.
    pub(crate) fn forwarder(&self, net: &Net) -> Result<Arc<Forwarder>> {
        if let Some(forwarder) = self.find_forwarder(net) {
            return Ok(forwarder);
        }
        let new = Forwarder::new(net.clone())?;
        new.set(tunables::forwarding_at_first())?;
        let mut forwarders = self.forwarders.lock();
        // Somebody else may have been faster.
        if let Some(forwarder) = forwarders.iter().find(|f| f.net() == net) {
            return Ok(forwarder.clone());
        }
        forwarders.push(new.clone(), GFP_ATOMIC)?;
        Ok(new)
    }

    /// Calls `f` for each forwarder, without a lock. One that comes or goes may be missed. Thread
    /// context.
    pub(crate) fn for_each_forwarder(&self, mut f: impl FnMut(&Arc<Forwarder>)) {
        let mut index = 0;
        loop {
            // In a statement of its own: the lock is free again when it is called.
            let forwarder = self.forwarders.lock().get(index).cloned();
            let Some(forwarder) = forwarder else { return };
            f(&forwarder);
            index += 1;
        }
    }

    /// Takes the forwarder of `net` away, which has no interfaces any more. May sleep.
    fn drop_forwarder(&self, net: &Net) {
        let gone = {
            let mut forwarders = self.forwarders.lock();
            let at = forwarders.iter().position(|f| f.net() == net);
            at.and_then(|at| forwarders.remove(at).ok())
        };
        // With no lock held: it may have much to free.
        drop(gone);
    }

    /// The interfaces of `net`, oldest first. May sleep.
    pub(crate) fn nis_in(&self, net: &Net) -> Result<KVec<Arc<Ni>>> {
        self.nis_where(|ni| ni.net() == net)
    }

    /// The interfaces of all namespaces, oldest first. May sleep.
    pub(crate) fn all_nis(&self) -> Result<KVec<Arc<Ni>>> {
        self.nis_where(|_| true)
    }

    /// Waits for nobody: not even for those who configure this moment.
    fn nis_where(&self, matching: impl Fn(&Ni) -> bool) -> Result<KVec<Arc<Ni>>> {
        let mut found = KVec::new();
        loop {
            let count = self.nis.lock().len();
            // Memory first; if there are more by then, once again.
            found.reserve(count, GFP_KERNEL)?;
            let nis = self.nis.lock();
            if nis.len() <= count {
                for ni in nis.iter().filter(|ni| matching(ni)) {
                    let _ = found.push_within_capacity(ni.clone());
                }
                return Ok(found);
            }
        }
    }

    /// The oldest of the interfaces that are younger than number `serial`. An index would not do for
    /// walks: who stands behind an interface that goes would be skipped. Thread context.
    pub(crate) fn ni_after(&self, serial: u64) -> Option<Arc<Ni>> {
        let nis = self.nis.lock();
        let younger = nis.iter().filter(|ni| ni.serial() > serial);
        younger.min_by_key(|ni| ni.serial()).cloned()
    }

    /// Something may have happened to `addr` in `net`. Thread context; does not sleep.
    fn note_address(&self, net: &Net, addr: IpAddr) {
        let nis = self.nis.lock();
        // No reference is taken: giving it back might sleep.
        let here = nis.iter().filter(|ni| ni.net() == net);
        if here.fold(false, |any, ni| any | ni.interfaces().note_change(addr)) {
            self.reaper.look_at_addresses();
        }
    }

    /// Calls `f` for each interface, oldest first, without a lock. One that is there all the time is
    /// met once; one that comes or goes meanwhile may be missed.
    pub(crate) fn for_each_ni(&self, mut f: impl FnMut(&Arc<Ni>)) {
        let mut last = 0;
        while let Some(ni) = self.ni_after(last) {
            last = ni.serial();
            f(&ni);
        }
    }
}

/// A namespace goes: its interfaces go with it.
struct NamespaceExit;

impl PernetHandler for NamespaceExit {
    fn exit(net: &Net) {
        let Some(lnd) = LND.get() else { return };
        // A door like others: what ends here may have peers connect anew.
        misc::memalloc_nofs(|| {
            // No interface there is the normal case.
            let _ = lnd.del_ni(net, None);
            lnd.drop_forwarder(net);
        });
    }
}

/// An address comes or goes, or so it seems: the reaper looks.
struct AddressEvents;

impl AddressHandler for AddressEvents {
    fn address_changed(net: &Net, addr: IpAddr) {
        // Who has published it still holds it: what this drops is not the last reference.
        if let Some(lnd) = LND.get() {
            lnd.note_address(net, addr);
        }
    }
}

/// The threads. Dropping them stops and joins them.
struct Threads {
    lnd: Arc<Lnd>,
    handles: KVec<KThread>,
}

impl Threads {
    fn start(lnd: &Arc<Lnd>) -> Result<Self> {
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

/// Shuts all interfaces down when dropped.
struct Interfaces(Arc<Lnd>);

impl Drop for Interfaces {
    fn drop(&mut self) {
        misc::memalloc_nofs(|| self.0.close());
    }
}

/// When dropped, waits for callbacks on other processors to return: the module's code goes next.
struct Callbacks;

impl Drop for Callbacks {
    fn drop(&mut self) {
        lib_linux::wait_for_callbacks();
    }
}

/// The module. Its fields are dropped in this order: the doors close first, then the interfaces
/// end, then the threads, and last goes what everything else stands on.
#[pin_data]
struct Ksocklnd {
    #[pin]
    device: ctl::Device,
    _debugfs: Dir,
    _sysctls: sysctl::Registration,
    _addresses: AddressWatch<AddressEvents>,
    _interfaces: Interfaces,
    _threads: Threads,
    _published: Published<Lnd>,
    _namespaces: PernetRegistration<NamespaceExit>,
    _callbacks: Callbacks,
    _frags: FragCaches,
}

impl kernel::InPlaceModule for Ksocklnd {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _frags: FragCaches::new(),
            _callbacks: Callbacks,
            _namespaces: PernetRegistration::new()?,
            _published: LND.publish(Lnd::new()?)?,
            // From now on the tunables are checked as they change.
            _threads: {
                tunables::inserted();
                Threads::start(&LND.get().ok_or(ENODEV)?)?
            },
            _interfaces: Interfaces(LND.get().ok_or(ENODEV)?),
            _addresses: AddressWatch::new()?,
            _sysctls: tunables::register_sysctls()?,
            // From here on the module is in use, and nothing may fail any more.
            device <- ctl::Device::new(),
            _debugfs: debugfs::register(),
        })
    }
}

#[kunit_tests(socklnd_lnd)]
mod tests {
    use super::*;
    use crate::{
        peer::{
            Deletion,
            Peer, //
        },
        tx::Completion,
        wire::{
            Body,
            Header,
            WireHandle,
            PID_LUSTRE, //
        }, //
    };
    use core::net::SocketAddr;

    /// A network that nobody else is in.
    const NETWORK: u16 = 4711;

    /// Interfaces on addresses of this machine's own, until this is dropped.
    struct Fixture {
        lnd: Arc<Lnd>,
        net: Net,
    }

    impl Fixture {
        fn new(interfaces: u8) -> Result<Self> {
            let lnd = LND.get().ok_or(ENODEV)?;
            let this = Self {
                lnd,
                net: Net::current(),
            };
            for last in 1..=interfaces {
                let nid = Nid::tcp(NETWORK, [127, 0, 0, last]);
                misc::memalloc_nofs(|| this.lnd.add_ni(this.net.clone(), nid))?;
            }
            Ok(this)
        }

        fn ni(&self) -> Result<Arc<Ni>> {
            let first = self.lnd.ni_in_network(&self.net, NETWORK);
            first.ok_or(ENOENT)
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            while let Ok(ni) = self.ni() {
                let _ = self.lnd.del_ni(&self.net, Some(ni.nid()));
            }
        }
    }

    #[test]
    fn a_walk_meets_the_interface_behind_one_that_goes() -> Result {
        let fixture = Fixture::new(4)?;
        let mut met = 0;
        fixture.lnd.for_each_ni(|ni| {
            if ni.net() == &fixture.net && ni.nid().net() == NETWORK {
                met += 1;
                let _ = fixture.lnd.del_ni(&fixture.net, Some(ni.nid()));
            }
        });
        assert_eq!(met, 4);
        assert!(fixture.ni().is_err());
        Ok(())
    }

    #[test]
    fn a_walk_meets_the_peers_behind_those_that_go() -> Result {
        const PEERS: u16 = 600;
        let fixture = Fixture::new(1)?;
        let ni = fixture.ni()?;
        for index in 0..PEERS {
            let [high, low] = index.to_be_bytes();
            let ip = [10, 1, high, low];
            let addr = SocketAddr::new(IpAddr::from(ip), 988);
            misc::memalloc_nofs(|| ni.add_peer(Nid::tcp(NETWORK, ip), addr))?;
        }
        let mut met = 0;
        let mut met_before = KVec::<Arc<Peer>>::with_capacity(2, GFP_KERNEL)?;
        ni.peers().for_each(|peer| {
            met += 1;
            // Two at a time, most of them from the bucket where the walk is.
            if met_before.len() == 2 {
                for gone in met_before.drain_all() {
                    gone.del_route(None, Deletion::All);
                }
            }
            let _ = met_before.push_within_capacity(peer.clone());
        });
        assert_eq!(met, PEERS);
        Ok(())
    }

    /// Notes whether memory may be waited for by way of file systems where it is completed.
    struct Scope(Arc<Atomic<u32>>);

    impl Completion for Scope {
        fn complete(self: KBox<Self>, result: Result) {
            let fine = misc::is_memalloc_nofs() && result == Err(EHOSTUNREACH);
            self.0.store(if fine { 1 } else { 2 }, Relaxed);
        }
    }

    #[test]
    fn who_sends_does_not_enter_file_systems() -> Result {
        let fixture = Fixture::new(1)?;
        let ni = fixture.ni()?;
        let elsewhere = Nid::tcp(NETWORK + 1, [10, 0, 0, 1]);
        let header = Header {
            dest: elsewhere,
            src: ni.nid(),
            dest_pid: PID_LUSTRE,
            src_pid: PID_LUSTRE,
            payload_len: 0,
            body: Body::Reply {
                dst_wmd: WireHandle::NONE,
            },
        };
        let seen = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        assert!(!misc::is_memalloc_nofs());
        ni.send(
            elsewhere,
            &header,
            None,
            KBox::new(Scope(seen.clone()), GFP_KERNEL)?,
        );
        assert_eq!(seen.load(Relaxed), 1);
        assert!(!misc::is_memalloc_nofs());
        Ok(())
    }
}
