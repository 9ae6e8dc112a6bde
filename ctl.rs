// SPDX-License-Identifier: GPL-2.0

//! The ioctls of `/dev/socklnd`, which administrators use, as `include/uapi/socklnd.h` defines them.
//!
//! Requests are checked, converted, and passed on; nothing is decided here. A request acts on the network
//! namespace of its caller. One that changes or sends something needs `CAP_NET_ADMIN` there, which is checked
//! first. No allocation for a request enters a file system.
//!
//! The only state of an open file is the message layer's, see [`ioctl::File`]. The module can't be unloaded while a
//! file is open.

pub(crate) mod convert;
#[allow(unsafe_code)]
pub(crate) mod ffi;
pub(crate) mod list;
mod peers;

use self::{
    convert::{
        addr,
        check_flags,
        check_zero,
        nid,
        pattern,
        prefix_len,
        raw_nid,
        Pattern, //
    },
    ffi as uapi,
    list::list,
    peers::{
        conn_close,
        conn_push,
        conn_register,
        peer_add,
        peer_del, //
    }, //
};
use crate::{
    layer::{
        ioctl,
        RELEASE, //
    },
    lib_linux::{
        misc,
        netns::Net, //
    },
    ni::Ni,
    peer::Peer,
    wire::Nid,
    Lnd,
    LND, //
};
use kernel::{
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
    sync::Arc,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::UserSlice, //
};

const NAME: &CStr = match CStr::from_bytes_with_nul(uapi::SOCKLND_DEVICE) {
    Ok(name) => name,
    // Evaluated at compile time.
    Err(_) => panic!(),
};

/// The device, which exists as long as this.
#[pin_data]
pub(crate) struct Device {
    #[pin]
    _registration: MiscDeviceRegistration<Handle>,
}

impl Device {
    /// Registers the device. From now on there may be requests. May sleep.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(MiscDeviceOptions { name: NAME }),
        })
    }
}

/// An open file.
#[pin_data]
struct Handle {
    #[pin]
    layer: ioctl::File,
}

#[vtable]
impl MiscDevice for Handle {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _device: &MiscDeviceRegistration<Self>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                layer <- ioctl::File::new(),
            }),
            GFP_KERNEL,
        )
    }

    fn ioctl(this: Pin<&Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        // Takes locks that senders need, and a file system may be a sender.
        misc::memalloc_nofs(|| Self::request(this, cmd, arg))
    }
}

impl Handle {
    fn request(this: Pin<&Self>, cmd: u32, arg: usize) -> Result<isize> {
        let arg = Arg(UserPtr::from_addr(arg));
        ioctl::check(cmd)?;
        match cmd {
            uapi::SOCKLND_IOC_VERSION => arg.write(&version()),
            uapi::SOCKLND_IOC_MYNID => arg.query(|ni| mynid(&Caller::any()?, ni)),
            uapi::SOCKLND_IOC_STATS => arg.list::<uapi::socklnd_stats_entry>(),
            uapi::SOCKLND_IOC_NI_ADD => arg.command(ni_add),
            uapi::SOCKLND_IOC_NI_DEL => arg.command(ni_del),
            uapi::SOCKLND_IOC_NI_SET => arg.command(ni_set),
            uapi::SOCKLND_IOC_NI_LIST => arg.list::<uapi::socklnd_ni_entry>(),
            uapi::SOCKLND_IOC_IF_ADD => arg.command(if_add),
            uapi::SOCKLND_IOC_IF_DEL => arg.command(if_del),
            uapi::SOCKLND_IOC_IF_LIST => arg.list::<uapi::socklnd_if_entry>(),
            uapi::SOCKLND_IOC_PEER_ADD => arg.command(peer_add),
            uapi::SOCKLND_IOC_PEER_DEL => arg.command_and_reply(peer_del),
            uapi::SOCKLND_IOC_PEER_LIST => arg.list::<uapi::socklnd_peer_entry>(),
            uapi::SOCKLND_IOC_PEER_STATS => arg.list::<uapi::socklnd_peer_stats_entry>(),
            uapi::SOCKLND_IOC_CONN_CLOSE => arg.command_and_reply(conn_close),
            uapi::SOCKLND_IOC_CONN_PUSH => arg.command_and_reply(conn_push),
            uapi::SOCKLND_IOC_CONN_REGISTER => arg.command(conn_register),
            uapi::SOCKLND_IOC_CONN_LIST => arg.list::<uapi::socklnd_conn_entry>(),
            _ => this.layer.request(cmd, &arg),
        }?;
        Ok(0)
    }
}

/// The structure of a request, in user space.
///
/// The methods are not inlined, so that only the structure of this request uses the stack, and not those of all
/// others too.
pub(crate) struct Arg(UserPtr);

impl Arg {
    fn slice<T>(&self) -> UserSlice {
        UserSlice::new(self.0, size_of::<T>())
    }

    fn read<T: FromBytes>(&self) -> Result<T> {
        self.slice::<T>().reader().read()
    }

    fn write<T: AsBytes>(&self, value: &T) -> Result {
        self.slice::<T>().writer().write(value)
    }

    /// Reads the structure and calls `f` with it, for an administrator.
    #[inline(never)]
    pub(crate) fn command<T: FromBytes>(&self, f: impl FnOnce(&Caller, &T) -> Result) -> Result {
        let caller = Caller::admin()?;
        f(&caller, &self.read()?)
    }

    /// Reads the structure, calls `f` with it, and writes back what that has changed.
    #[inline(never)]
    pub(crate) fn query<T: FromBytes + AsBytes>(&self, f: impl FnOnce(&mut T) -> Result) -> Result {
        let mut value = self.read()?;
        f(&mut value)?;
        self.write(&value)
    }

    /// As [`Arg::command`], and writes back what `f` has changed: checks before that the structure can be written to.
    #[inline(never)]
    pub(crate) fn command_and_reply<T: FromBytes + AsBytes>(
        &self,
        f: impl FnOnce(&Caller, &mut T) -> Result,
    ) -> Result {
        let caller = Caller::admin()?;
        self.check_writable::<T>()?;
        self.query(|request| f(&caller, request))
    }

    #[inline(never)]
    fn check_writable<T: FromBytes + AsBytes>(&self) -> Result {
        self.write(&self.read::<T>()?)
    }

    /// Answers with a list.
    pub(crate) fn list<T: list::Entry>(&self) -> Result {
        self.query(|request| list::<T>(&Caller::any()?, request))
    }
}

/// The caller of a request: the driver, and the network namespace that the request acts on.
pub(crate) struct Caller {
    pub(crate) lnd: Arc<Lnd>,
    pub(crate) net: Net,
}

impl Caller {
    /// Any caller. `ENODEV` while the module is inserted or removed.
    pub(crate) fn any() -> Result<Self> {
        Self::in_net(Net::current())
    }

    /// A caller with `CAP_NET_ADMIN` in its network namespace, else `EPERM`. `ENODEV` as [`Caller::any`].
    pub(crate) fn admin() -> Result<Self> {
        let net = Net::current();
        if !net.capable_net_admin() {
            return Err(EPERM);
        }
        Self::in_net(net)
    }

    /// A caller in `net`, without a check of its capabilities. `ENODEV` as [`Caller::any`].
    pub(crate) fn in_net(net: Net) -> Result<Self> {
        let lnd = LND.get().ok_or(ENODEV)?;
        Ok(Self { lnd, net })
    }

    /// The NIs that match, oldest first; may be none. May sleep.
    pub(crate) fn nis(&self, pattern: Pattern) -> Result<KVec<Arc<Ni>>> {
        let mut nis = self.lnd.nis_in(&self.net)?;
        nis.retain(|ni| pattern.matches(ni.nid()));
        Ok(nis)
    }

    /// The first NI that matches and is in the network of `peer`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` if none matches, `ENETUNREACH` if none of those that do is in that network.
    pub(crate) fn ni_for(&self, pattern: Pattern, peer: Nid) -> Result<Arc<Ni>> {
        let nis = self.nis(pattern)?;
        if nis.is_empty() {
            return Err(ENOENT);
        }
        let mut nis = nis.iter();
        nis.find(|ni| ni.nid().net() == peer.net())
            .cloned()
            .ok_or(ENETUNREACH)
    }

    /// The only NI that matches. `ENOENT` if none does, `ENOTUNIQ` if several do. May sleep.
    fn only_ni(&self, pattern: Pattern) -> Result<Arc<Ni>> {
        let nis = self.nis(pattern)?;
        let first = nis.first().ok_or(ENOENT)?;
        if nis.len() > 1 {
            return Err(ENOTUNIQ);
        }
        Ok(first.clone())
    }

    /// The peers that match, of the NIs that match. May sleep.
    pub(crate) fn peers(&self, ni: Pattern, nid: Pattern) -> Result<KVVec<Arc<Peer>>> {
        let mut found = KVVec::new();
        for ni in self.nis(ni)?.iter() {
            for peer in ni.peers().collect()?.iter() {
                if nid.matches(peer.nid()) {
                    found.push(peer.clone(), GFP_KERNEL)?;
                }
            }
        }
        Ok(found)
    }
}

fn version() -> uapi::socklnd_version {
    let mut version = uapi::socklnd_version {
        abi_major: uapi::SOCKLND_ABI_MAJOR,
        abi_minor: uapi::SOCKLND_ABI_MINOR,
        ..Default::default()
    };
    for (to, from) in version.release.iter_mut().zip(RELEASE) {
        *to = *from;
    }
    version
}

fn mynid(caller: &Caller, request: &mut uapi::socklnd_ni) -> Result {
    check_zero([request.flags, request.pad])?;
    let nis = caller.nis(pattern(&request.nid)?)?;
    request.nid = raw_nid(nis.first().ok_or(ENOENT)?.nid());
    Ok(())
}

fn ni_add(caller: &Caller, request: &uapi::socklnd_ni) -> Result {
    check_zero([request.flags, request.pad])?;
    let nid = nid(&request.nid)?;
    caller.lnd.add_ni(caller.net.clone(), nid)
}

fn ni_del(caller: &Caller, request: &uapi::socklnd_ni) -> Result {
    check_zero([request.flags, request.pad])?;
    let nid = nid(&request.nid)?;
    caller.lnd.del_ni(&caller.net, Some(nid))
}

fn ni_set(caller: &Caller, request: &uapi::socklnd_ni) -> Result {
    check_zero([request.flags, request.pad])?;
    let nid = nid(&request.nid)?;
    caller.lnd.set_ni(&caller.net, nid)
}

fn if_add(caller: &Caller, request: &uapi::socklnd_if) -> Result {
    check_zero([request.pad])?;
    check_flags(request.flags, uapi::SOCKLND_IF_HAS_PREFIX)?;
    let ni = pattern(&request.ni)?;
    let addr = addr(&request.addr)?.ok_or(EINVAL)?;
    let prefix_len = if request.flags & uapi::SOCKLND_IF_HAS_PREFIX != 0 {
        Some(prefix_len(addr, request.prefix_len)?)
    } else {
        check_zero([request.prefix_len])?;
        None
    };
    caller.only_ni(ni)?.add_interface(addr, prefix_len)
}

fn if_del(caller: &Caller, request: &uapi::socklnd_if) -> Result {
    check_zero([request.prefix_len, request.flags, request.pad])?;
    let ni = pattern(&request.ni)?;
    let addr = addr(&request.addr)?;
    caller.only_ni(ni)?.del_interface(addr)
}

#[kunit_tests(socklnd_ctl)]
mod tests {
    use super::*;

    /// A caller in the initial namespace, where the module's tests run.
    fn caller() -> Result<Caller> {
        Caller::any()
    }

    fn good_nid() -> uapi::socklnd_nid {
        raw_nid(Nid::tcp(7, [10, 0, 0, 1]))
    }

    #[test]
    fn malformed_requests_are_refused_before_anything_is_looked_up() -> Result {
        let caller = caller()?;
        let ni = uapi::socklnd_ni {
            nid: good_nid(),
            ..Default::default()
        };
        for bad in [
            uapi::socklnd_ni { flags: 1, ..ni },
            uapi::socklnd_ni { pad: 1, ..ni },
            uapi::socklnd_ni::default(),
        ] {
            assert_eq!(ni_add(&caller, &bad), Err(EINVAL));
            assert_eq!(ni_del(&caller, &bad), Err(EINVAL));
            assert_eq!(ni_set(&caller, &bad), Err(EINVAL));
        }

        let add = uapi::socklnd_if {
            addr: good_nid().addr,
            ..Default::default()
        };
        for bad in [
            uapi::socklnd_if { pad: 1, ..add },
            uapi::socklnd_if { flags: 2, ..add },
            uapi::socklnd_if {
                prefix_len: 1,
                ..add
            },
            uapi::socklnd_if {
                flags: uapi::SOCKLND_IF_HAS_PREFIX,
                prefix_len: 33,
                ..add
            },
            uapi::socklnd_if::default(),
        ] {
            assert_eq!(if_add(&caller, &bad), Err(EINVAL));
        }
        for bad in [
            uapi::socklnd_if { pad: 1, ..add },
            uapi::socklnd_if { flags: 1, ..add },
            uapi::socklnd_if {
                prefix_len: 1,
                ..add
            },
        ] {
            assert_eq!(if_del(&caller, &bad), Err(EINVAL));
        }

        let add = uapi::socklnd_peer_add {
            nid: good_nid(),
            ..Default::default()
        };
        for bad in [
            uapi::socklnd_peer_add { pad: 1, ..add },
            uapi::socklnd_peer_add { pad2: 1, ..add },
            uapi::socklnd_peer_add { flags: 1, ..add },
            uapi::socklnd_peer_add::default(),
        ] {
            assert_eq!(peer_add(&caller, &bad), Err(EINVAL));
        }

        let del = uapi::socklnd_peer_del::default();
        for mut bad in [
            uapi::socklnd_peer_del { pad: 1, ..del },
            uapi::socklnd_peer_del { flags: 4, ..del },
            // Only a single addition can be undone.
            uapi::socklnd_peer_del {
                flags: uapi::SOCKLND_PEER_DEL_KEEP,
                ..del
            },
        ] {
            assert_eq!(peer_del(&caller, &mut bad), Err(EINVAL));
        }

        let close = uapi::socklnd_conn_close::default();
        for mut bad in [
            uapi::socklnd_conn_close { pad: 1, ..close },
            uapi::socklnd_conn_close { flags: 1, ..close },
        ] {
            assert_eq!(conn_close(&caller, &mut bad), Err(EINVAL));
            assert_eq!(conn_push(&caller, &mut bad), Err(EINVAL));
        }

        let register = uapi::socklnd_register {
            type_: uapi::SOCKLND_CONN_NONE,
            ..Default::default()
        };
        for bad in [
            uapi::socklnd_register { pad: 1, ..register },
            uapi::socklnd_register {
                flags: 1,
                ..register
            },
            uapi::socklnd_register {
                type_: 4,
                ..register
            },
            // A connection that the peer has opened has no type and no NID; others have both.
            uapi::socklnd_register {
                nid: good_nid(),
                ..register
            },
            uapi::socklnd_register {
                type_: uapi::SOCKLND_CONN_ANY,
                ..register
            },
        ] {
            assert_eq!(conn_register(&caller, &bad), Err(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn the_version_is_terminated() {
        let version = version();
        assert_eq!(version.abi_major, uapi::SOCKLND_ABI_MAJOR);
        assert!(version.release.starts_with(RELEASE));
        assert!(version.release.ends_with(&[0]));
    }
}
