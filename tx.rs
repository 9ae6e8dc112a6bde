// SPDX-License-Identifier: GPL-2.0

//! Transmits: messages on their way out.
//!
//! A [`Tx`] has one owner at any time, the holder of its [`KBox`]: the sender while it is built,
//! the peer's queue while no connection is there, the connection's queue, the scheduler while bytes
//! go out, and, if it is sent without a copy, a batch until no packet refers to its pages. Completing it
//! consumes the box, so it can't be completed twice; and dropping the box completes it with
//! `ESHUTDOWN`, so it can't be forgotten. No lock protects a `Tx`: the lock of the queue that it is
//! in does.
//!
//! The bytes in front of the payload, here called the header, depend on the connection's version of the
//! protocol. So they are written only when the connection sends the message; the memory for them is
//! allocated at the start.

#[cfg(CONFIG_KUNIT = "y")]
use crate::wire::{
    Body,
    Nid,
    WireHandle,
    PID_LUSTRE, //
};
use crate::{
    lib_linux::{
        iov::Bvecs,
        page::{
            crc32,
            FrozenFrag,
            PageFrag, //
        },
        queue::{
            impl_linked,
            Link, //
        },
    },
    stats::{
        Gauge,
        LiveGuard, //
    },
    upper::{
        Completion,
        ConnId,
        Failure,
        Payload,
        SentHeader,
        Status, //
    },
    wire::{
        Checksum,
        Header,
        Msg,
        MsgKind,
        Proto,
        RawHeader,
        WireError,
        MAX_HDR,
        MSG_LEN, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The header of a transmit in a form that does not depend on the version.
enum Content {
    Lnet(Header),
    Raw(RawHeader),
    Noop,
}

impl Content {
    /// Writes it in `bytes`, with `msg` in front if the version has that. Returns what was written.
    fn write<'a>(
        &self,
        proto: Proto,
        msg: &Msg,
        bytes: &'a mut [u8; MAX_HDR],
    ) -> core::result::Result<&'a [u8], WireError> {
        match self {
            Self::Lnet(header) => proto.hdr(msg, Some(header), bytes),
            Self::Raw(header) => proto.raw_hdr(msg, header, bytes),
            Self::Noop => proto.hdr(msg, None, bytes),
        }
    }
}

/// The header; in a page fragment, so that TCP can send it without a copy.
enum Hdr {
    /// Not yet written.
    Empty(PageFrag),
    /// Written.
    Written(FrozenFrag),
    /// It could not be written.
    Failed,
}

/// How TCP takes bytes of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendMode {
    /// It copies them.
    Copy,
    /// Its packets refer to the pages that they are in.
    ZeroCopy,
}

/// A message on its way out.
pub(crate) struct Tx {
    link: Link<Tx>,
    content: Content,
    hdr: Hdr,
    /// The connection on which it is sent.
    conn: Option<ConnId>,
    /// The length of the header; 0 before the connection is chosen.
    hdr_len: usize,
    payload: Option<Payload>,
    /// The cookie with which the peer acknowledges it; 0 if it was not asked to.
    cookie: u64,
    /// Bytes of header and payload that TCP has accepted.
    sent: usize,
    /// Whether these were sent without a copy.
    zerocopy: bool,
    /// Until when it may wait for a connection, in monotonic milliseconds.
    deadline_ms: u64,
    done: Option<KBox<dyn Completion>>,
    _live: LiveGuard,
}

impl_linked!(Tx, link);

impl Tx {
    /// A transmit of `header` and `payload`. On error `done` is given back with it. May sleep.
    pub(crate) fn new(
        header: SentHeader<'_>,
        payload: Option<Payload>,
        deadline_ms: u64,
        done: KBox<dyn Completion>,
        live: &Arc<Gauge>,
    ) -> core::result::Result<KBox<Self>, (Error, KBox<dyn Completion>)> {
        let content = match header {
            SentHeader::Parsed(header) => Content::Lnet(*header),
            SentHeader::Raw(header) => Content::Raw(*header),
        };
        let mut tx = match Self::alloc(content, MAX_HDR, live) {
            Ok(tx) => tx,
            Err(e) => return Err((e, done)),
        };
        tx.payload = payload;
        tx.deadline_ms = deadline_ms;
        tx.done = Some(done);
        Ok(tx)
    }

    /// A NOOP. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn noop(live: &Arc<Gauge>) -> Result<KBox<Self>> {
        let mut tx = Self::alloc(Content::Noop, MSG_LEN, live)?;
        tx.hdr_len = MSG_LEN;
        Ok(tx)
    }

    fn alloc(content: Content, room: usize, live: &Arc<Gauge>) -> Result<KBox<Self>> {
        let tx = Self {
            link: Link::new(),
            content,
            hdr: Hdr::Empty(PageFrag::alloc(room)?),
            conn: None,
            hdr_len: 0,
            payload: None,
            cookie: 0,
            sent: 0,
            zerocopy: false,
            deadline_ms: 0,
            done: None,
            _live: Gauge::enter(live),
        };
        Ok(KBox::new(tx, GFP_KERNEL)?)
    }

    /// Bytes of the payload.
    pub(crate) fn payload_len(&self) -> usize {
        self.payload.as_ref().map_or(0, Payload::len)
    }

    /// Whether it is a message of the message layer, and not a NOOP.
    pub(crate) fn is_lnet(&self) -> bool {
        matches!(self.content, Content::Lnet(_) | Content::Raw(_))
    }

    /// Whether this version can represent the NIDs in its header.
    pub(crate) fn fits(&self, proto: Proto) -> bool {
        match &self.content {
            Content::Lnet(header) => {
                Proto::oldest_for(header.src).max(Proto::oldest_for(header.dest)) <= proto
            }
            Content::Raw(header) => header.oldest_proto() <= proto,
            Content::Noop => true,
        }
    }

    /// Assigns it to `conn`, a connection of this version; its length is known then.
    pub(crate) fn assign(&mut self, proto: Proto, conn: ConnId) {
        self.conn = Some(conn);
        if self.is_lnet() {
            self.hdr_len = proto.hdr_len();
        }
    }

    /// Writes the header for `proto`, the version that it was assigned to, with these cookies, and with a
    /// checksum of header and payload if the version has checksums. A header that is written already stays.
    /// Any context.
    ///
    /// # Errors
    ///
    /// `EPROTO` if this version can't represent it: the caller fails the transmit.
    pub(crate) fn write_hdr(
        &mut self,
        proto: Proto,
        cookies: [u64; 2],
        checksum: Checksum,
    ) -> Result {
        let room = match core::mem::replace(&mut self.hdr, Hdr::Failed) {
            Hdr::Empty(room) => room,
            written => {
                self.hdr = written;
                return Ok(());
            }
        };
        let mut msg = Msg::new(match &self.content {
            Content::Lnet(_) | Content::Raw(_) => MsgKind::Lnet,
            Content::Noop => MsgKind::Noop,
        });
        msg.cookies = cookies;
        if self.is_lnet() {
            [self.cookie, _] = cookies;
        }
        let mut bytes = [0; MAX_HDR];
        let mut hdr = self.content.write(proto, &msg, &mut bytes)?;
        if checksum == Checksum::Crc32 && proto.has_checksums() {
            msg.csum = crc32(!0, hdr);
            if let Some(payload) = &self.payload {
                msg.csum = payload.crc32(msg.csum);
            }
            hdr = self.content.write(proto, &msg, &mut bytes)?;
        }
        self.hdr = Hdr::Written(room.filled(hdr)?);
        Ok(())
    }

    /// Bytes of the whole message on the wire. Valid once it is assigned to a connection.
    pub(crate) fn len(&self) -> usize {
        self.hdr_len.saturating_add(self.payload_len())
    }

    /// The cookie with which the peer is asked to acknowledge it; 0 is none.
    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Bytes that TCP has not accepted yet.
    pub(crate) fn remaining(&self) -> usize {
        self.len().saturating_sub(self.sent)
    }

    /// Whether a byte of it was sent, so that the stream breaks if the rest does not follow.
    pub(crate) fn is_started(&self) -> bool {
        self.sent > 0
    }

    /// Whether a part of it was sent without a copy: then the rest has to go that way too, and it must not be
    /// completed while packets refer to its pages.
    pub(crate) fn is_zerocopy(&self) -> bool {
        self.zerocopy
    }

    /// Whether what remains is to be sent without a copy; `min` is the smallest payload for which that is to
    /// be done, if there is one. Memory that can't be sent so is always copied.
    pub(crate) fn wants_zerocopy(&self, min: Option<usize>) -> bool {
        if self.is_started() {
            return self.zerocopy;
        }
        match (&self.payload, min) {
            (Some(payload), Some(min)) => payload.len() >= min && payload.can_zerocopy(),
            _ => false,
        }
    }

    /// Whether it may still wait for a connection at `now`, in monotonic milliseconds.
    pub(crate) fn may_wait(&self, now: u64) -> bool {
        now < self.deadline_ms && self.done.as_ref().is_some_and(|done| done.is_wanted())
    }

    /// Adds what remains to `io`. Returns whether there was room for all of it.
    pub(crate) fn add_to<'a>(&'a self, io: &mut Bvecs<'a>) -> bool {
        let Hdr::Written(hdr) = &self.hdr else {
            return false;
        };
        if self.sent < hdr.len() && !io.push_frag(hdr, self.sent) {
            return false;
        }
        match &self.payload {
            Some(payload) => payload.add_to(io, self.sent.saturating_sub(hdr.len())),
            None => true,
        }
    }

    /// Notes that TCP accepted the next `nob` bytes in this way.
    pub(crate) fn advance(&mut self, nob: usize, mode: SendMode) {
        self.zerocopy |= mode == SendMode::ZeroCopy && nob > 0;
        self.sent = self.sent.saturating_add(nob).min(self.len());
    }

    /// Completes the transmit. Frees it first, so that its memory is available when the message layer is called.
    pub(crate) fn finish(mut self: KBox<Self>, status: Status) {
        let done = self.done.take();
        let conn = self.conn;
        drop(self);
        match (done, conn, status) {
            (Some(done), Some(conn), Ok(())) => done.sent(conn),
            (Some(done), _, status) => done.complete(status),
            (None, _, _) => {}
        }
    }
}

#[cfg(CONFIG_KUNIT = "y")]
impl Tx {
    /// For unit tests: a transmit whose header is written for `proto`, with this cookie.
    pub(crate) fn written(
        payload: Option<Payload>,
        done: KBox<dyn Completion>,
        proto: Proto,
        cookie: u64,
    ) -> Result<KBox<Self>> {
        let nid = Nid::tcp(0, [10, 0, 0, 1]);
        let header = Header {
            dest: nid,
            src: nid,
            dest_pid: PID_LUSTRE,
            src_pid: PID_LUSTRE,
            payload_len: 0,
            body: Body::Reply {
                dst_wmd: WireHandle::NONE,
            },
        };
        let mut tx = Self::new(
            SentHeader::Parsed(&header),
            payload,
            0,
            done,
            &Gauge::new()?,
        )
        .map_err(|(e, _)| e)?;
        tx.assign(proto, 0);
        tx.write_hdr(proto, [cookie, 0], Checksum::None)?;
        Ok(tx)
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        // When the completion is called, the payload's memory belongs to the message layer again.
        self.payload = None;
        if let Some(done) = self.done.take() {
            done.complete(Err(Failure::dropped()));
        }
    }
}
