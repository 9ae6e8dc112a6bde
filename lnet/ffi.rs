// SPDX-License-Identifier: GPL-2.0

//! The functions of `lnet/glue.h`, and those that its side in C calls: all of the room's `unsafe` code.
//!
//! # Lifetime
//!
//! - An [`NiHandle`] refers to LNet's NI, which is valid from LNet's startup of it until its shutdown returns.
//!   All uses of the reference are counted, but for those by [`parse`]; [`NiHandle::retire`], which the shutdown
//!   calls, waits for them.
//! - A [`Msg`] owns one of LNet's messages until it finalizes it.
//! - A [`LocalNi`] is the context of an NI's callbacks: created by LNet's startup, freed by its shutdown.
//! - A [`Receive`] is shared by the thread in [`parse`] and by the pointer that LNet gives back with where the
//!   payload goes, once.

use super::{
    Admin,
    LocalNi, //
    Receive,
};
use crate::{
    lib_linux::{
        bindings_of,
        netns::Net,
        page::{
            Access,
            Dest,
            Foreign,
            Source, //
        }, //
    },
    stats::Gauge,
    upper::{
        Health,
        Link,
        Status, //
    },
    wire::{
        Nid,
        RawHeader, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        Arc, //
    }, //
};

bindings_of!("/lnet_generated.rs");

pub(super) use self::generated::{
    slg_ctl as RawCtl,
    SLG_CTL_ADD_PEER,
    SLG_CTL_CLOSE_CONN,
    SLG_CTL_DEL_PEER,
    SLG_CTL_GET_CONN,
    SLG_CTL_GET_INTERFACE,
    SLG_CTL_GET_PEER,
    SLG_CTL_PUSH_CONN, //
};
use self::generated::{
    slg_memory,
    slg_msg,
    slg_ni,
    slg_ops,
    slg_started, //
};

const NID_LEN: usize = generated::SLG_NID_LEN as usize;
const HEADER_LEN: usize = generated::SLG_HEADER_LEN as usize;

/// Whether the lnet.ko that is loaded is the one that this was built for. May sleep.
///
/// # Errors
///
/// `EINVAL` if it is another one, which is logged.
pub(super) fn check() -> Result {
    // SAFETY: May be called in any thread that may sleep.
    to_result(unsafe { generated::slg_check() })
}

/// What LNet says of those who listen, and of how long peers are waited for.
pub(super) struct Settings {
    pub(super) accept: Accept,
    pub(super) port: u32,
    pub(super) bulk_port: u32,
    pub(super) backlog: u32,
    pub(super) accept_timeout_s: u32,
    pub(super) lnd_timeout_s: u32,
}

/// LNet's parameter `accept`.
pub(super) enum Accept {
    Secure,
    All,
    Nobody,
}

/// LNet's settings now. May sleep.
pub(super) fn settings() -> Settings {
    let mut raw = generated::slg_settings::default();
    // SAFETY: `raw` may be written to.
    unsafe { generated::slg_settings(&mut raw) };
    Settings {
        accept: match raw.accept {
            generated::SLG_ACCEPT_ALL => Accept::All,
            generated::SLG_ACCEPT_NONE => Accept::Nobody,
            _ => Accept::Secure,
        },
        port: raw.port,
        bulk_port: raw.bulk_port,
        backlog: raw.backlog,
        accept_timeout_s: raw.accept_timeout_s,
        lnd_timeout_s: raw.lnd_timeout_s,
    }
}

/// The driver is known to LNet as long as this exists.
///
/// # Invariants
///
/// Registered.
pub(super) struct Registration(());

impl Registration {
    /// Registers the driver: LNet may call it from now on. May sleep.
    pub(super) fn new() -> Self {
        // SAFETY: The operations are there as long as the module, and do what `glue.h` says. The crate root makes
        // one of these at a time.
        unsafe { generated::slg_register(&OPS) };
        // INVARIANT: Just registered.
        Self(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is registered. No NI is up, as each has a reference to the module.
        unsafe { generated::slg_unregister() };
    }
}

/// LNet's NI, until it is shut down.
///
/// # Invariants
///
/// `ni` is valid until `retire` has returned.
pub(super) struct NiHandle {
    ni: NonNull<slg_ni>,
    users: Arc<Gauge>,
    /// 1 once no thread may begin to use it.
    retired: Atomic<i32>,
}

// SAFETY: LNet's functions may be called by any thread.
unsafe impl Send for NiHandle {}

// SAFETY: As above, at the same time too.
unsafe impl Sync for NiHandle {}

impl NiHandle {
    /// Calls `f`, unless the NI was shut down. Any context that `f` may run in.
    fn with<R>(&self, f: impl FnOnce(*mut slg_ni) -> R) -> Option<R> {
        let _guard = Gauge::enter(&self.users);
        // Fully ordered with the count: either `retire` sees that we are counted, or this sees the flag.
        match self.retired.fetch_add(0, Full) {
            0 => Some(f(self.ni.as_ptr())),
            _ => None,
        }
    }

    /// Waits until no thread uses the NI, and lets none use it any more. Sleeps.
    pub(super) fn retire(&self) {
        self.retired.xchg(1, Full);
        self.users.wait_zero();
    }

    /// The last connection to a peer was lost. May sleep; calls back.
    pub(super) fn peer_lost(&self, peer: Nid, last_alive_s: u64) {
        let nid = peer.to_bytes20();
        let last_alive_s = i64::try_from(last_alive_s).unwrap_or(i64::MAX);
        self.with(|ni| {
            // SAFETY: The NI is valid; the address is of 20 bytes.
            unsafe { generated::slg_peer_lost(ni, nid.as_ptr(), last_alive_s) }
        });
    }

    /// The link has gone or come. May sleep.
    pub(super) fn set_link(&self, link: Link) {
        self.with(|ni| {
            // SAFETY: The NI is valid.
            unsafe { generated::slg_link(ni, link == Link::Down) }
        });
    }

    /// Whether LNet has it among those that are up. May sleep.
    pub(super) fn is_published(&self) -> bool {
        self.with(|ni| {
            // SAFETY: The NI is valid.
            unsafe { generated::slg_is_published(ni) }
        })
        .unwrap_or(false)
    }

    /// Whether it is bound to a CPU partition with this processor, or to none. Any context.
    pub(super) fn uses_cpu(&self, cpu: u32) -> bool {
        self.with(|ni| {
            // SAFETY: The NI is valid.
            unsafe { generated::slg_uses_cpu(ni, cpu) }
        })
        .unwrap_or(true)
    }

    /// How many connections for bulk it wants to each peer. Any context.
    pub(super) fn conns_per_peer(&self) -> Option<u32> {
        self.with(|ni| {
            // SAFETY: The NI is valid.
            unsafe { generated::slg_conns_per_peer(ni) }
        })
    }

    /// The type of service of its packets. Any context.
    pub(super) fn tos(&self) -> Option<u8> {
        let tos = self.with(|ni| {
            // SAFETY: The NI is valid.
            unsafe { generated::slg_tos(ni) }
        });
        tos.and_then(|tos| u8::try_from(tos).ok())
    }
}

/// Has LNet parse a message from `from`. If this succeeds, LNet has said by [`Receive::recv`] where the payload
/// goes, or will, once. May sleep, and call back.
///
/// # Errors
///
/// Those of LNet: it has no use for the message.
pub(super) fn parse(
    handle: &NiHandle,
    header: &RawHeader,
    from: Nid,
    receive: Arc<Receive>,
) -> Result {
    let from = from.to_bytes20();
    let token = Arc::into_raw(receive).cast_mut();
    // SAFETY: The NI is valid: this is called by the driver, and `Driver::stop`, which the NI's shutdown calls
    // before it returns, leaves no thread that does. Header and address have their lengths. The token is a
    // reference that is given back once, by `recv` below.
    let result = to_result(unsafe {
        generated::slg_parse(
            handle.ni.as_ptr(),
            header.as_long().as_ptr(),
            from.as_ptr(),
            token.cast(),
        )
    });
    if result.is_err() {
        // SAFETY: From `into_raw` above. If LNet has failed, it has not given it back, and will not.
        drop(unsafe { Arc::from_raw(token) });
    }
    result
}

/// A message of LNet's that the driver has to finalize. If it is dropped, it is finalized with an error.
///
/// # Invariants
///
/// The message is valid, and nobody else finalizes it.
pub(super) struct Msg(NonNull<slg_msg>);

// SAFETY: LNet's functions may be called by any thread.
unsafe impl Send for Msg {}

impl Msg {
    /// The message has ended. May sleep and send.
    pub(super) fn finalize(self, status: Status) {
        let msg = self.0;
        core::mem::forget(self);
        let (rc, health) = match status {
            Ok(()) => (0, generated::SLG_HEALTH_OK),
            Err(failure) => (failure.error.to_errno(), raw_health(failure.health)),
        };
        // SAFETY: By the type invariants; there is no `Msg` any more.
        unsafe { generated::slg_finalize(msg.as_ptr(), rc, health) };
    }
}

impl Drop for Msg {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; this is the end of the `Msg`.
        unsafe {
            generated::slg_finalize(
                self.0.as_ptr(),
                EIO.to_errno(),
                generated::SLG_HEALTH_LOCAL_ERROR,
            )
        };
    }
}

fn raw_health(health: Health) -> generated::slg_health {
    match health {
        Health::LocalDropped => generated::SLG_HEALTH_LOCAL_DROPPED,
        Health::LocalNoRoute => generated::SLG_HEALTH_LOCAL_NO_ROUTE,
        Health::LocalError => generated::SLG_HEALTH_LOCAL_ERROR,
        Health::LocalTimeout => generated::SLG_HEALTH_LOCAL_TIMEOUT,
        Health::RemoteError => generated::SLG_HEALTH_REMOTE_ERROR,
        Health::RemoteDropped => generated::SLG_HEALTH_REMOTE_DROPPED,
        Health::RemoteTimeout => generated::SLG_HEALTH_REMOTE_TIMEOUT,
        Health::NetworkTimeout => generated::SLG_HEALTH_NETWORK_TIMEOUT,
    }
}

static OPS: slg_ops = slg_ops {
    startup: Some(startup),
    shutdown: Some(shutdown),
    send: Some(send),
    recv: Some(recv),
    peer_down: Some(peer_down),
    ctl: Some(ctl),
    timeout: Some(timeout),
    conns_per_peer: Some(conns_per_peer),
    tos: Some(tos),
};

/// The value of a callback that returns an error number.
fn errno(result: Result) -> c_int {
    result.map_or_else(Error::to_errno, |()| 0)
}

/// The NID at `nid`.
///
/// # Safety
///
/// `nid` must point to as many bytes as a NID has.
unsafe fn read_nid(nid: *const u8) -> Result<Nid> {
    // SAFETY: As this function's requirement.
    let bytes = unsafe { *nid.cast::<[u8; NID_LEN]>() };
    Ok(Nid::from_bytes20(&bytes)?)
}

/// The memory that LNet names; `None` if that is empty.
///
/// # Safety
///
/// `memory` must be valid, and what it names must be valid as [`Foreign::new`] demands, until the message is
/// finalized. The caller drops the result before that.
unsafe fn read_memory<A: Access>(memory: *const slg_memory) -> Result<Option<Foreign<A>>> {
    // SAFETY: As this function's requirement.
    let memory = unsafe { &*memory };
    if memory.len == 0 {
        return Ok(None);
    }
    let bvecs = NonNull::new(memory.bvecs).ok_or(EINVAL)?;
    // SAFETY: As this function's requirement.
    unsafe { Foreign::new(bvecs, memory.count, memory.skip, memory.len) }.map(Some)
}

/// # Safety
///
/// LNet's thread that brings up the NI. The pointers are valid.
unsafe extern "C" fn startup(
    ni: *mut slg_ni,
    net: *mut kernel::bindings::net,
    nid: *const u8,
    started: *mut slg_started,
) -> c_int {
    let start = || -> Result {
        // SAFETY: LNet's NI has a reference to the namespace.
        let net = unsafe { Net::from_raw(net) };
        // SAFETY: By this function's requirement.
        let nid = unsafe { read_nid(nid) }?;
        let handle = NiHandle {
            // INVARIANT: Valid until `shutdown` returns, which calls `retire`. If this fails, `LocalNi::start` has
            // called that.
            ni: NonNull::new(ni).ok_or(EINVAL)?,
            users: Gauge::new()?,
            retired: Atomic::new(0),
        };
        let local = LocalNi::start(&net, nid, handle)?;
        let (conns_per_peer, link_is_down) = (local.conns_per_peer(), local.link_is_down());
        // SAFETY: By this function's requirement.
        unsafe {
            *started = slg_started {
                ctx: KBox::into_raw(local).cast(),
                conns_per_peer,
                link_is_down,
            }
        };
        Ok(())
    };
    errno(start())
}

/// # Safety
///
/// LNet's thread that shuts the NI down, once. `ctx` comes from [`startup`].
unsafe extern "C" fn shutdown(ctx: *mut c_void) {
    // SAFETY: From `KBox::into_raw` in `startup`. All of LNet's references to the NI have gone, so no other
    // callback has it.
    let local = unsafe { KBox::<LocalNi>::from_raw(ctx.cast()) };
    local.stop();
}

/// # Safety
///
/// `ctx` comes from [`startup`] of an NI that LNet has a reference to. The other pointers are valid: `msg` and its
/// memory until it is finalized, `header` and `to` during the call.
unsafe extern "C" fn send(
    ctx: *mut c_void,
    msg: *mut slg_msg,
    header: *const u8,
    to: *const u8,
    memory: *const slg_memory,
) -> c_int {
    // SAFETY: By this function's requirement.
    let local = unsafe { &*ctx.cast::<LocalNi>() };
    let prepare = || {
        // SAFETY: By this function's requirement.
        let header = unsafe { &*header.cast::<[u8; HEADER_LEN]>() };
        let header = RawHeader::from_long(header)?;
        // SAFETY: By this function's requirement.
        let to = unsafe { read_nid(to) }?;
        // SAFETY: By this function's requirement. The driver drops it before it completes the message.
        let memory = unsafe { read_memory::<Source>(memory) }?;
        let done = KBox::new_uninit(GFP_KERNEL)?;
        let msg = NonNull::new(msg).ok_or(EINVAL)?;
        Ok::<_, Error>((header, to, memory, done, msg))
    };
    match prepare() {
        Ok((header, to, memory, done, msg)) => {
            // INVARIANT: By this function's requirement; as it returns 0, LNet leaves it to us.
            local.send(&header, to, memory, done, Msg(msg));
            0
        }
        Err(e) => e.to_errno(),
    }
}

/// # Safety
///
/// `token` comes from [`parse`], and was not given back before. `msg` is null or a valid message, until it is
/// finalized, and so is its memory. `memory` is valid during the call.
unsafe extern "C" fn recv(
    token: *mut c_void,
    msg: *mut slg_msg,
    memory: *const slg_memory,
) -> c_int {
    // SAFETY: From `Arc::into_raw` in `parse`; given back once.
    let receive = unsafe { Arc::<Receive>::from_raw(token.cast()) };
    let Some(msg) = NonNull::new(msg) else {
        receive.discard();
        return 0;
    };
    let prepare = || {
        // SAFETY: By this function's requirement. The driver drops it before it completes the message.
        let memory = unsafe { read_memory::<Dest>(memory) }?;
        let done = KBox::new_uninit(GFP_KERNEL)?;
        Ok::<_, Error>((memory, done))
    };
    match prepare() {
        Ok((memory, done)) => {
            // INVARIANT: By this function's requirement; as it returns 0, LNet leaves it to us.
            receive.recv(memory, done, Msg(msg));
            0
        }
        Err(e) => {
            receive.discard();
            e.to_errno()
        }
    }
}

/// # Safety
///
/// `nid` is valid during the call.
unsafe extern "C" fn peer_down(nid: *const u8) {
    // SAFETY: By this function's requirement.
    if let Ok(nid) = unsafe { read_nid(nid) } {
        super::close_peer(nid);
    }
}

/// # Safety
///
/// `ctx` comes from [`startup`] of an NI that LNet has a reference to; `ctl` is valid during the call.
unsafe extern "C" fn ctl(ctx: *mut c_void, cmd: u32, ctl: *mut RawCtl) -> c_int {
    // SAFETY: By this function's requirement.
    let local = unsafe { &*ctx.cast::<LocalNi>() };
    // SAFETY: As above; nobody else has it.
    let ctl = unsafe { &mut *ctl };
    errno(Admin::new(local).and_then(|admin| admin.request(cmd, ctl)))
}

extern "C" fn timeout() -> u32 {
    super::timeout_s()
}

extern "C" fn conns_per_peer() -> u32 {
    super::conns_parameter()
}

extern "C" fn tos() -> i32 {
    super::tos_parameter()
}
