// SPDX-License-Identifier: GPL-2.0

//! Errors, with messages that say what the user can do about them.

use rustix::io::Errno;
use serde::{Serialize, ser::SerializeMap};
use std::{
    io,
    path::{Path, PathBuf},
};

/// What was being done when a request failed. The likely cause of an error depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Version,
    NiAdd,
    NiDel,
    PeerAdd,
    PeerDel,
    ConnClose,
    ConnPush,
    ConnRegister,
    NiSet,
    IfAdd,
    IfDel,
    RouteAdd,
    RouteDel,
    RouteNotify,
    RoutingSet,
    /// Lists and counters.
    List,
    Ping,
    Bench,
    Serve,
}

/// Everything that makes the tool fail, apart from a wrong command line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("can't open {}: {}{}", .path.display(), describe(*.errno), because(open_cause(*.errno)))]
    Open { path: PathBuf, errno: Errno },

    #[error(
        "the module has version {module} of the ioctl interface, this socklctl has version {tool}: \
         install the socklctl that came with the module"
    )]
    Abi { module: u32, tool: u32 },

    #[error("can't {what}: {}{}", describe(*.errno), because(cause(*.action, *.errno)))]
    Request {
        action: Action,
        what: String,
        errno: Errno,
    },

    /// The operation was carried out, but not with success. Its report was printed already.
    #[error("{0}")]
    Outcome(String),

    #[error("can't {what} {}: {source}", .path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    /// A configuration that can't be used; nothing was changed.
    #[error("{} can't be imported; nothing was changed:{}", .path.display(), list(.problems))]
    Invalid {
        path: PathBuf,
        problems: Vec<String>,
    },

    /// An import of which a step failed: why, and what became of the steps before.
    #[error("{why}; {}", what_became(*.undone, .left))]
    Import {
        why: Box<Error>,
        undone: usize,
        /// Why steps could not be undone.
        left: Vec<Error>,
    },

    #[error("can't set the module's parameter {name} to {value}: {source}")]
    Parameter {
        name: String,
        value: String,
        source: io::Error,
    },

    #[error("can't {what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
}

impl Error {
    /// The module refused a request; `what` completes the sentence "can't ...".
    pub(crate) fn request(action: Action, what: impl Into<String>, errno: Errno) -> Self {
        Self::Request {
            action,
            what: what.into(),
            errno,
        }
    }

    /// The error number, where there is one.
    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open { errno, .. } | Self::Request { errno, .. } => Some(*errno),
            Self::Io { source, .. }
            | Self::File { source, .. }
            | Self::Parameter { source, .. } => Errno::from_io_error(source),
            Self::Import { why, .. } => why.errno(),
            Self::Abi { .. } | Self::Outcome(_) | Self::Invalid { .. } => None,
        }
    }
}

/// `{"error": "the whole sentence", "errno": "EPERM" or null}`
impl Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("error", &self.to_string())?;
        map.serialize_entry("errno", &self.errno().map(errno_name))?;
        map.end()
    }
}

/// One problem behind a blank, or several on lines of their own.
fn list(problems: &[String]) -> String {
    match problems {
        [one] => format!(" {one}"),
        many => many
            .iter()
            .map(|problem| format!("\n  {problem}"))
            .collect(),
    }
}

/// What became of the steps before the one that failed.
fn what_became(count: usize, left: &[Error]) -> String {
    let steps = if count == 1 { "step was" } else { "steps were" };
    match (count, left) {
        (0, []) => "nothing was changed".to_string(),
        (_, []) => format!("nothing was changed: {count} {steps} undone"),
        _ => {
            let left: Vec<_> = left.iter().map(Error::to_string).collect();
            format!("{count} {steps} undone, but not all: {}", left.join("; "))
        }
    }
}

/// `; cause`, or nothing.
fn because(cause: Option<&str>) -> String {
    cause.map(|cause| format!("; {cause}")).unwrap_or_default()
}

/// The likely cause of a failed attempt to open the device.
fn open_cause(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::NOENT | Errno::NXIO | Errno::NODEV if Path::new("/sys/module/ksocklnd").exists() => {
            "the ksocklnd that is loaded is another driver, such as Lustre's C module, or this is a \
             container without the device"
        }
        Errno::NOENT | Errno::NXIO | Errno::NODEV => {
            "the module is not loaded (modprobe ksocklnd), or this is a container without the device"
        }
        Errno::ACCESS | Errno::PERM => "only root may use it, by the mode of the device",
        _ => return None,
    })
}

/// The likely cause of a refused request.
fn cause(action: Action, errno: Errno) -> Option<&'static str> {
    use Action::*;
    let sends = matches!(action, Ping | Bench);
    Some(match (action, errno) {
        (Version, Errno::NOTTY) => "this is not the socklnd device",
        (_, Errno::NOTTY) => "the module is older than this socklctl and doesn't know the request",
        (NiAdd | NiSet, Errno::OPNOTSUPP) => {
            "LNet configures NIs: lnetctl net add --net tcp --if DEVICE"
        }
        (NiDel, Errno::OPNOTSUPP) => "LNet configures NIs: lnetctl net del --net tcp --if DEVICE",
        (IfAdd | IfDel, Errno::OPNOTSUPP) => {
            "with LNet an NI has one address; several NIs are for Multi-Rail: lnetctl net add"
        }
        (PeerAdd, Errno::OPNOTSUPP) => {
            "LNet configures peers: lctl --net tcp add_peer NID ADDRESS PORT"
        }
        (PeerDel, Errno::OPNOTSUPP) => "LNet configures peers: lctl --net tcp del_peer NID",
        (RouteAdd | RouteDel | RouteNotify, Errno::OPNOTSUPP) => {
            "LNet configures routes: lnetctl route add, del, show"
        }
        (RoutingSet, Errno::OPNOTSUPP) => "LNet forwards messages: lnetctl set routing 0 or 1",
        (List, Errno::OPNOTSUPP) => "LNet has the routes: lnetctl route show, lnetctl routing show",
        (Ping, Errno::OPNOTSUPP) => "LNet sends pings: lnetctl ping NID",
        (Bench | Serve, Errno::OPNOTSUPP) => "with LNet, use lnet_selftest: lst",
        (ConnRegister, Errno::OPNOTSUPP) => "with LNet, the driver opens all connections itself",
        (_, Errno::PERM) => "this needs CAP_NET_ADMIN in the network namespace (run as root)",
        (_, Errno::NODEV) => "the module is being loaded or removed",
        (_, Errno::AFNOSUPPORT) => {
            "a link-local address (fe80::) needs a network device, which a NID can't name; for other \
             addresses: this kernel has no IPv6"
        }
        (NiAdd | NiSet | PeerAdd | RouteAdd, Errno::PROTONOSUPPORT) => {
            "an IPv6 address needs version 4 of the protocol, which the module's parameter 'protocol' \
             excludes"
        }
        (RoutingSet, Errno::NOMEM) => {
            "there is not enough memory for the forwarding buffers (see the module's parameters \
             small_router_buffers and large_router_buffers)"
        }
        (_, Errno::NOMEM) => "the kernel is short of memory",

        (NiAdd | NiSet | IfAdd, Errno::ADDRNOTAVAIL) => {
            "no device of this network namespace has that address, it is a broadcast address, or an \
             IPv6 address that is still tentative (see: ip address)"
        }
        (NiAdd | NiSet | IfAdd, Errno::ADDRINUSE) => {
            "another program or driver listens on that address and the port in accept_port, by \
             default 988 (see: ss -ltn)"
        }
        (NiAdd, Errno::EXIST) => "there is such an NI already",
        (NiSet, Errno::NOTUNIQ) => {
            "this node has several NIDs: use 'ni add' and 'ni del' (see: socklctl ni list)"
        }
        (_, Errno::NOTUNIQ) => "several NIs match: say which one with --ni (see: socklctl ni list)",
        (NiDel, Errno::NOENT) => "there is no such NI here (see: socklctl ni list)",

        (PeerDel, Errno::NOENT) => "there is no such peer or route (see: socklctl peer list)",
        (IfAdd, Errno::EXIST) => "the NI uses that address already",
        (IfAdd, Errno::NOSPC) => "an NI has at most 16 addresses",
        (IfDel, Errno::NOENT) => "no NI here uses that address (see: socklctl interface list)",
        (IfDel, Errno::BUSY) => "it is the address in the NI's NID: delete the NI",
        (PeerAdd, Errno::EXIST) => "that address was added with another port",
        (RouteAdd, Errno::EXIST) => "there is such a route already",
        (RouteAdd, Errno::NOSPC) => "an NI has at most 1024 routes to other networks",
        (RouteAdd, Errno::INVAL) => "the gateway is in that network itself, or is this node",
        (RouteDel | RouteNotify, Errno::NOENT) => {
            "there is no route through that gateway (see: socklctl route list)"
        }
        (ConnRegister, Errno::BADF) => "socklctl was started without such a file descriptor",
        (ConnRegister, Errno::NOTSOCK) => "that file descriptor is no socket",
        (ConnRegister, Errno::PROTONOSUPPORT) => "that socket is not TCP",
        (ConnRegister, Errno::XDEV) => "that socket belongs to another network namespace",
        (ConnRegister, Errno::NOTCONN) => {
            "that socket is not connected: it was closed, or it listens"
        }
        (ConnRegister, Errno::BUSY) => {
            "the kernel uses that socket already: it was registered before, or has TLS or BPF on it"
        }
        (ConnClose | ConnPush, Errno::NOENT) => {
            "there is no such connection (see: socklctl conn list)"
        }
        (Serve, Errno::BUSY) => "the service is running already",
        (Bench, Errno::BUSY) => "the node has no room for another benchmark now",
        (_, Errno::NOENT) => "there is no such NI here (see: socklctl ni list)",
        (_, Errno::NETUNREACH) => {
            "no NI is in that network or has a route to it: add one, or check the number after @tcp"
        }

        (_, Errno::HOSTUNREACH) if sends => {
            "no connection could be made: the node is down, does not answer, or no IP route leads to it; \
             or all gateways to its network are down (see: socklctl route list)"
        }
        (_, Errno::CONNREFUSED) if sends => {
            "no driver listens there on the port that the peer was added with, or on that in accept_port"
        }
        (_, Errno::CONNRESET) if sends => {
            "the node closed the connection: it may not have that NID, or refuse this node's NID"
        }
        (_, Errno::PROTONOSUPPORT) if sends => {
            "an IPv6 NID needs version 4 of the protocol: the module's parameter 'protocol' excludes \
             it, or the connection to the gateway has an older one (protocol=4 prevents that)"
        }
        (Ping, Errno::TIMEDOUT) => "the node did not answer in time",
        (Bench, Errno::TIMEDOUT) => {
            "the node did not answer in time: does 'socklctl serve' run there?"
        }
        (_, Errno::SHUTDOWN) => "the NI was shut down meanwhile",
        (_, Errno::PROTO) => {
            "the node's answer is malformed: does a driver of Lustre listen there?"
        }
        (_, Errno::INTR) => "interrupted by a signal",
        _ => return None,
    })
}

/// `Operation not permitted (EPERM)`
pub(crate) fn describe(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    // Rust's own text ends in "(os error 1)", which says less than the name.
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("{text} ({})", errno_name(errno))
}

/// The name of an error number, from among those that the module uses.
pub(crate) fn errno_name(errno: Errno) -> String {
    macro_rules! names {
        ($($name:ident),* $(,)?) => {
            match errno {
                $(Errno::$name => concat!("E", stringify!($name)).into(),)*
                Errno::ACCESS => "EACCES".into(),
                other => format!("errno {}", other.raw_os_error()),
            }
        };
    }
    names!(
        ADDRINUSE,
        ADDRNOTAVAIL,
        AFNOSUPPORT,
        AGAIN,
        ALREADY,
        BADF,
        BADMSG,
        BUSY,
        CANCELED,
        CONNABORTED,
        CONNREFUSED,
        CONNRESET,
        EXIST,
        FAULT,
        HOSTDOWN,
        HOSTUNREACH,
        INTR,
        INVAL,
        IO,
        ISCONN,
        MFILE,
        MSGSIZE,
        NETDOWN,
        NETUNREACH,
        NFILE,
        NOBUFS,
        NODEV,
        NOENT,
        NOMEM,
        NOSPC,
        NOTCONN,
        NOTSOCK,
        NOTTY,
        NOTUNIQ,
        NXIO,
        OPNOTSUPP,
        OVERFLOW,
        PERM,
        PIPE,
        PROTO,
        PROTONOSUPPORT,
        SHUTDOWN,
        STALE,
        TIMEDOUT,
        XDEV,
    )
}

/// The name of an error number that came in a structure; nothing for 0.
pub(crate) fn errno_from_wire(errno: u32) -> Option<String> {
    match i32::try_from(errno) {
        Ok(0) => None,
        Ok(raw @ 1..=4095) => Some(errno_name(Errno::from_raw_os_error(raw))),
        _ => Some(format!("errno {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_failed_and_why() {
        let error = Error::request(Action::NiAdd, "add NI 1.2.3.4@tcp", Errno::ADDRNOTAVAIL);
        assert_eq!(
            error.to_string(),
            "can't add NI 1.2.3.4@tcp: Cannot assign requested address (EADDRNOTAVAIL); no \
             device of this network namespace has that address, it is a broadcast address, or an \
             IPv6 address that is still tentative (see: ip address)"
        );
        let error = Error::request(Action::NiAdd, "add NI 1.2.3.4@tcp", Errno::ADDRINUSE);
        assert!(error.to_string().contains("accept_port, by"), "{error}");
        let error = Error::request(Action::Ping, "ping 1.2.3.4@tcp", Errno::HOSTUNREACH);
        assert!(error.to_string().contains("the node is down"), "{error}");
        let error = Error::request(Action::Bench, "x", Errno::PERM);
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }

    #[test]
    fn an_error_without_a_known_cause_stands_alone() {
        let error = Error::request(Action::List, "list peers", Errno::IO);
        assert_eq!(
            error.to_string(),
            "can't list peers: Input/output error (EIO)"
        );
    }

    #[test]
    fn an_error_in_json_has_its_number_by_name() {
        let error = Error::request(Action::Ping, "ping x", Errno::TIMEDOUT);
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!(json["errno"], "ETIMEDOUT");
        assert_eq!(json["error"], error.to_string());
        let json = serde_json::to_value(Error::Outcome("half of it failed".into())).unwrap();
        assert_eq!(json["errno"], serde_json::Value::Null);
    }

    #[test]
    fn error_numbers_from_the_module_have_names() {
        assert_eq!(errno_from_wire(0), None);
        assert_eq!(errno_from_wire(110).as_deref(), Some("ETIMEDOUT"));
        assert_eq!(errno_from_wire(13).as_deref(), Some("EACCES"));
        assert_eq!(errno_from_wire(4000).as_deref(), Some("errno 4000"));
        assert_eq!(
            errno_from_wire(u32::MAX).as_deref(),
            Some("errno 4294967295")
        );
    }
}
