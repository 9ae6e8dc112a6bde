// SPDX-License-Identifier: GPL-2.0

//! What the driver needs from Linux and the `kernel` crate does not offer (yet).
//!
//! This is the only place with `unsafe` code, and the only one that depends on the kernel's
//! version. It knows nothing of the driver. Its modules are shaped like those of the `kernel`
//! crate: safe interfaces, owned handles that undo in [`Drop`] what their constructors did, one
//! operation per `unsafe` block, and at the top of each file what protects its objects and who
//! frees them.
//!
//! # Examples
//!
//! Each public item has an example under this heading, or shares the one of its type; `make check`
//! complains about one that has none. Each example is also a case of the KUnit suite
//! `socklnd_lib_linux_examples`, which `scripts/gen-examples` makes of the comments in each build.
//!
//! # Contexts
//!
//! "Any context" means hard interrupts excluded: thread context and softirqs, with spinlocks held.
//! "May sleep" means thread context without spinlocks.
//!
//! # Layouts
//!
//! `bindgen` can get the layout of a C struct wrong without noticing. No field of `struct sock` or
//! of what contains it is touched from Rust: the C code in `helpers/` does that. The few structs that Rust does
//! read or fill in are compared with what the C compiler says, at build time, in `sys.rs`.

pub(crate) mod debugfs;
pub(crate) mod global;
pub(crate) mod inetaddr;
pub(crate) mod iov;
pub(crate) mod link;
pub(crate) mod misc;
pub(crate) mod netns;
pub(crate) mod page;
pub(crate) mod param;
pub(crate) mod queue;
pub(crate) mod ratelimit;
pub(crate) mod socket;
mod sys;
pub(crate) mod sysctl;
pub(crate) mod thread;
pub(crate) mod time;

#[cfg(CONFIG_KUNIT = "y")]
include!(concat!(env!("SOCKLND_OBJ"), "/examples_generated.rs"));

/// Declares the module `generated`, with what `bindgen` has written into the given file of the build's folder.
///
/// For the one file of a room that binds to C code of its own.
#[doc(hidden)]
macro_rules! bindings_of {
    ($file:literal) => {
        #[allow(
            dead_code,
            clippy::all,
            clippy::undocumented_unsafe_blocks,
            improper_ctypes,
            missing_docs,
            non_camel_case_types,
            non_upper_case_globals,
            unreachable_pub,
            unused_imports
        )]
        mod generated {
            use kernel::{
                bindings::*,
                ffi, //
            };
            use pin_init::MaybeZeroable;

            include!(concat!(env!("SOCKLND_OBJ"), $file));
        }
    };
}
pub(crate) use bindings_of;

/// Waits until no processor can be executing a callback of this module any more.
///
/// To be called when everything that registers callbacks has been dropped, before the module's code
/// goes away: unhooking a socket waits for the callbacks that hold its lock, but not for one that
/// was entered and has not taken the lock yet. Those run in softirqs, which a grace period waits
/// for; callbacks in thread context hold the socket's lock, which releasing the socket waited for.
///
/// The last [`ZcUbuf`](socket::ZcUbuf), too, is completed by a callback that has not returned yet.
/// That one holds no lock of ours, and may run in a softirq, or in any thread that happens to free a
/// packet, and be preempted there. Such a thread is waited for by a grace period for tasks: until
/// every thread has gone to sleep of its own accord, or was seen outside of the kernel. May sleep.
///
/// # Examples
///
/// ```
/// use crate::lib_linux::socket::{tests::pair, SocketEvents};
/// use kernel::sync::{Arc, ArcBorrow};
///
/// struct Ignore;
///
/// impl SocketEvents for Ignore {
///     fn data_ready(_this: ArcBorrow<'_, Self>) {}
///     fn write_space(_this: ArcBorrow<'_, Self>) {}
///     fn state_change(_this: ArcBorrow<'_, Self>) {}
/// }
///
/// let (one, two) = pair()?;
/// let hooked = one.hook(Arc::new(Ignore, GFP_KERNEL)?);
/// assert_eq!(two.send_bytes(b"hello")?, 5);
/// drop(hooked);
/// // A callback may still be executing its last instructions.
/// wait_for_callbacks();
/// # Ok::<(), Error>(())
/// ```
pub(crate) fn wait_for_callbacks() {
    kernel::sync::rcu::synchronize_rcu();
    // SAFETY: Has no preconditions but that the caller may sleep, as this function's caller may.
    unsafe { sys::socklnd_helper_synchronize_rcu_tasks() };
}
