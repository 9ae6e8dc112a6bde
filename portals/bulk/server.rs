// SPDX-License-Identifier: GPL-2.0

//! The side of the bulk service that offers it.
//!
//! A [`Service`] belongs to whoever started it, and ends the service when it is dropped. Sessions
//! belong to the [`BulkService`], in a list under its mutex; they are made, closed and forgotten
//! under it, in the thread that received the request. A session is also the handler of its memory,
//! so messages of it that are under way keep it alive a little longer.
//!
//! Contents are hashed in the thread that received them, under the I/O mutex of that connection
//! alone: it is the time of this connection that it takes, which slows its sender down as a slow
//! receiver should.

use super::{
    memory::{
        BulkMemory,
        Grant, //
    },
    nonce_in,
    BulkOp,
    Kind,
    Offer,
    State,
    ANY_SESSION,
    NO_SESSION,
    PORTAL_GET,
    PORTAL_PUT,
    STATE_LEN, //
};
use crate::{
    lib_linux::{
        page::{
            PageRange,
            Pages, //
        },
        ratelimit::pr_info_ratelimited,
        time, //
    },
    portals::{
        md::{
            Access,
            Event,
            Handler,
            Md,
            Placement,
            Reuse, //
        },
        table::{
            Criteria,
            MeHandle,
            Position, //
        },
        Core, //
    },
    tunables,
    wire::Nid,
};
use kernel::{
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLock, //
    }, //
};

/// The most sessions at a time.
const MAX_SESSIONS: usize = 32;
/// The most sessions that were opened by one NID.
const MAX_PER_CLIENT: usize = 4;
/// A session may be forgotten when nothing was heard of it for so long.
const IDLE_MS: u64 = 30_000;

/// A client's session.
#[pin_data]
struct Session {
    /// By which NID it was opened. Others of the client's may use it.
    client: Nid,
    nonce: u64,
    offer: Offer,
    /// What has happened so far. Its lock also protects the copy in `page`.
    #[pin]
    state: SpinLock<State>,
    /// The state as the client gets it.
    page: Arc<Pages>,
    last_used_ms: Atomic<u64>,
    /// The client was lost since.
    is_lost: Atomic<bool>,
    /// For the memory of all slots, which is in use as long as a message of the session is under way.
    _grant: Grant,
}

impl Session {
    fn new(client: Nid, nonce: u64, offer: Offer, grant: Grant) -> Result<Arc<Self>> {
        let page = Arc::new(Pages::alloc(STATE_LEN)?, GFP_KERNEL)?;
        let state = State {
            size: offer.size,
            window: offer.window(),
            ..State::default()
        };
        page.copy_in(0, &state.to_bytes())?;
        Arc::pin_init(
            pin_init!(Self {
                client,
                nonce,
                offer,
                state <- new_spinlock!(state, "socklnd_bulk_state"),
                page,
                last_used_ms: Atomic::new(time::monotonic_ms()),
                is_lost: Atomic::new(false),
                _grant: grant,
            }),
            GFP_KERNEL,
        )
    }

    /// Whether what arrived is what was sent.
    fn is_right(&self, event: &Event) -> bool {
        if event.rlength != self.offer.size || event.mlength != self.offer.size {
            return false;
        }
        let range = &event.range;
        !self.offer.verify
            || range.pages().xxh64(range.offset(), range.len(), 0) == Ok(event.hdr_data)
    }

    fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.last_used_ms.load(Relaxed))
    }

    fn may_be_forgotten(&self, now_ms: u64) -> bool {
        self.is_lost.load(Relaxed) || self.idle_ms(now_ms) >= IDLE_MS
    }
}

impl Handler for Session {
    fn event(&self, _core: &Arc<Core>, event: &Event) {
        // Before the lock: this takes its time.
        let is_right = match event.access {
            Access::Put => event.result.is_ok() && self.is_right(event),
            Access::Get => true,
        };
        self.last_used_ms.store(time::monotonic_ms(), Relaxed);
        self.is_lost.store(false, Relaxed);
        let mut state = self.state.lock();
        if event.result.is_err() {
            state.broken = state.broken.wrapping_add(1);
        } else {
            if is_right {
                state.good = state.good.wrapping_add(1);
            } else {
                state.bad = state.bad.wrapping_add(1);
            }
            state.bytes = state.bytes.wrapping_add(u64::from(event.mlength));
        }
        // Under the lock, so that no older state overwrites a newer one. The page is long enough.
        let _ = self.page.copy_in(0, &state.to_bytes());
    }
}

/// A session and its match entries, which are in the table of `core`. That holds the service, but only
/// until it is stopped, when all sessions are closed.
struct Open {
    core: Arc<Core>,
    session: Arc<Session>,
    entries: KVec<MeHandle>,
}

impl Open {
    /// Makes the memory of a session and posts it.
    fn new(core: &Arc<Core>, client: Nid, nonce: u64, offer: Offer, grant: Grant) -> Result<Self> {
        let mut open = Self {
            core: core.clone(),
            session: Session::new(client, nonce, offer, grant)?,
            entries: KVec::new(),
        };
        match open.post() {
            Ok(()) => Ok(open),
            Err(e) => {
                open.unlink();
                Err(e)
            }
        }
    }

    fn post(&mut self) -> Result {
        let session = self.session.clone();
        let offer = session.offer;
        match offer.op {
            BulkOp::Put => {
                for slot in 0..offer.window() {
                    let size = offer.size as usize;
                    let pages = Arc::new(Pages::alloc(size)?, GFP_KERNEL)?;
                    let range = PageRange::new(pages, 0, size)?;
                    self.attach(Kind::Data, slot, range, Reuse::OneAtATime)?;
                }
            }
            BulkOp::Get => {
                let len = offer.pattern_len();
                let pages = Arc::new(Pages::alloc(len)?, GFP_KERNEL)?;
                pages.fill_pattern(0, len, session.nonce)?;
                let range = PageRange::new(pages, 0, len)?;
                self.attach(Kind::Data, 0, range, Reuse::Always)?;
            }
        }
        // The state last: who sees it may count on the rest.
        let range = PageRange::new(session.page.clone(), 0, STATE_LEN)?;
        self.attach(Kind::State, 0, range, Reuse::Always)
    }

    fn attach(&mut self, kind: Kind, slot: u32, range: PageRange, reuse: Reuse) -> Result {
        let is_put = kind == Kind::Data && self.session.offer.op == BulkOp::Put;
        let handler: Option<Arc<dyn Handler>> = match kind {
            Kind::Data => Some(self.session.clone()),
            _ => None,
        };
        let md = Md {
            range,
            access: if is_put { Access::Put } else { Access::Get },
            truncate: false,
            placement: Placement::Remote,
            reuse,
            handler,
        };
        let criteria = Criteria {
            portal: if is_put { PORTAL_PUT } else { PORTAL_GET },
            match_bits: kind.bits(self.session.nonce, slot),
            ignore_bits: 0,
            // A number that nobody can guess is enough.
            source: None,
        };
        self.entries.reserve(1, GFP_KERNEL)?;
        // In front of the entry that says that there is no such session.
        let me = self
            .core
            .attach(criteria, Position::First, &Arc::new(md, GFP_KERNEL)?)?;
        self.entries.push(me, GFP_KERNEL)?;
        Ok(())
    }

    fn unlink(self) {
        for me in self.entries.iter() {
            self.core.unlink(*me);
        }
    }
}

struct Inner {
    sessions: KVec<Open>,
    /// The entries for requests.
    entries: KVec<MeHandle>,
    is_stopped: bool,
}

/// The service of one interface.
#[pin_data]
pub(in crate::portals) struct BulkService {
    memory: Arc<BulkMemory>,
    /// Outside the lock of the portal table.
    #[pin]
    inner: Mutex<Inner>,
}

impl BulkService {
    fn new(memory: &Arc<BulkMemory>) -> Result<Arc<Self>> {
        let sessions = KVec::with_capacity(MAX_SESSIONS, GFP_KERNEL)?;
        let entries = KVec::with_capacity(3, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                memory: memory.clone(),
                inner <- new_mutex!(
                    Inner {
                        sessions,
                        entries,
                        is_stopped: false,
                    },
                    "socklnd_bulk_service"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Posts the entries for requests.
    fn post(self: &Arc<Self>, core: &Core) -> Result {
        // Requests have no payload; what comes as one is cut off.
        let nothing = Arc::new(Pages::alloc(0)?, GFP_KERNEL)?;
        for kind in [Kind::Open, Kind::Close] {
            let range = PageRange::new(nothing.clone(), 0, 0)?;
            self.attach(core, kind, range, Access::Put)?;
        }
        let none = State {
            status: NO_SESSION,
            ..State::default()
        };
        let pages = Pages::alloc(STATE_LEN)?;
        pages.copy_in(0, &none.to_bytes())?;
        let range = PageRange::new(Arc::new(pages, GFP_KERNEL)?, 0, STATE_LEN)?;
        self.attach(core, Kind::State, range, Access::Get)
    }

    fn attach(
        self: &Arc<Self>,
        core: &Core,
        kind: Kind,
        range: PageRange,
        access: Access,
    ) -> Result {
        let handler: Option<Arc<dyn Handler>> = match access {
            Access::Put => Some(self.clone()),
            Access::Get => None,
        };
        let md = Md {
            range,
            access,
            truncate: true,
            placement: Placement::Remote,
            reuse: Reuse::Always,
            handler,
        };
        let criteria = Criteria {
            portal: match access {
                Access::Put => PORTAL_PUT,
                Access::Get => PORTAL_GET,
            },
            match_bits: kind.bits(0, 0),
            ignore_bits: ANY_SESSION,
            source: None,
        };
        let mut inner = self.inner.lock();
        let me = core.attach(criteria, Position::Last, &Arc::new(md, GFP_KERNEL)?)?;
        inner.entries.push(me, GFP_KERNEL)?;
        Ok(())
    }

    /// Opens a session, unless it is open.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there are too many, `ENOMEM`, `ENOSPC`, `ESHUTDOWN`.
    fn open(&self, core: &Arc<Core>, client: Nid, nonce: u64, offer: Offer) -> Result {
        let mut inner = self.inner.lock();
        if inner.is_stopped {
            return Err(ESHUTDOWN);
        }
        if inner.position(nonce).is_some() {
            return Ok(());
        }
        let grant = inner.make_room(&self.memory, client, offer.server_bytes())?;
        let open = Open::new(core, client, nonce, offer, grant)?;
        if let Err(e) = inner.sessions.push_within_capacity(open) {
            // Can't be: there was room made for it.
            e.0.unlink();
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Closes a session, if it is open.
    fn close(&self, nonce: u64) {
        let mut inner = self.inner.lock();
        if let Some(at) = inner.position(nonce) {
            inner.forget(at);
        }
    }

    /// Forgets the session that was idle for longest of those that may be forgotten, for another
    /// service's sake. Returns whether there was one. May sleep.
    pub(super) fn forget_one(&self) -> bool {
        let Some(mut inner) = self.inner.try_lock() else {
            return false;
        };
        let oldest = inner.oldest(None);
        if let Some(at) = oldest {
            inner.forget(at);
        }
        oldest.is_some()
    }

    /// A client was lost: its sessions are the first to make room for others.
    pub(in crate::portals) fn peer_down(&self, peer: Nid) {
        let inner = self.inner.lock();
        for open in inner.sessions.iter() {
            if open.session.client == peer {
                open.session.is_lost.store(true, Relaxed);
            }
        }
    }

    /// Ends the service: takes back all that was posted. May sleep.
    pub(in crate::portals) fn stop(&self, core: &Core) {
        let mut inner = self.inner.lock();
        inner.is_stopped = true;
        while let Some(open) = inner.sessions.pop() {
            open.unlink();
        }
        while let Some(me) = inner.entries.pop() {
            core.unlink(me);
        }
    }
}

impl Inner {
    fn position(&self, nonce: u64) -> Option<usize> {
        let mut sessions = self.sessions.iter();
        sessions.position(|open| open.session.nonce == nonce)
    }

    fn forget(&mut self, at: usize) {
        if let Ok(open) = self.sessions.remove(at) {
            open.unlink();
        }
    }

    /// Of the sessions that may be forgotten, of `client` or of all, the one that was idle for longest.
    fn oldest(&self, client: Option<Nid>) -> Option<usize> {
        let now_ms = time::monotonic_ms();
        self.sessions
            .iter()
            .enumerate()
            .filter(|(_, open)| client.is_none_or(|client| open.session.client == client))
            .filter(|(_, open)| open.session.may_be_forgotten(now_ms))
            .max_by_key(|(_, open)| open.session.idle_ms(now_ms))
            .map(|(at, _)| at)
    }

    /// Forgets sessions until there is room for one more of `client` with so much memory. `EBUSY`.
    fn make_room(&mut self, memory: &Arc<BulkMemory>, client: Nid, bytes: usize) -> Result<Grant> {
        if bytes > tunables::bulk_bytes() {
            return Err(EBUSY);
        }
        loop {
            let of_client = |open: &&Open| open.session.client == client;
            let is_crowded = self.sessions.iter().filter(of_client).count() >= MAX_PER_CLIENT;
            if !is_crowded && self.sessions.len() < MAX_SESSIONS {
                if let Some(grant) = memory.grant(bytes) {
                    return Ok(grant);
                }
                if memory.reclaim() {
                    continue;
                }
            }
            let oldest = self.oldest(is_crowded.then_some(client));
            self.forget(oldest.ok_or(EBUSY)?);
        }
    }
}

impl Handler for BulkService {
    fn event(&self, core: &Arc<Core>, event: &Event) {
        if event.result.is_err() {
            return;
        }
        let nonce = nonce_in(event.match_bits);
        if Kind::Close.is_in(event.match_bits) {
            return self.close(nonce);
        }
        // The client is told by the state that it gets, or does not get.
        let opened = match Offer::decode(event.hdr_data) {
            Some(offer) => self.open(core, event.from, nonce, offer),
            None => Err(EINVAL),
        };
        if let Err(e) = opened {
            pr_info_ratelimited!(
                "bulk service: no session for {}: error {}\n",
                event.from,
                e.to_errno()
            );
        }
    }
}

/// The bulk service is offered as long as this lives. Dropping it may sleep.
pub(crate) struct Service {
    core: Arc<Core>,
    service: Arc<BulkService>,
}

impl Service {
    /// See [`Local::start_service`](crate::portals::node::Local::start_service).
    pub(in crate::portals) fn start(core: &Arc<Core>) -> Result<Self> {
        let service = BulkService::new(&core.memory)?;
        let mut current = core.service.lock();
        if current.is_some() {
            return Err(EBUSY);
        }
        core.memory.enlist(&service)?;
        if let Err(e) = service.post(core) {
            core.memory.strike(&service);
            service.stop(core);
            return Err(e);
        }
        *current = Some(service.clone());
        drop(current);
        Ok(Self {
            core: core.clone(),
            service,
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.core.memory.strike(&self.service);
        self.service.stop(&self.core);
        let mut current = self.core.service.lock();
        *current = None;
    }
}

#[kunit_tests(socklnd_portals_bulk_server)]
mod tests {
    use super::*;
    use crate::{
        lib_linux::netns::Net,
        portals::{
            incoming::Usage,
            table::{
                Match,
                Request, //
            },
            Node, //
        }, //
    };

    const OFFER: Offer = Offer {
        op: BulkOp::Put,
        verify: true,
        size: 100,
        in_flight: 4,
    };

    fn nid(last: u8) -> Nid {
        Nid::tcp(0, [10, 0, 0, last])
    }

    /// A node without interfaces.
    fn node() -> Result<Arc<Node>> {
        Node::new(Net::current())
    }

    fn entries(core: &Core) -> usize {
        core.table.lock().len()
    }

    fn request(from: u8, bits: u64, length: u32) -> Request {
        Request {
            access: Access::Put,
            from: nid(from),
            portal: PORTAL_PUT,
            match_bits: bits,
            offset: 0,
            length,
        }
    }

    fn find(core: &Core, request: &Request) -> Option<Match> {
        core.table.lock().find(request)
    }

    /// As if an empty PUT came.
    fn tell(core: &Arc<Core>, from: u8, bits: u64, hdr_data: u64) -> Result {
        let request = request(from, bits, 0);
        let found = find(core, &request).ok_or(ENOENT)?;
        Usage::new(core, &request, found, hdr_data).end(Ok(()));
        Ok(())
    }

    fn state(core: &Core, from: u8, nonce: u64) -> Result<State> {
        let mut request = request(from, Kind::State.bits(nonce, 0), STATE_LEN as u32);
        request.access = Access::Get;
        request.portal = PORTAL_GET;
        let found = find(core, &request).ok_or(ENOENT)?;
        let mut bytes = [0; STATE_LEN];
        let range = &found.range;
        range.pages().copy_out(range.offset(), &mut bytes)?;
        State::from_bytes(&bytes).ok_or(EPROTO)
    }

    #[test]
    fn one_service_at_a_time() -> Result {
        let core = Core::new(&BulkMemory::new()?, &node()?)?;
        let service = Service::start(&core)?;
        assert_eq!(Service::start(&core).err(), Some(EBUSY));
        assert_eq!(entries(&core), 3);
        drop(service);
        assert_eq!(entries(&core), 0);
        drop(Service::start(&core)?);
        core.shutdown();
        assert_eq!(Service::start(&core).err(), Some(ESHUTDOWN));
        Ok(())
    }

    #[test]
    fn open_and_close() -> Result {
        let core = Core::new(&BulkMemory::new()?, &node()?)?;
        let service = Service::start(&core)?;
        assert_eq!(state(&core, 1, 7)?.status, NO_SESSION);
        tell(&core, 1, Kind::Open.bits(7, 0), OFFER.encode())?;
        assert_eq!(entries(&core), 3 + 4 + 1);
        let opened = state(&core, 1, 7)?;
        assert_eq!((opened.status, opened.size, opened.window), (0, 100, 4));
        // The same once more, and somebody else's.
        tell(&core, 1, Kind::Open.bits(7, 0), OFFER.encode())?;
        assert_eq!(entries(&core), 3 + 4 + 1);
        assert_eq!(state(&core, 1, 8)?.status, NO_SESSION);
        tell(&core, 1, Kind::Close.bits(8, 0), 0)?;
        // The client has several NIDs.
        tell(&core, 3, Kind::Open.bits(7, 0), OFFER.encode())?;
        assert_eq!(entries(&core), 3 + 4 + 1);
        assert_eq!(state(&core, 2, 7)?.status, 0);
        tell(&core, 2, Kind::Close.bits(7, 0), 0)?;
        assert_eq!(state(&core, 2, 7)?.status, NO_SESSION);
        assert_eq!(state(&core, 1, 7)?.status, NO_SESSION);
        assert_eq!(entries(&core), 3);
        // Nonsense opens nothing.
        tell(&core, 1, Kind::Open.bits(8, 0), u64::MAX)?;
        assert_eq!(entries(&core), 3);
        tell(&core, 1, Kind::Open.bits(9, 0), OFFER.encode())?;
        drop(service);
        assert_eq!(entries(&core), 0);
        Ok(())
    }

    #[test]
    fn contents_are_compared() -> Result {
        let core = Core::new(&BulkMemory::new()?, &node()?)?;
        let _service = Service::start(&core)?;
        tell(&core, 1, Kind::Open.bits(7, 0), OFFER.encode())?;
        let slot = Kind::Data.bits(7, 3);
        let right = request(1, slot, 100);
        assert!(find(&core, &request(1, slot, 101)).is_none());
        assert!(find(&core, &request(1, Kind::Data.bits(7, 4), 100)).is_none());

        let found = find(&core, &right).ok_or(ENOENT)?;
        // The slot is in use.
        assert!(find(&core, &right).is_none());
        let range = found.range.clone();
        range.pages().fill_pattern(range.offset(), 100, 5)?;
        let hash = range.pages().xxh64(range.offset(), 100, 0)?;
        Usage::new(&core, &right, found, hash).end(Ok(()));
        let found = find(&core, &right).ok_or(ENOENT)?;
        Usage::new(&core, &right, found, hash ^ 1).end(Ok(()));
        let found = find(&core, &right).ok_or(ENOENT)?;
        Usage::new(&core, &right, found, hash).end(Err(ECONNRESET));
        let short = request(1, slot, 99);
        let found = find(&core, &short).ok_or(ENOENT)?;
        Usage::new(&core, &short, found, hash).end(Ok(()));

        let state = state(&core, 1, 7)?;
        assert_eq!((state.good, state.bad, state.broken), (1, 2, 1));
        assert_eq!(state.bytes, 299);
        Ok(())
    }

    #[test]
    fn sessions_are_bounded() -> Result {
        let core = Core::new(&BulkMemory::new()?, &node()?)?;
        let service = Service::start(&core)?;
        let most = MAX_PER_CLIENT as u64;
        for nonce in 0..most {
            tell(&core, 1, Kind::Open.bits(nonce, 0), OFFER.encode())?;
        }
        tell(&core, 1, Kind::Open.bits(most, 0), OFFER.encode())?;
        assert_eq!(state(&core, 1, most)?.status, NO_SESSION);
        // A client that was lost makes room for itself.
        service.service.peer_down(nid(1));
        tell(&core, 1, Kind::Open.bits(most, 0), OFFER.encode())?;
        assert_eq!(state(&core, 1, most)?.status, 0);
        for client in 2..=u8::MAX {
            let open = Kind::Open.bits(u64::from(client) << 8, 0);
            tell(&core, client, open, OFFER.encode())?;
        }
        assert_eq!(service.service.inner.lock().sessions.len(), MAX_SESSIONS);
        let last = u64::from(u8::MAX) << 8;
        assert_eq!(state(&core, u8::MAX, last)?.status, NO_SESSION);
        Ok(())
    }

    #[test]
    fn memory_is_bounded_for_all_services() -> Result {
        let memory = BulkMemory::new()?;
        let most = tunables::bulk_bytes();
        let (one, other) = (Core::new(&memory, &node()?)?, Core::new(&memory, &node()?)?);
        let (first, _second) = (Service::start(&one)?, Service::start(&other)?);
        let room = |service: &Service, bytes| {
            let mut inner = service.service.inner.lock();
            inner.make_room(&memory, nid(1), bytes)
        };
        drop(room(&first, most)?);
        assert_eq!(room(&first, most + 1).err(), Some(EBUSY));
        assert_eq!(room(&first, usize::MAX).err(), Some(EBUSY));

        tell(&other, 2, Kind::Open.bits(7, 0), OFFER.encode())?;
        let session = Offer::decode(OFFER.encode()).ok_or(EINVAL)?.server_bytes();
        drop(room(&first, most - session)?);
        assert_eq!(room(&first, most - session + 1).err(), Some(EBUSY));
        // A client that is gone makes room for those of other interfaces.
        other.peer_down(nid(2));
        let all = room(&first, most)?;
        assert_eq!(state(&other, 2, 7)?.status, NO_SESSION);
        tell(&other, 2, Kind::Open.bits(7, 0), OFFER.encode())?;
        assert_eq!(state(&other, 2, 7)?.status, NO_SESSION);
        drop(all);
        tell(&other, 2, Kind::Open.bits(7, 0), OFFER.encode())?;
        assert_eq!(state(&other, 2, 7)?.status, 0);
        Ok(())
    }
}
