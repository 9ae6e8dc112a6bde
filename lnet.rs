// SPDX-License-Identifier: GPL-2.0

//! Lustre's LNet as the message layer.
//!
//! LNet starts and stops NIs, sends messages, and is given those that come in. Its structures are
//! hidden by `lnet_glue.c` and the files in `lnet/glue`, to which [`ffi`] binds.
//!
//! # Lifetime and locks
//!
//! A [`LocalNi`] belongs to LNet's NI, from its startup to its shutdown, and refers to the driver's NI. That
//! has a [`LnetLayer`], which refers to LNet's NI by a [`NiHandle`]; it does not refer to the `LocalNi`, so there is
//! no cycle. The state of each message that comes in has a spinlock, `socklnd_lnet_receive`. Nothing is called with
//! it held.
//!
//! LNet must not be called by a thread that holds a lock which sending or receiving takes: it calls back,
//! also on the same stack. It has locks of its own, which it holds when it calls for a startup; a thread that
//! calls it may wait for those. So a startup waits for no thread in [`MessageLayer::parse`]; a shutdown may,
//! because LNet holds none of these locks then.

mod admin;
pub(crate) mod debugfs;
#[allow(unsafe_code)]
mod ffi;
pub(crate) mod ioctl;

use self::{
    admin::Admin,
    ffi::{
        Accept,
        Msg,
        NiHandle, //
    }, //
};
use crate::{
    lib_linux::{
        global::Instance,
        netns::Net,
        page::{
            Dest,
            Foreign,
            Source, //
        },
        ratelimit::pr_warn_ratelimited, //
    },
    tunables::{
        self,
        Acceptance, //
    },
    upper::{
        Answer,
        Cause,
        Completion,
        ConnId,
        Delivery,
        Driver,
        Incoming,
        KeptToken,
        Link,
        LndNi,
        Loss,
        Memory,
        MessageLayer,
        MessageLayers,
        NiRef,
        NiTunables,
        PeerState,
        RecvToken,
        SentHeader,
        Sink,
        Status, //
    },
    wire::{
        Nid,
        RawHeader, //
    },
    LND, //
};
use core::mem::MaybeUninit;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// The release that the driver says of itself.
pub(crate) const RELEASE: &[u8] = b"0.1.0 for LNet";

/// What `conns_per_peer` is by default, as with the C driver: as many as the link is fast.
pub(crate) const CONNS_PER_PEER: c_int = 0;

/// LNet as the message layer of all NIs.
pub(crate) static LAYER: Instance<Layer> = Instance::new();

/// What the NIs share: LNet's parameters.
pub(crate) struct Layer;

impl Layer {
    /// The layer, if the module can run with the lnet.ko that is loaded. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the module was built for another one; `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        ffi::check()?;
        follow_settings();
        Ok(Arc::new(Self, GFP_KERNEL)?)
    }
}

/// LNet knows the driver as long as this exists.
pub(crate) struct Registration(#[allow(dead_code, reason = "for its drop")] ffi::Registration);

impl Registration {
    /// Tells LNet of the driver, which must work by now. May sleep.
    pub(crate) fn new() -> Self {
        Self(ffi::Registration::new())
    }
}

impl MessageLayers for Layer {
    /// LNet starts NIs itself.
    fn startup(&self, _net: &Net, _nid: Nid) -> Result<Arc<dyn MessageLayer>> {
        Err(EOPNOTSUPP)
    }

    fn tick(&self, _now_ms: u64) {
        follow_settings();
    }

    fn namespace_gone(&self, _net: &Net) {}
}

/// Takes over LNet's parameters, some of which can be changed. May sleep.
fn follow_settings() {
    let settings = ffi::settings();
    tunables::follow(&tunables::Foreign {
        acceptance: match settings.accept {
            Accept::Secure => Acceptance::Secure,
            Accept::All => Acceptance::All,
            Accept::Nobody => Acceptance::Nobody,
        },
        port: settings.port,
        bulk_port: settings.bulk_port,
        backlog: settings.backlog,
        accept_timeout_s: settings.accept_timeout_s,
        timeout_s: settings.lnd_timeout_s,
    });
}

/// How long a peer may leave this node waiting, in seconds; more than 0. Any context.
fn timeout_s() -> u32 {
    u32::try_from(tunables::timeout_ms() / 1000).unwrap_or(u32::MAX)
}

/// The module's parameter of this name; 0 leaves it to the driver. Any context.
fn conns_parameter() -> u32 {
    tunables::bulk_conns().unwrap_or(0)
}

/// The module's parameter of this name; -1 leaves it to the kernel. Any context.
fn tos_parameter() -> i32 {
    tunables::type_of_service().map_or(-1, i32::from)
}

/// LNet takes a peer for down: closes the connections to it, of all NIs. Thread context, may sleep.
fn close_peer(peer: Nid) {
    if let Some(lnd) = LND.get() {
        lnd.close_peer(peer, ESHUTDOWN);
    }
}

/// What one NI does for LNet.
struct LnetLayer {
    handle: NiHandle,
}

impl MessageLayer for LnetLayer {
    fn started(&self, _ni: NiRef<'_>) -> Result {
        Ok(())
    }

    fn admits_peers(&self) -> bool {
        // LNet takes messages only of NIs that it has published, and lets none connect to one that
        // goes.
        self.handle.is_published()
    }

    fn uses_cpu(&self, cpu: u32) -> bool {
        self.handle.uses_cpu(cpu)
    }

    fn parse(&self, ni: NiRef<'_>, msg: &Incoming<'_>, token: RecvToken<'_>) -> Result<Answer> {
        let header = msg.raw_header()?;
        let Ok(receive) = Receive::new() else {
            // As LNet itself does without memory for a message. To wait for memory would take more of it.
            pr_warn_ratelimited!(
                "{}: dropped a message from {}: no memory\n",
                ni.nid(),
                msg.via
            );
            return Ok(token.deliver(Delivery::Discard));
        };
        ffi::parse(&self.handle, &header, msg.via, receive.clone())?;
        Ok(receive.answer(token))
    }

    fn peer_down(&self, _ni: NiRef<'_>, peer: Nid, loss: Loss, last_alive_ms: u64) {
        // Whom an administrator disconnects, or who was restarted, is not down.
        if loss == Loss::Failed {
            self.handle.peer_lost(peer, last_alive_ms / 1000);
        }
    }

    fn conn_ended(&self, _conn: ConnId, _why: Error) {}

    fn peer_found(&self, _ni: NiRef<'_>, peer: Nid, state: PeerState) {
        if state == PeerState::Down {
            // LNet knows itself when it has last heard of it.
            self.handle.peer_lost(peer, 0);
        }
    }

    fn link_changed(&self, _ni: NiRef<'_>, link: Link) {
        self.handle.set_link(link);
    }

    fn tunables(&self) -> NiTunables {
        NiTunables {
            conns_per_peer: self.handle.conns_per_peer(),
            tos: self.handle.tos(),
        }
    }

    fn shutdown(&self, _ni: NiRef<'_>) {}
}

/// An NI of LNet's that is up.
struct LocalNi {
    ni: Arc<dyn LndNi>,
    layer: Arc<LnetLayer>,
}

impl LocalNi {
    /// Brings up an NI. May sleep, and waits for none who is in [`MessageLayer::parse`].
    ///
    /// # Errors
    ///
    /// Those of [`Driver::start`]; then nothing uses the handle any more.
    fn start(net: &Net, nid: Nid, handle: NiHandle) -> Result<KBox<Self>> {
        follow_settings();
        let layer = Arc::new(LnetLayer { handle }, GFP_KERNEL)?;
        let result = Self::start_under(net, nid, &layer);
        if result.is_err() {
            layer.handle.retire();
        }
        result
    }

    fn start_under(net: &Net, nid: Nid, layer: &Arc<LnetLayer>) -> Result<KBox<Self>> {
        // First, because nothing may fail once the NI is up.
        let room = KBox::<Self>::new_uninit(GFP_KERNEL)?;
        let lnd = LND.get().ok_or(ENODEV)?;
        let ni = lnd.as_arc_borrow().start(net, nid, layer.clone())?;
        let layer = layer.clone();
        Ok(KBox::write(room, Self { ni, layer }))
    }

    /// Shuts the NI down. When this returns, nothing uses LNet's any more. Sleeps.
    fn stop(&self) {
        if let Some(lnd) = LND.get() {
            // If its namespace has gone, so has the NI.
            let _ = lnd.stop(self.ni.net(), self.ni.nid());
        }
        self.layer.handle.retire();
    }

    fn link_is_down(&self) -> bool {
        self.ni.link() == Link::Down
    }

    fn conns_per_peer(&self) -> u32 {
        self.ni.conns_per_peer()
    }

    /// Sends a message. May sleep.
    fn send(
        &self,
        header: &RawHeader,
        to: Nid,
        memory: Option<Foreign<Source>>,
        room: KBox<MaybeUninit<Done>>,
        msg: Msg,
    ) {
        let header = SentHeader::Raw(header);
        let cause = Cause::of_header(self.ni.nid(), to, header);
        let done = KBox::write(room, Done(msg));
        self.ni
            .as_arc_borrow()
            .send(to, cause, header, memory.map(Memory::Foreign), done);
    }
}

/// Finalizes a message when it has ended.
struct Done(Msg);

impl Completion for Done {
    fn complete(self: KBox<Self>, status: Status) {
        // Its memory first: LNet may send the next message before this returns.
        let Done(msg) = KBox::into_inner(self);
        msg.finalize(status);
    }
}

/// What is known of where a payload goes.
enum Receiving {
    /// LNet has not said it, and the driver's thread has not come back from LNet.
    Asking,
    /// LNet has said it first.
    Given(Delivery),
    /// The driver's thread has come back first; the connection is parked.
    Parked(KeptToken),
    /// Both are done.
    Over,
}

/// A message that has begun to come in. If it is freed with a delivery, because LNet has refused the message
/// all the same, that is dropped, and fails.
#[pin_data]
struct Receive {
    #[pin]
    state: SpinLock<Receiving>,
}

impl Receive {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                state <- new_spinlock!(Receiving::Asking, "socklnd_lnet_receive"),
            }),
            GFP_KERNEL,
        )
    }

    /// The answer for the driver, whose thread has come back from LNet.
    fn answer(&self, token: RecvToken<'_>) -> Answer {
        let mut state = self.state.lock();
        match core::mem::replace(&mut *state, Receiving::Over) {
            Receiving::Given(delivery) => token.deliver(delivery),
            _ => {
                let (answer, kept) = token.keep();
                *state = Receiving::Parked(kept);
                answer
            }
        }
    }

    /// LNet says where the payload goes. Thread context, may sleep.
    fn deliver(&self, delivery: Delivery) {
        let mut state = self.state.lock();
        if let Receiving::Parked(kept) = core::mem::replace(&mut *state, Receiving::Over) {
            drop(state);
            return kept.deliver(delivery);
        }
        *state = Receiving::Given(delivery);
    }

    /// LNet does not want the payload. As [`Receive::deliver`].
    fn discard(&self) {
        self.deliver(Delivery::Discard);
    }

    /// LNet wants the payload there, or as much of it as there is room. As [`Receive::deliver`].
    fn recv(&self, memory: Option<Foreign<Dest>>, room: KBox<MaybeUninit<Done>>, msg: Msg) {
        match memory {
            Some(memory) => {
                let done = KBox::write(room, Done(msg));
                self.deliver(Delivery::Accept(Sink {
                    memory: Memory::Foreign(memory),
                    done,
                }));
            }
            None => {
                self.discard();
                msg.finalize(Ok(()));
            }
        }
    }
}
