// SPDX-License-Identifier: GPL-2.0

//! A program that is in a call on a socket which does not return.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags, mmap_anonymous, munmap, userfaultfd};
use rustix::net::{RecvFlags, recv};

use crate::ioctl;

const PAGE: usize = 4096;
const SOON: Duration = Duration::from_secs(20);

/// From `linux/userfaultfd.h`.
const UFFD_API: u64 = 0xaa;
const UFFDIO_API: u32 = ioctl::number(3, 0xaa, 0x3f, 24);
const UFFDIO_REGISTER: u32 = ioctl::number(3, 0xaa, 0x00, 32);
const MODE_MISSING: u64 = 1;

/// A page of memory that never comes: who touches it waits until this is dropped.
struct Absent {
    start: *mut u8,
    handler: File,
}

impl Absent {
    fn new() -> Result<Absent> {
        // SAFETY: pages are asked for anywhere.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let start = start.cast::<u8>();
        // It can only be polled if reading does not wait.
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: a descriptor alone changes nothing.
        let handler: OwnedFd = unsafe { userfaultfd(flags) }?;
        let this = Absent {
            start,
            handler: File::from(handler),
        };
        let mut api = ioctl::buffer(&[(0, &UFFD_API.to_ne_bytes())]);
        ioctl::with_buffer(&this.handler, UFFDIO_API, &mut api).context("UFFDIO_API")?;
        let mut range = ioctl::buffer(&[
            (0, &(start.expose_provenance() as u64).to_ne_bytes()),
            (8, &(PAGE as u64).to_ne_bytes()),
            (16, &MODE_MISSING.to_ne_bytes()),
        ]);
        ioctl::with_buffer(&this.handler, UFFDIO_REGISTER, &mut range)
            .context("UFFDIO_REGISTER")?;
        Ok(this)
    }

    /// Waits until somebody waits for it.
    fn await_touch(&self) -> Result<()> {
        let mut handlers = [PollFd::new(&self.handler, PollFlags::IN)];
        let limit = Timespec::try_from(SOON)?;
        poll(&mut handlers, Some(&limit))?;
        let events = handlers[0].revents();
        ensure!(events == PollFlags::IN, "nobody waits: {events:?}");
        Ok(())
    }
}

/// A thread that receives from a socket into memory that does not come; the socket may be closed
/// meanwhile. Who waits for the socket's lock waits for this to be dropped.
pub struct Stuck {
    handler: Option<File>,
    start: *mut u8,
    thread: Option<JoinHandle<Result<usize>>>,
}

impl Stuck {
    /// Begins to receive. There must be something to receive.
    pub fn receive(socket: &TcpStream) -> Result<Stuck> {
        let absent = Absent::new()?;
        let start = absent.start;
        let fd = socket.as_raw_fd();
        // SAFETY: the page is there for as long as the thread, which alone uses it.
        let page = unsafe { std::slice::from_raw_parts_mut(start, PAGE) };
        let thread = thread::spawn(move || {
            // SAFETY: the socket is borrowed until the call is under way, which has it from then on.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            Ok(recv(fd, page, RecvFlags::empty())?.0)
        });
        absent.await_touch()?;
        Ok(Stuck {
            handler: Some(absent.handler),
            start,
            thread: Some(thread),
        })
    }

    /// Lets the call return: how many bytes it got.
    pub fn end(mut self) -> Result<usize> {
        self.stop()
    }

    fn stop(&mut self) -> Result<usize> {
        // The memory comes, as that of anybody.
        self.handler = None;
        let thread = self.thread.take().context("it was ended before")?;
        thread.join().map_err(|_| anyhow!("the thread panicked"))?
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.stop();
        }
        // SAFETY: the thread that used it has ended.
        let _ = unsafe { munmap(self.start.cast(), PAGE) };
    }
}
