// SPDX-License-Identifier: GPL-2.0

//! Commands about connections.

use super::peer::{Count, target};
use crate::{
    address::{Pattern, Shown, address_to_uapi, nid_to_uapi, socket_from_uapi},
    cli::ConnType,
    device::{self, Driver},
    error::{Action, Error},
    repo::wire::Nid,
    report::{Quiet, Report, or_dash, table},
    uapi,
    units::{bytes, milliseconds},
};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

pub(crate) fn close(
    driver: &impl Driver,
    ni: Pattern,
    nid: Pattern,
    address: Option<IpAddr>,
) -> Result<Count, Error> {
    let mut arg = uapi::socklnd_conn_close {
        ni: ni.to_uapi(),
        nid: nid.to_uapi(),
        addr: address_to_uapi(address),
        ..Default::default()
    };
    driver
        .call(&device::CONN_CLOSE, &mut arg)
        .map_err(|errno| {
            let what = format!("close connections of {}", target("peer", nid, address));
            Error::request(Action::ConnClose, what, errno)
        })?;
    Ok(Count {
        count: arg.count,
        what: "connection",
    })
}

pub(crate) fn push(
    driver: &impl Driver,
    ni: Pattern,
    nid: Pattern,
    address: Option<IpAddr>,
) -> Result<Count, Error> {
    let mut arg = uapi::socklnd_conn_close {
        ni: ni.to_uapi(),
        nid: nid.to_uapi(),
        addr: address_to_uapi(address),
        ..Default::default()
    };
    driver.call(&device::CONN_PUSH, &mut arg).map_err(|errno| {
        let what = format!("push connections of {}", target("peer", nid, address));
        Error::request(Action::ConnPush, what, errno)
    })?;
    Ok(Count {
        count: arg.count,
        what: "connection",
    })
}

/// The socket that was handed over.
#[derive(Debug, Serialize)]
pub(crate) struct Registered {
    fd: u16,
}

impl Report for Registered {
    fn text(&self) -> String {
        self.fd.to_string()
    }
}

/// Hands a socket over; `made` says its peer and type, if this node has opened the connection.
pub(crate) fn register(
    driver: &impl Driver,
    ni: Pattern,
    fd: u16,
    made: Option<(ConnType, Nid)>,
) -> Result<Quiet<Registered>, Error> {
    let mut arg = uapi::socklnd_register {
        ni: ni.to_uapi(),
        nid: made.map(|(_, nid)| nid_to_uapi(nid)).unwrap_or_default(),
        fd: fd.into(),
        type_: match made {
            None => uapi::SOCKLND_CONN_NONE,
            Some((ConnType::Any, _)) => uapi::SOCKLND_CONN_ANY,
            Some((ConnType::Control, _)) => uapi::SOCKLND_CONN_CONTROL,
            Some((ConnType::BulkIn, _)) => uapi::SOCKLND_CONN_BULK_IN,
            Some((ConnType::BulkOut, _)) => uapi::SOCKLND_CONN_BULK_OUT,
        },
        ..Default::default()
    };
    driver
        .call(&device::CONN_REGISTER, &mut arg)
        .map_err(|errno| {
            let what = format!("register file descriptor {fd}");
            Error::request(Action::ConnRegister, what, errno)
        })?;
    Ok(Quiet(Registered { fd }))
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Connections(Vec<Connection>);

#[derive(Debug, Serialize)]
struct Connection {
    ni: Shown,
    nid: Shown,
    r#type: &'static str,
    /// This side's address.
    local: Option<SocketAddr>,
    /// The peer's address.
    peer: Option<SocketAddr>,
    /// Whether this node opened it.
    active: bool,
    cpu: u32,
    protocol: u32,
    /// Sizes of the socket's buffers in bytes.
    tx_buffer: u32,
    rx_buffer: u32,
    nagle: bool,
    queued_bytes: u64,
    tx: Traffic,
    rx: Traffic,
    age_ms: u64,
    /// The part of `tx` that was sent without a copy.
    zero_copy: Traffic,
    queued_bytes_peak: u64,
    /// How often it had to wait for room in the send buffer.
    sndbuf_full: u64,
    /// How often there was no memory for the socket.
    nomem: u64,
}

/// Messages and bytes in one direction.
#[derive(Debug, Serialize)]
pub(super) struct Traffic {
    pub(super) msgs: u64,
    pub(super) bytes: u64,
}

impl From<&uapi::socklnd_conn_entry> for Connection {
    fn from(entry: &uapi::socklnd_conn_entry) -> Self {
        Self {
            ni: (&entry.ni).into(),
            nid: (&entry.nid).into(),
            r#type: match entry.type_ {
                uapi::SOCKLND_CONN_ANY => "any",
                uapi::SOCKLND_CONN_CONTROL => "control",
                uapi::SOCKLND_CONN_BULK_IN => "bulk_in",
                uapi::SOCKLND_CONN_BULK_OUT => "bulk_out",
                _ => "?",
            },
            local: socket_from_uapi(&entry.local_addr, entry.local_port),
            peer: socket_from_uapi(&entry.peer_addr, entry.peer_port),
            active: entry.flags & uapi::SOCKLND_CONN_ACTIVE != 0,
            cpu: entry.cpu,
            protocol: entry.protocol,
            tx_buffer: entry.tx_buffer,
            rx_buffer: entry.rx_buffer,
            nagle: entry.flags & uapi::SOCKLND_CONN_NAGLE != 0,
            queued_bytes: entry.queued_bytes,
            tx: Traffic {
                msgs: entry.tx_msgs,
                bytes: entry.tx_bytes,
            },
            rx: Traffic {
                msgs: entry.rx_msgs,
                bytes: entry.rx_bytes,
            },
            age_ms: entry.age_ms,
            zero_copy: Traffic {
                msgs: entry.zc_msgs,
                bytes: entry.zc_bytes,
            },
            queued_bytes_peak: entry.queued_bytes_peak,
            sndbuf_full: entry.sndbuf_full,
            nomem: entry.err_nomem,
        }
    }
}

impl Report for Connections {
    fn text(&self) -> String {
        let titles = [
            "nid",
            "type",
            "local",
            "peer",
            "cpu>",
            "age>",
            "queued>",
            "sent>",
            "received>",
            "buffers>",
            "nagle",
        ];
        let rows = self.0.iter().map(|conn| {
            // The arrow points from the side that opened the connection.
            let arrow = if conn.active { "> " } else { "< " };
            [
                conn.nid.to_string(),
                conn.r#type.to_string(),
                or_dash(conn.local),
                arrow.to_string() + &or_dash(conn.peer),
                conn.cpu.to_string(),
                milliseconds(conn.age_ms),
                bytes(conn.queued_bytes),
                bytes(conn.tx.bytes),
                bytes(conn.rx.bytes),
                format!(
                    "{} + {}",
                    bytes(conn.tx_buffer.into()),
                    bytes(conn.rx_buffer.into())
                ),
                if conn.nagle { "on" } else { "off" }.to_string(),
            ]
        });
        table(titles, rows)
    }
}

pub(crate) fn list(driver: &impl Driver, ni: Pattern) -> Result<Connections, Error> {
    let entries = driver
        .list(&device::CONN_LIST, ni.to_uapi())
        .map_err(|errno| Error::request(Action::List, "list connections", errno))?;
    let mut conns: Vec<_> = entries.iter().map(Connection::from).collect();
    conns.sort_by(|a, b| (&a.ni, &a.nid).cmp(&(&b.ni, &b.nid)));
    Ok(Connections(conns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fake::Fake;
    use rustix::io::Errno;
    use serde_json::json;

    #[test]
    fn who_has_made_a_connection_says_what_it_is() {
        let nid = "10.0.0.2@tcp".parse().unwrap();
        for (made, type_, lnd) in [
            (None, u32::MAX, 0),
            (Some((ConnType::Any, nid)), 0, 2),
            (Some((ConnType::BulkOut, nid)), 3, 2),
        ] {
            let fake = Fake::new(move |number, arg| {
                assert_eq!(number, uapi::SOCKLND_IOC_CONN_REGISTER);
                let arg = arg.downcast_ref::<uapi::socklnd_register>().unwrap();
                assert_eq!((arg.fd, arg.type_, arg.nid.lnd), (3, type_, lnd));
                Ok(())
            });
            register(&fake, Pattern::Any, 3, made).unwrap();
        }
        let fake = Fake::new(|_, _| Err(Errno::XDEV));
        let text = register(&fake, Pattern::Any, 3, None)
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("can't register file descriptor 3: "),
            "{text}"
        );
        assert!(text.contains("(EXDEV); that socket"), "{text}");
    }

    #[test]
    fn closing_passes_the_address_on() {
        let fake = Fake::new(|number, arg| {
            assert_eq!(number, uapi::SOCKLND_IOC_CONN_CLOSE);
            let arg = arg.downcast_mut::<uapi::socklnd_conn_close>().unwrap();
            assert_eq!(
                (arg.addr.family, &arg.addr.addr[..4]),
                (4, &[10, 0, 0, 2][..])
            );
            arg.count = 3;
            Ok(())
        });
        let count = close(
            &fake,
            Pattern::Any,
            Pattern::Net(0),
            Some([10, 0, 0, 2].into()),
        )
        .unwrap();
        assert_eq!(count.text(), "3 connections");
    }

    #[test]
    fn connections_as_text_and_json() {
        let entry = uapi::socklnd_conn_entry {
            ni: nid_to_uapi("10.0.0.1@tcp".parse().unwrap()),
            nid: nid_to_uapi("10.0.0.2@tcp".parse().unwrap()),
            local_addr: address_to_uapi(Some([10, 0, 0, 1].into())),
            local_port: 1023,
            peer_addr: address_to_uapi(Some([10, 0, 0, 2].into())),
            peer_port: 988,
            type_: uapi::SOCKLND_CONN_BULK_OUT,
            flags: uapi::SOCKLND_CONN_ACTIVE,
            cpu: 1,
            protocol: 1,
            tx_buffer: 87040,
            rx_buffer: 131072,
            queued_bytes: 4096,
            tx_msgs: 10,
            tx_bytes: 1 << 20,
            rx_msgs: 5,
            rx_bytes: 360,
            age_ms: 61_000,
            zc_msgs: 9,
            zc_bytes: 1 << 19,
            queued_bytes_peak: 8192,
            sndbuf_full: 4,
            err_nomem: 1,
            ..Default::default()
        };
        let report = list(&Fake::lists(vec![vec![entry]]), Pattern::Any).unwrap();
        let text = report.text();
        assert!(text.contains("10.0.0.1:1023  > 10.0.0.2:988"), "{text}");
        assert!(text.contains("1 m 01 s"), "{text}");
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            json!([{
                "ni": "10.0.0.1@tcp", "nid": "10.0.0.2@tcp", "type": "bulk_out",
                "local": "10.0.0.1:1023", "peer": "10.0.0.2:988", "active": true, "cpu": 1,
                "protocol": 1, "tx_buffer": 87040, "rx_buffer": 131072, "nagle": false,
                "queued_bytes": 4096, "tx": {"msgs": 10, "bytes": 1048576},
                "rx": {"msgs": 5, "bytes": 360}, "age_ms": 61000,
                "zero_copy": {"msgs": 9, "bytes": 524288}, "queued_bytes_peak": 8192,
                "sndbuf_full": 4, "nomem": 1,
            }])
        );
    }
}
