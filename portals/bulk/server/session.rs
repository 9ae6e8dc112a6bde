// SPDX-License-Identifier: GPL-2.0

//! A session of the bulk service at the server.
//!
//! A [`PostedSession`] is owned by its service. It unlinks its match entries when it is closed or evicted. The
//! [`Session`] is the handler of its memory, so a message that uses that keeps it alive until it has ended.
//!
//! The contents of a message are hashed by the scheduler that has received it. This slows down the connection of
//! the message, and others of this scheduler, but TCP slows the sender down accordingly.

use super::super::{
    memory::Reservation,
    pattern,
    pattern_len,
    BulkOp,
    RequestKind,
    SessionParams,
    SessionState,
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
    wire::Nid,
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    }, //
};

/// A session that was not used for this time may be evicted, in milliseconds.
const IDLE_MS: u64 = 30_000;

/// A client's session.
#[pin_data]
pub(super) struct Session {
    /// The NID that has opened it. Its messages may come from others.
    client: Nid,
    id: u64,
    params: SessionParams,
    /// What has happened so far. Its lock also protects the copy in `page`.
    #[pin]
    state: SpinLock<SessionState>,
    /// The state, as the client GETs it.
    page: Arc<Pages>,
    /// In milliseconds of the monotonic clock: there are no atomics of the kernel's type for times.
    last_used_ms: Atomic<u64>,
    /// Whether the client was down since the session was last used.
    is_client_down: Atomic<bool>,
    /// For the memory of all slots.
    _reservation: Reservation,
}

impl Session {
    fn new(
        client: Nid,
        id: u64,
        params: SessionParams,
        reservation: Reservation,
    ) -> Result<Arc<Self>> {
        let page = Arc::new(Pages::alloc(STATE_LEN)?, GFP_KERNEL)?;
        let state = SessionState {
            size: params.size,
            window: params.window(),
            ..SessionState::default()
        };
        page.copy_in(0, &state.to_bytes())?;
        Arc::pin_init(
            pin_init!(Self {
                client,
                id,
                params,
                state <- new_spinlock!(state, "socklnd_bulk_state"),
                page,
                last_used_ms: Atomic::new(time::monotonic_ms()),
                is_client_down: Atomic::new(false),
                _reservation: reservation,
            }),
            GFP_KERNEL,
        )
    }

    /// Whether a message was received with the length and the contents that it was sent with.
    fn is_intact(&self, event: &MdEvent) -> bool {
        if event.rlength != self.params.size || event.mlength != self.params.size {
            return false;
        }
        let range = &event.range;
        !self.params.verify
            || range.pages().xxh64(range.offset(), range.len(), 0) == Ok(event.hdr_data)
    }

    /// The NID that has opened it.
    pub(super) fn client(&self) -> Nid {
        self.client
    }

    /// Its ID.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Notes that the client is down.
    pub(super) fn set_client_down(&self) {
        self.is_client_down.store(true, Relaxed);
    }

    /// For how long it was not used, in milliseconds.
    pub(super) fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.last_used_ms.load(Relaxed))
    }

    /// Whether it may be evicted.
    pub(super) fn is_evictable(&self, now_ms: u64) -> bool {
        self.is_client_down.load(Relaxed) || self.idle_ms(now_ms) >= IDLE_MS
    }
}

impl Handler for Session {
    fn event(&self, _portals: &Arc<PortalsInner>, event: &MdEvent) {
        // Before the lock is taken: hashing takes time.
        let is_intact = match event.access {
            Access::Put => event.result.is_ok() && self.is_intact(event),
            Access::Get => true,
        };
        self.last_used_ms.store(time::monotonic_ms(), Relaxed);
        self.is_client_down.store(false, Relaxed);
        let mut state = self.state.lock();
        if event.result.is_err() {
            state.broken = state.broken.wrapping_add(1);
        } else {
            if is_intact {
                state.good = state.good.wrapping_add(1);
            } else {
                state.bad = state.bad.wrapping_add(1);
            }
            state.bytes = state.bytes.wrapping_add(u64::from(event.mlength));
        }
        // While the lock is held, so that no older state overwrites a newer one. The page is long enough.
        let _ = self.page.copy_in(0, &state.to_bytes());
    }
}

/// A session, and its match entries in the table of `portals`. That refers to the service, but only until it is
/// stopped, which closes all sessions.
pub(super) struct PostedSession {
    portals: Arc<PortalsInner>,
    session: Arc<Session>,
    entries: KVec<MeHandle>,
}

impl PostedSession {
    /// Allocates the memory of a session and posts it. May sleep.
    pub(super) fn new(
        portals: &Arc<PortalsInner>,
        client: Nid,
        id: u64,
        params: SessionParams,
        reservation: Reservation,
    ) -> Result<Self> {
        let mut posted = Self {
            portals: portals.clone(),
            session: Session::new(client, id, params, reservation)?,
            entries: KVec::new(),
        };
        match posted.post() {
            Ok(()) => Ok(posted),
            Err(e) => {
                posted.unlink();
                Err(e)
            }
        }
    }

    /// The session.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    fn post(&mut self) -> Result {
        let session = self.session.clone();
        let params = session.params;
        match params.op {
            BulkOp::Put => {
                for slot in 0..params.window() {
                    let size = params.size as usize;
                    let pages = Arc::new(Pages::alloc(size)?, GFP_KERNEL)?;
                    let range = PageRange::new(pages, 0, size)?;
                    self.attach(RequestKind::Data, slot, range, Reuse::OneAtATime)?;
                }
            }
            BulkOp::Get => {
                let pages = Arc::new(pattern(params.size, session.id)?, GFP_KERNEL)?;
                let range = PageRange::new(pages, 0, pattern_len(params.size))?;
                self.attach(RequestKind::Data, 0, range, Reuse::Always)?;
            }
        }
        // The state is posted last: a client that receives it can use all of the session.
        let range = PageRange::new(session.page.clone(), 0, STATE_LEN)?;
        self.attach(RequestKind::State, 0, range, Reuse::Always)
    }

    fn attach(&mut self, kind: RequestKind, slot: u32, range: PageRange, reuse: Reuse) -> Result {
        let access = match (kind, self.session.params.op) {
            (RequestKind::Data, BulkOp::Put) => Access::Put,
            _ => Access::Get,
        };
        let handler: Option<Arc<dyn Handler>> = match kind {
            RequestKind::Data => Some(self.session.clone()),
            _ => None,
        };
        let md = Md {
            range,
            access,
            too_long: TooLong::Reject,
            placement: Placement::Remote,
            reuse,
            handler,
        };
        let criteria = Criteria {
            portal: match access {
                Access::Put => PORTAL_PUT,
                Access::Get => PORTAL_GET,
            },
            match_bits: kind.match_bits(self.session.id, slot),
            ignore_bits: 0,
            // The ID can't be guessed, and the client may have several NIDs.
            source: None,
        };
        self.entries.reserve(1, GFP_KERNEL)?;
        // In front of the entry with the state that says that there is no such session.
        let me = self
            .portals
            .attach(criteria, Position::First, &Arc::new(md, GFP_KERNEL)?)?;
        self.entries.push(me, GFP_KERNEL)?;
        Ok(())
    }

    /// Unlinks its match entries. May sleep.
    pub(super) fn unlink(self) {
        for me in self.entries.iter() {
            self.portals.unlink(*me);
        }
    }
}
