// SPDX-License-Identifier: GPL-2.0

//! The server of the bulk service.
//!
//! A [`Service`] is owned by whatever has started it, and stops the service when it is dropped. Sessions are owned by
//! the [`BulkService`], in a list that its mutex protects. They are opened and closed by the thread that has received
//! the request.

mod session;

use self::session::PostedSession;
use super::{
    memory::{
        BulkMemory,
        Evict,
        Reservation, //
    },
    session_id_in,
    RequestKind,
    SessionParams,
    SessionState,
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
            Handler,
            Md,
            MdEvent,
            Placement,
            Reuse,
            TooLong, //
        },
        table::{
            Criteria,
            MeHandle,
            Position, //
        },
        PortalsInner, //
    },
    tunables,
    wire::Nid,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The most sessions of a service.
const MAX_SESSIONS: usize = 32;
/// The most sessions that were opened by one NID.
const MAX_PER_CLIENT: usize = 4;

struct Inner {
    sessions: KVec<PostedSession>,
    /// The match entries for requests.
    entries: KVec<MeHandle>,
    is_stopped: bool,
}

/// The service of one NI.
#[pin_data]
pub(in crate::portals) struct BulkService {
    memory: Arc<BulkMemory>,
    /// The lock of the portal table is taken inside of this one.
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

    /// Posts the match entries for requests.
    fn post(self: &Arc<Self>, portals: &PortalsInner) -> Result {
        // Requests have no payload; one that is sent is discarded.
        let empty = Arc::new(Pages::alloc(0)?, GFP_KERNEL)?;
        for kind in [RequestKind::Open, RequestKind::Close] {
            let range = PageRange::new(empty.clone(), 0, 0)?;
            self.attach(portals, kind, range, Access::Put)?;
        }
        let none = SessionState {
            status: NO_SESSION,
            ..SessionState::default()
        };
        let pages = Pages::alloc(STATE_LEN)?;
        pages.copy_in(0, &none.to_bytes())?;
        let range = PageRange::new(Arc::new(pages, GFP_KERNEL)?, 0, STATE_LEN)?;
        self.attach(portals, RequestKind::State, range, Access::Get)
    }

    fn attach(
        self: &Arc<Self>,
        portals: &PortalsInner,
        kind: RequestKind,
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
            too_long: TooLong::Truncate,
            placement: Placement::Remote,
            reuse: Reuse::Always,
            handler,
        };
        let criteria = Criteria {
            portal: match access {
                Access::Put => PORTAL_PUT,
                Access::Get => PORTAL_GET,
            },
            match_bits: kind.match_bits(0, 0),
            ignore_bits: ANY_SESSION,
            source: None,
        };
        let mut inner = self.inner.lock();
        let me = portals.attach(criteria, Position::Last, &Arc::new(md, GFP_KERNEL)?)?;
        inner.entries.push(me, GFP_KERNEL)?;
        Ok(())
    }

    /// Opens a session, unless it is open.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there are too many, `ENOMEM`, `ENOSPC`, `ESHUTDOWN`.
    fn open(
        &self,
        portals: &Arc<PortalsInner>,
        client: Nid,
        id: u64,
        params: SessionParams,
    ) -> Result {
        let mut inner = self.inner.lock();
        if inner.is_stopped {
            return Err(ESHUTDOWN);
        }
        if inner.position(id).is_some() {
            return Ok(());
        }
        let reservation = inner.make_room(&self.memory, client, params.server_bytes())?;
        let posted = PostedSession::new(portals, client, id, params, reservation)?;
        if let Err(e) = inner.sessions.push_within_capacity(posted) {
            // Not reached: `make_room` has made room.
            e.0.unlink();
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Closes a session, if it is open.
    fn close(&self, id: u64) {
        let mut inner = self.inner.lock();
        if let Some(at) = inner.position(id) {
            inner.remove(at);
        }
    }

    /// Notes that a client is down, so that its sessions may be evicted.
    pub(in crate::portals) fn peer_down(&self, peer: Nid) {
        let inner = self.inner.lock();
        for posted in inner.sessions.iter() {
            if posted.session().client() == peer {
                posted.session().set_client_down();
            }
        }
    }

    /// Stops the service: unlinks all of its match entries. May sleep.
    pub(in crate::portals) fn stop(&self, portals: &PortalsInner) {
        let mut inner = self.inner.lock();
        inner.is_stopped = true;
        while let Some(posted) = inner.sessions.pop() {
            posted.unlink();
        }
        while let Some(me) = inner.entries.pop() {
            portals.unlink(me);
        }
    }
}

impl Evict for BulkService {
    fn evict_one(&self) -> bool {
        let Some(mut inner) = self.inner.try_lock() else {
            return false;
        };
        let oldest = inner.oldest_evictable(None);
        if let Some(at) = oldest {
            inner.remove(at);
        }
        oldest.is_some()
    }
}

impl Inner {
    fn position(&self, id: u64) -> Option<usize> {
        let mut sessions = self.sessions.iter();
        sessions.position(|posted| posted.session().id() == id)
    }

    fn remove(&mut self, at: usize) {
        if let Ok(posted) = self.sessions.remove(at) {
            posted.unlink();
        }
    }

    /// The session that may be evicted and was not used for the longest time, of `client` or of all.
    fn oldest_evictable(&self, client: Option<Nid>) -> Option<usize> {
        let now_ms = time::monotonic_ms();
        let sessions = self.sessions.iter().map(PostedSession::session).enumerate();
        sessions
            .filter(|(_, session)| client.is_none_or(|client| session.client() == client))
            .filter(|(_, session)| session.is_evictable(now_ms))
            .max_by_key(|(_, session)| session.idle_ms(now_ms))
            .map(|(at, _)| at)
    }

    /// Evicts sessions until there is room for one more of `client` with so many `bytes`, which are reserved. `EBUSY`
    /// if there is no room.
    fn make_room(
        &mut self,
        memory: &Arc<BulkMemory>,
        client: Nid,
        bytes: usize,
    ) -> Result<Reservation> {
        if bytes > tunables::bulk_bytes() {
            return Err(EBUSY);
        }
        loop {
            let of_client = |posted: &&PostedSession| posted.session().client() == client;
            let is_client_full = self.sessions.iter().filter(of_client).count() >= MAX_PER_CLIENT;
            if !is_client_full && self.sessions.len() < MAX_SESSIONS {
                if let Some(reservation) = memory.reserve(bytes) {
                    return Ok(reservation);
                }
                if memory.reclaim() {
                    continue;
                }
            }
            let oldest = self.oldest_evictable(is_client_full.then_some(client));
            self.remove(oldest.ok_or(EBUSY)?);
        }
    }
}

impl Handler for BulkService {
    fn event(&self, portals: &Arc<PortalsInner>, event: &MdEvent) {
        if event.result.is_err() {
            return;
        }
        let id = session_id_in(event.match_bits);
        if RequestKind::Close.matches(event.match_bits) {
            return self.close(id);
        }
        // The client finds out from the state that it GETs.
        let opened = match SessionParams::decode(event.hdr_data) {
            Some(params) => self.open(portals, event.from, id, params),
            None => Err(EINVAL),
        };
        if let Err(e) = opened {
            pr_info_ratelimited!(
                "bulk service: refused a session for {}: error {}\n",
                event.from,
                e.to_errno()
            );
        }
    }
}

/// Offers the bulk service as long as it lives. Dropping it may sleep.
pub(crate) struct Service {
    portals: Arc<PortalsInner>,
    service: Arc<BulkService>,
}

impl Service {
    /// See [`LocalNi::start_service`](crate::portals::node::LocalNi::start_service).
    pub(in crate::portals) fn start(portals: &Arc<PortalsInner>) -> Result<Self> {
        let service = BulkService::new(&portals.memory)?;
        let mut current = portals.service.lock();
        if current.is_some() {
            return Err(EBUSY);
        }
        portals.memory.add_service(service.clone())?;
        if let Err(e) = service.post(portals) {
            portals.memory.remove_service(&service);
            service.stop(portals);
            return Err(e);
        }
        *current = Some(service.clone());
        drop(current);
        Ok(Self {
            portals: portals.clone(),
            service,
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.portals.memory.remove_service(&self.service);
        self.service.stop(&self.portals);
        let mut current = self.portals.service.lock();
        *current = None;
    }
}

#[cfg(CONFIG_KUNIT = "y")]
mod tests;
