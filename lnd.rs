// SPDX-License-Identifier: GPL-2.0

//! The driver as a whole: its threads' queues, and the list of its NIs.
//!
//! [`Lnd`] is created when the module is inserted, and shared by [`Arc`]. [`LND`] refers to it from then until
//! the module is removed. `config`, a mutex, is held while an NI is added or removed. The list has a
//! spinlock, and shares the NIs by [`Arc`].

mod driver;
mod events;
mod threads;
mod zerocopy;

pub(crate) use self::{
    events::{
        AddressEvents,
        NamespaceExit, //
    },
    threads::Threads, //
};
use crate::{
    acceptor::Acceptor,
    autoconnect::Autoconnect,
    conn::Sched,
    lib_linux::{
        global::Instance,
        misc::{
            self,
            CpuDistance, //
        },
        netns::Net, //
    },
    ni::Ni,
    reaper::Reaper,
    sched,
    tunables,
    upper::{
        MessageLayer,
        MessageLayers, //
    },
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

/// The driver, for callbacks that the kernel calls without a context.
pub(crate) static LND: Instance<Lnd> = Instance::new();

/// The driver: its threads' queues and its NIs.
#[pin_data]
pub(crate) struct Lnd {
    scheds: KVec<Arc<Sched>>,
    reaper: Arc<Reaper>,
    autoconnect: Arc<Autoconnect>,
    acceptor: Arc<Acceptor<Ni>>,
    upper: Arc<dyn MessageLayers>,
    /// How many NIs were created so far.
    serials: Atomic<u64>,
    /// Held while an NI is added to the list or removed. True once no more can be added. Code that only reads the
    /// list needs its own lock alone.
    #[pin]
    config: Mutex<bool>,
    #[pin]
    nis: SpinLock<KVec<Arc<Ni>>>,
}

impl Lnd {
    /// A driver without threads and NIs: see [`Threads`] and [`Lnd::add_ni`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(upper: Arc<dyn MessageLayers>) -> Result<Arc<Self>> {
        let mut scheds = KVec::new();
        match tunables::schedulers() {
            Some(count) => {
                for cpu in misc::online_cpus().take(count) {
                    scheds.push(Sched::new(cpu)?, GFP_KERNEL)?;
                }
            }
            // Also for processors that come online later; their threads start then.
            None => {
                for cpu in misc::possible_cpus() {
                    scheds.push(Sched::new(cpu)?, GFP_KERNEL)?;
                }
            }
        }
        let reaper = Reaper::new()?;
        let autoconnect = Autoconnect::new()?;
        let acceptor = Acceptor::new()?;
        Arc::pin_init(
            pin_init!(Self {
                scheds,
                reaper,
                autoconnect,
                acceptor,
                upper,
                serials: Atomic::new(0),
                config <- new_mutex!(false, "socklnd_config"),
                nis <- new_spinlock!(KVec::new(), "socklnd_nis"),
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

    /// The message layer.
    pub(crate) fn upper(&self) -> &dyn MessageLayers {
        &*self.upper
    }

    /// The acceptor.
    pub(crate) fn acceptor(&self) -> &Arc<Acceptor<Ni>> {
        &self.acceptor
    }

    /// The schedulers whose threads run.
    pub(crate) fn scheds(&self) -> impl Iterator<Item = &Arc<Sched>> {
        self.scheds.iter().filter(|sched| sched.is_running())
    }

    /// How many batches of transmits sent without a copy there are, of NIs that have ended too. Any context.
    pub(crate) fn zc_batches(&self) -> i64 {
        self.scheds
            .iter()
            .map(|sched| sched.zc_batches().get())
            .sum()
    }

    /// A serial number for a new NI. Any context.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// The scheduler for a new connection whose packets arrive on `cpu`: the one of that processor, else the one
    /// with the fewest connections nearby. Without affinity, or if no packet has arrived yet, the one with the
    /// fewest connections of all. One whose processor `is_wanted` goes before others; one whose processor is
    /// offline is used only if there is no other. May sleep.
    pub(crate) fn choose_sched(
        &self,
        cpu: Option<u32>,
        is_wanted: &dyn Fn(u32) -> bool,
    ) -> Result<Arc<Sched>> {
        let cpu = cpu.filter(|_| tunables::irq_affinity());
        let distance = |sched: &Sched| match cpu {
            Some(cpu) => misc::cpu_distance(cpu, sched.cpu()),
            None => CpuDistance::Far,
        };
        let choose = |is_meant: &dyn Fn(&Arc<Sched>) -> bool| {
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
        choose(&|sched| sched.is_ready() && is_wanted(sched.cpu()))
            .or_else(|| choose(&|sched| sched.is_ready()))
            .or_else(|| choose(&|sched| sched.is_running()))
            .ok_or(ENODEV)
    }

    /// Applies the tunables that can change during a socket's life to all sockets. May sleep.
    ///
    /// # Errors
    ///
    /// The first error; the other sockets are changed nevertheless.
    pub(crate) fn apply_tunables(&self) -> Result {
        let mut result = Ok(());
        for ni in self.all_nis()?.iter() {
            result = result.and(ni.apply_tunables());
        }
        result
    }

    /// Makes the reaper check all peers. May sleep.
    pub(crate) fn remind(&self) -> Result {
        for ni in self.all_nis()?.iter() {
            for peer in ni.peers().collect()?.iter() {
                peer.queue_busy();
            }
        }
        Ok(())
    }

    /// Brings up `nid` in `net`. May sleep.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it is up, `ESHUTDOWN` while the module is removed, and those of [`Ni::start`].
    pub(crate) fn add_ni(self: &Arc<Self>, net: Net, nid: Nid) -> Result {
        self.add_ni_under(&net, nid, || self.upper.startup(&net, nid))?;
        Ok(())
    }

    /// As [`Lnd::add_ni`], with the message layer that `startup` makes. Returns the NI.
    fn add_ni_under(
        self: &Arc<Self>,
        net: &Net,
        nid: Nid,
        startup: impl FnOnce() -> Result<Arc<dyn MessageLayer>>,
    ) -> Result<Arc<Ni>> {
        let over = self.config.lock();
        if *over {
            return Err(ESHUTDOWN);
        }
        if self.find_ni(net, Some(nid)).is_some() {
            return Err(EEXIST);
        }
        self.start_ni(net, nid, startup()?)
    }

    /// Starts an NI that does not exist yet, and returns it. The caller holds `config`.
    fn start_ni(
        self: &Arc<Self>,
        net: &Net,
        nid: Nid,
        upper: Arc<dyn MessageLayer>,
    ) -> Result<Arc<Ni>> {
        self.nis.lock().reserve(1, GFP_ATOMIC)?;
        let ni = Ni::start(
            self.clone(),
            self.acceptor(),
            self.next_serial(),
            net.clone(),
            nid,
            upper,
        )?;
        let pushed = self.nis.lock().push(ni.clone(), GFP_ATOMIC);
        if let Err(e) = pushed {
            ni.end();
            ni.await_end();
            return Err(e.into());
        }
        if let Err(e) = ni.upper().started(ni.as_arc_borrow()) {
            // No other thread takes it out: `config` is held.
            let _ = self.take_ni(|other| core::ptr::eq(other, &*ni));
            ni.end();
            ni.await_end();
            return Err(e);
        }
        ni.set_started();
        // Its address may have changed before it was in the list.
        self.reaper.check_addresses();
        // Tunables may have changed as well. An error does not matter: it keeps the values of when it started.
        let _ = ni.apply_tunables();
        Ok(ni)
    }

    /// Shuts down the NIs of `net` that match; `ENOENT` if none does. Sleeps, but waits for nothing outside of
    /// this module, and does not hold `config` meanwhile.
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

    /// Takes out an NI that matches, and ends it; the caller waits until it has ended. May sleep.
    fn end_ni(&self, matching: impl Fn(&Ni) -> bool) -> Option<Arc<Ni>> {
        let _config = self.config.lock();
        let ni = self.take_ni(matching)?;
        ni.end();
        Some(ni)
    }

    /// Makes `nid` the only NID in `net`: starts its NI, which replaces another if there is one. Sleeps.
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

    /// As [`Lnd::set_ni`]. Returns the old NI, which is ending; the caller waits until it has ended.
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
        self.start_ni(net, nid, self.upper.startup(net, nid)?)?;
        if let Some(old) = &old {
            // No other thread takes it out: `config` is held.
            let _ = self.take_ni(|ni| core::ptr::eq(ni, &**old));
            old.end();
        }
        Ok(old)
    }

    /// Shuts down all NIs, and lets no more be added. Sleeps; only this waits for network devices.
    pub(crate) fn close(&self) {
        *self.config.lock() = true;
        while let Some(ni) = self.end_ni(|_| true) {
            ni.await_end();
        }
        self.await_zc_batches();
    }

    fn take_ni(&self, matching: impl Fn(&Ni) -> bool) -> Option<Arc<Ni>> {
        let mut nis = self.nis.lock();
        let at = nis.iter().position(|ni| matching(ni))?;
        nis.remove(at).ok()
    }

    /// The NI with this NID in `net`; without a NID, the first one there.
    pub(crate) fn find_ni(&self, net: &Net, nid: Option<Nid>) -> Option<Arc<Ni>> {
        let nis = self.nis.lock();
        let mut nis = nis.iter();
        nis.find(|ni| ni.net() == net && nid.is_none_or(|n| ni.nid() == n))
            .cloned()
    }

    /// The NIs of `net`, oldest first. May sleep to allocate memory; does not take `config`.
    pub(crate) fn nis_in(&self, net: &Net) -> Result<KVec<Arc<Ni>>> {
        misc::cloned_where(&self.nis, |ni| ni.net() == net)
    }

    /// The NIs of all namespaces, oldest first. As [`Lnd::nis_in`].
    pub(crate) fn all_nis(&self) -> Result<KVec<Arc<Ni>>> {
        misc::cloned_where(&self.nis, |_| true)
    }

    /// The NI with the lowest serial number above `serial`. A walk by index would skip the NI behind one that is
    /// removed. Thread context.
    pub(crate) fn ni_after(&self, serial: u64) -> Option<Arc<Ni>> {
        let nis = self.nis.lock();
        let younger = nis.iter().filter(|ni| ni.serial() > serial);
        younger.min_by_key(|ni| ni.serial()).cloned()
    }

    /// `addr` in `net` may have changed. Thread context; does not sleep.
    fn note_address(&self, net: &Net, addr: IpAddr) {
        let nis = self.nis.lock();
        // No reference is taken, because dropping it might sleep.
        let here = nis.iter().filter(|ni| ni.net() == net);
        if here.fold(false, |any, ni| any | ni.interfaces().note_change(addr)) {
            self.reaper.check_addresses();
        }
    }

    /// Calls `f` for each NI, oldest first, with no lock held. An NI that exists all the time is visited once; one
    /// that is added or removed meanwhile may be missed.
    pub(crate) fn walk_nis(&self, mut f: impl FnMut(&Arc<Ni>)) {
        let mut last = 0;
        while let Some(ni) = self.ni_after(last) {
            last = ni.serial();
            f(&ni);
        }
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
        upper::{
            Cause,
            Completion,
            Failure,
            Health,
            LndNi,
            SentHeader,
            Status, //
        },
        wire::{
            Body,
            Header,
            WireHandle,
            PID_LUSTRE, //
        }, //
    };
    use core::net::SocketAddr;

    /// A network without other NIs.
    const NETWORK: u16 = 4711;

    /// NIs on addresses of this machine's own, until this is dropped.
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
            let nis = self.lnd.nis_in(&self.net)?;
            let mut nis = nis.iter().filter(|ni| ni.nid().net() == NETWORK);
            nis.next().cloned().ok_or(ENOENT)
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
        fixture.lnd.walk_nis(|ni| {
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
        ni.peers().walk(|peer| {
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
        fn complete(self: KBox<Self>, status: Status) {
            let fine = misc::is_memalloc_nofs()
                && status == Err(Failure::new(EHOSTUNREACH, Health::LocalNoRoute));
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
        LndNi::send(
            ni.as_arc_borrow(),
            elsewhere,
            Cause::Own,
            SentHeader::Parsed(&header),
            None,
            KBox::new(Scope(seen.clone()), GFP_KERNEL)?,
        );
        assert_eq!(seen.load(Relaxed), 1);
        assert!(!misc::is_memalloc_nofs());
        Ok(())
    }
}
