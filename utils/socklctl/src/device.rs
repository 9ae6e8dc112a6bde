// SPDX-License-Identifier: GPL-2.0

//! `/dev/socklnd` and its ioctls.
//!
//! All `unsafe` code of the tool is here. The rest of the tool uses [`Driver`], which the tests implement
//! without a module.

use crate::{
    error::{Action, Error},
    uapi,
};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    ioctl,
};
use std::{ffi::c_void, fmt, marker::PhantomData, os::fd::OwnedFd, path::Path};

/// A structure of the uapi header: integers only, no padding.
///
/// # Safety
///
/// Any bytes must make a valid value, because the kernel may write any.
pub(crate) unsafe trait Plain: Copy + Default + 'static {}

macro_rules! plain {
    ($($name:ident),* $(,)?) => { $(
        // SAFETY: The generated structure consists of integers and arrays of them.
        unsafe impl Plain for uapi::$name {}
    )* };
}

plain! {
    socklnd_version, socklnd_ni, socklnd_peer_add, socklnd_peer_del, socklnd_conn_close,
    socklnd_list, socklnd_ni_entry, socklnd_peer_entry, socklnd_conn_entry, socklnd_stats_entry,
    socklnd_peer_stats_entry,
    socklnd_ping, socklnd_service, socklnd_bench, socklnd_register, socklnd_if, socklnd_if_entry,
    socklnd_route, socklnd_gateway, socklnd_route_entry, socklnd_routing_set, socklnd_routing,
}

/// The number of an ioctl, and the type `T` that goes with it.
pub(crate) struct Op<T> {
    number: u32,
    _type: PhantomData<fn(T)>,
}

impl<T> Op<T> {
    /// Checks, while compiling, that the size in the number is that of `T`.
    const fn new(number: u32) -> Self {
        assert!((number >> 16) & 0x3fff == size_of::<T>() as u32);
        Self {
            number,
            _type: PhantomData,
        }
    }
}

/// The number of an ioctl that returns a list of `E`.
pub(crate) struct ListOp<E> {
    op: Op<uapi::socklnd_list>,
    _entry: PhantomData<fn(E)>,
}

impl<E> ListOp<E> {
    const fn new(number: u32) -> Self {
        Self {
            op: Op::new(number),
            _entry: PhantomData,
        }
    }
}

pub(crate) const VERSION: Op<uapi::socklnd_version> = Op::new(uapi::SOCKLND_IOC_VERSION);
pub(crate) const MYNID: Op<uapi::socklnd_ni> = Op::new(uapi::SOCKLND_IOC_MYNID);
pub(crate) const NI_ADD: Op<uapi::socklnd_ni> = Op::new(uapi::SOCKLND_IOC_NI_ADD);
pub(crate) const NI_DEL: Op<uapi::socklnd_ni> = Op::new(uapi::SOCKLND_IOC_NI_DEL);
pub(crate) const NI_SET: Op<uapi::socklnd_ni> = Op::new(uapi::SOCKLND_IOC_NI_SET);
pub(crate) const IF_ADD: Op<uapi::socklnd_if> = Op::new(uapi::SOCKLND_IOC_IF_ADD);
pub(crate) const IF_DEL: Op<uapi::socklnd_if> = Op::new(uapi::SOCKLND_IOC_IF_DEL);
pub(crate) const PEER_ADD: Op<uapi::socklnd_peer_add> = Op::new(uapi::SOCKLND_IOC_PEER_ADD);
pub(crate) const PEER_DEL: Op<uapi::socklnd_peer_del> = Op::new(uapi::SOCKLND_IOC_PEER_DEL);
pub(crate) const CONN_CLOSE: Op<uapi::socklnd_conn_close> = Op::new(uapi::SOCKLND_IOC_CONN_CLOSE);
pub(crate) const CONN_PUSH: Op<uapi::socklnd_conn_close> = Op::new(uapi::SOCKLND_IOC_CONN_PUSH);
pub(crate) const CONN_REGISTER: Op<uapi::socklnd_register> =
    Op::new(uapi::SOCKLND_IOC_CONN_REGISTER);
pub(crate) const ROUTE_ADD: Op<uapi::socklnd_route> = Op::new(uapi::SOCKLND_IOC_ROUTE_ADD);
pub(crate) const ROUTE_DEL: Op<uapi::socklnd_route> = Op::new(uapi::SOCKLND_IOC_ROUTE_DEL);
pub(crate) const ROUTE_NOTIFY: Op<uapi::socklnd_gateway> = Op::new(uapi::SOCKLND_IOC_ROUTE_NOTIFY);
pub(crate) const ROUTING_SET: Op<uapi::socklnd_routing_set> =
    Op::new(uapi::SOCKLND_IOC_ROUTING_SET);
pub(crate) const ROUTING_GET: Op<uapi::socklnd_routing> = Op::new(uapi::SOCKLND_IOC_ROUTING_GET);
pub(crate) const PING: Op<uapi::socklnd_ping> = Op::new(uapi::SOCKLND_IOC_PING);
pub(crate) const SERVICE: Op<uapi::socklnd_service> = Op::new(uapi::SOCKLND_IOC_SERVICE);
pub(crate) const BENCH: Op<uapi::socklnd_bench> = Op::new(uapi::SOCKLND_IOC_BENCH);

pub(crate) const STATS: ListOp<uapi::socklnd_stats_entry> = ListOp::new(uapi::SOCKLND_IOC_STATS);
pub(crate) const NI_LIST: ListOp<uapi::socklnd_ni_entry> = ListOp::new(uapi::SOCKLND_IOC_NI_LIST);
pub(crate) const IF_LIST: ListOp<uapi::socklnd_if_entry> = ListOp::new(uapi::SOCKLND_IOC_IF_LIST);
pub(crate) const PEER_LIST: ListOp<uapi::socklnd_peer_entry> =
    ListOp::new(uapi::SOCKLND_IOC_PEER_LIST);
pub(crate) const PEER_STATS: ListOp<uapi::socklnd_peer_stats_entry> =
    ListOp::new(uapi::SOCKLND_IOC_PEER_STATS);
pub(crate) const ROUTE_LIST: ListOp<uapi::socklnd_route_entry> =
    ListOp::new(uapi::SOCKLND_IOC_ROUTE_LIST);
pub(crate) const CONN_LIST: ListOp<uapi::socklnd_conn_entry> =
    ListOp::new(uapi::SOCKLND_IOC_CONN_LIST);

/// Handles requests: the module, or a fake of it in tests.
pub(crate) trait Driver {
    /// Carries out one request; the module's answer is in `arg` afterwards.
    fn call<T: Plain>(&self, op: &Op<T>, arg: &mut T) -> Result<(), Errno>;

    /// Fills `room` with the entries that `ni` matches. Returns how many were written and how many
    /// there are.
    fn list_into<E: Plain>(
        &self,
        op: &ListOp<E>,
        ni: uapi::socklnd_nid,
        room: &mut [E],
    ) -> Result<(usize, usize), Errno>;

    /// All entries that `ni` matches, from one snapshot.
    fn list<E: Plain>(&self, op: &ListOp<E>, ni: uapi::socklnd_nid) -> Result<Vec<E>, Errno> {
        let mut capacity = 64;
        loop {
            let mut entries = vec![E::default(); capacity];
            let (count, total) = self.list_into(op, ni, &mut entries)?;
            if total <= capacity {
                entries.truncate(count);
                return Ok(entries);
            }
            // Some more room: entries may be added before the next attempt.
            capacity = total + total / 8 + 16;
        }
    }
}

/// The open device.
#[derive(Debug)]
pub(crate) struct Device(OwnedFd);

impl Device {
    /// Opens the device and checks that the module speaks this tool's version of the interface.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(
            |errno| Error::Open {
                path: path.into(),
                errno,
            },
        )?;
        let device = Self(fd);
        let version = device.version()?;
        if version.abi_major != uapi::SOCKLND_ABI_MAJOR {
            return Err(Error::Abi {
                module: version.abi_major,
                tool: uapi::SOCKLND_ABI_MAJOR,
            });
        }
        Ok(device)
    }
}

/// The version of the module.
pub(crate) trait Version: Driver {
    fn version(&self) -> Result<uapi::socklnd_version, Error> {
        let mut version = uapi::socklnd_version::default();
        self.call(&VERSION, &mut version).map_err(|errno| {
            Error::request(Action::Version, "ask for the module's version", errno)
        })?;
        Ok(version)
    }
}

impl<D: Driver> Version for D {}

/// A structure that is passed to the kernel, which may change it.
struct Call<'a, T> {
    number: u32,
    arg: &'a mut T,
}

// SAFETY: `as_ptr` returns a pointer to a `T` that is borrowed as long as `self` lives. `Op::new`
// has checked that the number's size is the size of `T`, and the kernel accesses that much; it may
// write any bytes there, because a `T` is `Plain`.
unsafe impl<T: Plain> ioctl::Ioctl for Call<'_, T> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> ioctl::Opcode {
        self.number
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.arg).cast()
    }

    unsafe fn output_from_ptr(_: ioctl::IoctlOutput, _: *mut c_void) -> Result<(), Errno> {
        Ok(())
    }
}

impl Driver for Device {
    fn call<T: Plain>(&self, op: &Op<T>, arg: &mut T) -> Result<(), Errno> {
        // SAFETY: `Call` describes the request, see there. Should the file be another device's, the
        // number says to that device's driver how much memory there is, too.
        unsafe {
            ioctl::ioctl(
                &self.0,
                Call {
                    number: op.number,
                    arg,
                },
            )
        }
    }

    fn list_into<E: Plain>(
        &self,
        op: &ListOp<E>,
        ni: uapi::socklnd_nid,
        room: &mut [E],
    ) -> Result<(usize, usize), Errno> {
        // The kernel writes at most `capacity` entries of `entry_size` bytes from `entries` on: the
        // whole of `room` and nothing else.
        let mut list = uapi::socklnd_list {
            ni,
            entries: room.as_mut_ptr().expose_provenance() as u64,
            entry_size: size_of::<E>() as u32,
            capacity: u32::try_from(room.len()).map_err(|_| Errno::OVERFLOW)?,
            ..Default::default()
        };
        self.call(&op.op, &mut list)?;
        Ok((room.len().min(list.count as usize), list.total as usize))
    }
}

impl<T> fmt::Debug for Op<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Op({:#x})", self.number)
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A stand-in for the module, for tests.

    use super::*;
    use std::{any::Any, cell::RefCell, collections::VecDeque};

    type Handler = Box<dyn FnMut(u32, &mut dyn Any) -> Result<(), Errno>>;

    /// Answers requests with a closure, and lists with what it was given.
    pub(crate) struct Fake {
        handler: RefCell<Handler>,
        lists: RefCell<VecDeque<Box<dyn Any>>>,
    }

    impl Fake {
        /// `handler` gets the number and the structure of every request.
        pub(crate) fn new(
            handler: impl FnMut(u32, &mut dyn Any) -> Result<(), Errno> + 'static,
        ) -> Self {
            Self {
                handler: RefCell::new(Box::new(handler)),
                lists: RefCell::default(),
            }
        }

        /// Answers no request but those for lists: each call of `list_into` gets one of `lists`.
        pub(crate) fn lists<E: Plain>(lists: Vec<Vec<E>>) -> Self {
            let fake = Self::new(|_, _| Err(Errno::NOTTY));
            let boxed = lists.into_iter().map(|list| Box::new(list) as Box<dyn Any>);
            fake.lists.borrow_mut().extend(boxed);
            fake
        }
    }

    impl Driver for Fake {
        fn call<T: Plain>(&self, op: &Op<T>, arg: &mut T) -> Result<(), Errno> {
            (self.handler.borrow_mut())(op.number, arg)
        }

        fn list_into<E: Plain>(
            &self,
            _: &ListOp<E>,
            _: uapi::socklnd_nid,
            room: &mut [E],
        ) -> Result<(usize, usize), Errno> {
            let list = self.lists.borrow_mut().pop_front().ok_or(Errno::NOTTY)?;
            let list = list.downcast::<Vec<E>>().map_err(|_| Errno::INVAL)?;
            let count = list.len().min(room.len());
            room[..count].copy_from_slice(&list[..count]);
            Ok((count, list.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fake::Fake, *};

    fn entries(count: u32) -> Vec<uapi::socklnd_ni_entry> {
        (0..count)
            .map(|pid| uapi::socklnd_ni_entry {
                pid,
                ..Default::default()
            })
            .collect()
    }

    #[test]
    fn a_list_that_outgrows_its_room_is_asked_for_again() {
        let fake = Fake::lists(vec![entries(100), entries(300), entries(301)]);
        let list = fake.list(&NI_LIST, Default::default()).unwrap();
        assert_eq!(list.len(), 301);
        assert!(
            list.iter()
                .enumerate()
                .all(|(i, entry)| entry.pid as usize == i)
        );
    }

    #[test]
    fn a_short_list_is_cut_to_what_came() {
        let list = Fake::lists(vec![entries(2)])
            .list(&NI_LIST, Default::default())
            .unwrap();
        assert_eq!(list.len(), 2);
        assert!(
            Fake::lists(vec![entries(0)])
                .list(&NI_LIST, Default::default())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_missing_device_is_named() {
        let error = Device::open(Path::new("/nonexistent/socklnd")).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/socklnd"),
            "{error}"
        );
        assert!(error.to_string().contains("modprobe ksocklnd"), "{error}");
    }

    #[test]
    fn another_device_is_not_mistaken_for_ours() {
        let error = Device::open(Path::new("/dev/null")).unwrap_err();
        assert!(error.to_string().contains("ENOTTY"), "{error}");
    }
}
