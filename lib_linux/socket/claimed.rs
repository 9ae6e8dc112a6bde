// SPDX-License-Identifier: GPL-2.0

//! Sockets that programs have handed over.
//!
//! Such a socket belongs to its file, of which the [`Socket`] holds one reference; the program may
//! have others, and may go on using them. Nothing that it does there can do more than spoil the
//! stream: while a socket is claimed, nobody else in the kernel can put his own callbacks on it.
//! Letting go of it ends the connection for everybody, and leaves the program a socket that is shut
//! down and has its own callbacks.
//!
//! The claim is made, and given up, under the socket's lock and its callback lock: see
//! `socklnd_helper_sk_claim` in `helpers.c`.

use super::{
    super::{
        netns::{
            Net,
            NetUser, //
        },
        sys, //
    },
    hook::Hook,
    Socket, //
};
use core::{
    mem::ManuallyDrop,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

/// What a claimed socket's user data points to while it is not hooked: a hook for nobody. It tells
/// others that the socket is taken.
pub(super) struct Claim(KBox<Hook>);

/// A reference to the file of a socket.
///
/// # Invariants
///
/// The reference is ours.
struct SocketFile(NonNull<bindings::socket>);

impl SocketFile {
    /// The socket behind a file descriptor of the current process. Thread context.
    fn get(fd: c_int) -> Result<Self> {
        let mut err = 0;
        // SAFETY: `err` may be written to.
        let sock = unsafe { bindings::sockfd_lookup(fd, &mut err) };
        match NonNull::new(sock) {
            // INVARIANT: The function has taken the reference.
            Some(sock) => Ok(Self(sock)),
            None => Err(to_result(err).err().unwrap_or(EBADF)),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours.
        unsafe { sys::socklnd_helper_sockfd_put(self.0.as_ptr()) };
    }
}

impl Socket {
    /// Claims the connected socket behind a file descriptor of the current process, which must be of
    /// `net`. What the program has set that would hold data back is undone. May sleep.
    ///
    /// # Errors
    ///
    /// - `EBADF`, `ENOTSOCK`: there is no such descriptor, or it is no socket.
    /// - `EPROTONOSUPPORT`: it is not TCP.
    /// - `EXDEV`: it is of another namespace.
    /// - `ENOTCONN`: it is not connected, or not both ways any more.
    /// - `EBUSY`: somebody else in the kernel uses it, or the program is repairing it.
    /// - `ENOMEM`, and those of [`Socket::new_tcp`] about the namespace.
    pub(crate) fn from_fd(fd: c_int, net: &Net) -> Result<Self> {
        let file = SocketFile::get(fd)?;
        let net = NetUser::new(net)?;
        // SAFETY: The socket is valid as long as we have its file.
        let sk = unsafe { sys::socklnd_helper_sock_sk(file.0.as_ptr()) };
        // A socket has none only while it is being closed, which our reference prevents.
        let sk = NonNull::new(sk).ok_or(ENOTCONN)?;
        // SAFETY: The socket is valid.
        if !unsafe { sys::socklnd_helper_sk_is_tcp(sk.as_ptr()) } {
            return Err(EPROTONOSUPPORT);
        }
        // SAFETY: The socket is valid, and so is the namespace.
        if !unsafe { sys::socklnd_helper_sk_in_net(sk.as_ptr(), net.net().as_ptr()) } {
            return Err(EXDEV);
        }
        // Memory first: after the claim nothing may fail.
        let mark = KBox::new(Hook::mark(Default::default()), GFP_KERNEL)?;
        let mut hook = KBox::new(Hook::mark(Default::default()), GFP_KERNEL)?;
        let mut originals = sys::socklnd_sk_callbacks::default();
        let data: *const Hook = &raw const *mark;
        // SAFETY: This is a TCP socket, we don't hold its lock, and `originals` may be written to.
        // The mark lives until the socket is disclaimed.
        to_result(unsafe {
            sys::socklnd_helper_sk_claim(sk.as_ptr(), data.cast_mut().cast(), &mut originals)
        })?;
        *hook = Hook::mark(originals);
        // Given back by `disclaim`.
        let file = ManuallyDrop::new(file);
        // INVARIANT: Claimed above. The callbacks are those that `hook` has.
        Ok(Self {
            sock: file.0,
            sk,
            hook,
            claim: Some(Claim(mark)),
            net,
        })
    }

    /// What the user data is while the socket is not hooked.
    pub(super) fn mark(&self) -> *const Hook {
        match &self.claim {
            Some(Claim(mark)) => &raw const **mark,
            None => ptr::null(),
        }
    }

    /// Ends both directions once what was sent has arrived. May sleep.
    pub(super) fn shut_down(&self) {
        // An error means that there is no connection any more.
        // SAFETY: By the type invariants the socket is valid.
        let _ = unsafe {
            bindings::kernel_sock_shutdown(self.sock(), bindings::sock_shutdown_cmd_SHUT_RDWR)
        };
    }

    /// Ends the connection with a RST. May sleep.
    pub(super) fn break_off(&self) {
        // What the program is told; a positive number, as everywhere in `struct sock`.
        // CAST: A small constant.
        let why = bindings::ECONNABORTED as c_int;
        // An error means that there is no connection any more.
        // SAFETY: By the type invariants `sk` is valid, and a TCP socket's; we don't hold its lock.
        let _ = unsafe { sys::tcp_abort(self.sk(), why) };
    }

    /// Gives a claimed socket back to the program. May sleep.
    ///
    /// # Safety
    ///
    /// The socket must be claimed, and must not be used afterwards.
    pub(super) unsafe fn disclaim(&self) {
        // SAFETY: This is a TCP socket; it is not hooked, because a `HookedSocket` unhooks first.
        unsafe { sys::socklnd_helper_sk_disclaim(self.sk()) };
        // SAFETY: The reference was taken by `from_fd`, and by our requirement this is done once.
        unsafe { sys::socklnd_helper_sockfd_put(self.sock()) };
    }
}
