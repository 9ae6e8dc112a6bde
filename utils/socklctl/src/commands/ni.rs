// SPDX-License-Identifier: GPL-2.0

//! Local interfaces.

use crate::{
    address::{Pattern, Shown, nid_to_uapi},
    device::{self, Driver},
    error::{Action, Error},
    repo::wire::Nid,
    report::{Quiet, Report, table},
    uapi,
};
use serde::Serialize;

/// The NID that a request was about.
#[derive(Debug, Serialize)]
pub(crate) struct Named {
    nid: Shown,
}

pub(crate) fn add(driver: &impl Driver, nid: Nid) -> Result<Quiet<Named>, Error> {
    let mut arg = uapi::socklnd_ni {
        nid: nid_to_uapi(nid),
        ..Default::default()
    };
    driver
        .call(&device::NI_ADD, &mut arg)
        .map_err(|errno| Error::request(Action::NiAdd, format!("add interface {nid}"), errno))?;
    Ok(Quiet(Named {
        nid: (&arg.nid).into(),
    }))
}

pub(crate) fn set(driver: &impl Driver, nid: Nid) -> Result<Quiet<Named>, Error> {
    let mut arg = uapi::socklnd_ni {
        nid: nid_to_uapi(nid),
        ..Default::default()
    };
    driver
        .call(&device::NI_SET, &mut arg)
        .map_err(|errno| Error::request(Action::NiSet, format!("set the NID to {nid}"), errno))?;
    Ok(Quiet(Named {
        nid: (&arg.nid).into(),
    }))
}

pub(crate) fn del(driver: &impl Driver, nid: Nid) -> Result<Quiet<Named>, Error> {
    let mut arg = uapi::socklnd_ni {
        nid: nid_to_uapi(nid),
        ..Default::default()
    };
    driver
        .call(&device::NI_DEL, &mut arg)
        .map_err(|errno| Error::request(Action::NiDel, format!("delete interface {nid}"), errno))?;
    Ok(Quiet(Named {
        nid: (&arg.nid).into(),
    }))
}

impl Report for Named {
    fn text(&self) -> String {
        self.nid.to_string()
    }
}

pub(crate) fn mynid(driver: &impl Driver) -> Result<Named, Error> {
    let mut arg = uapi::socklnd_ni::default();
    driver
        .call(&device::MYNID, &mut arg)
        .map_err(|errno| Error::request(Action::List, "tell this node's NID", errno))?;
    Ok(Named {
        nid: (&arg.nid).into(),
    })
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Interfaces(Vec<Interface>);

#[derive(Debug, Serialize)]
struct Interface {
    nid: Shown,
    state: &'static str,
    /// When it was started, in microseconds since 1970.
    incarnation_us: u64,
    pid: u32,
    peers: u32,
    conns: u32,
    /// How many it wants for bulk to each peer, each way.
    conns_per_peer: u32,
}

impl From<&uapi::socklnd_ni_entry> for Interface {
    fn from(entry: &uapi::socklnd_ni_entry) -> Self {
        Self {
            nid: (&entry.nid).into(),
            state: match entry.state {
                uapi::SOCKLND_NI_UP => "up",
                uapi::SOCKLND_NI_DOWN => "down",
                _ => "?",
            },
            incarnation_us: entry.incarnation_us,
            pid: entry.pid,
            peers: entry.peers,
            conns: entry.conns,
            conns_per_peer: entry.conns_per_peer,
        }
    }
}

impl Report for Interfaces {
    fn text(&self) -> String {
        let rows = self.0.iter().map(|ni| {
            [
                ni.nid.to_string(),
                ni.state.into(),
                ni.peers.to_string(),
                ni.conns.to_string(),
                ni.conns_per_peer.to_string(),
            ]
        });
        table(["nid", "state", "peers>", "conns>", "bulk each way>"], rows)
    }
}

pub(crate) fn list(driver: &impl Driver, ni: Pattern) -> Result<Interfaces, Error> {
    let entries = driver
        .list(&device::NI_LIST, ni.to_uapi())
        .map_err(|errno| Error::request(Action::List, "list interfaces", errno))?;
    Ok(Interfaces(entries.iter().map(Interface::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fake::Fake;
    use rustix::io::Errno;
    use serde_json::json;

    #[test]
    fn an_interface_is_added_by_its_nid() {
        let fake = Fake::new(|number, arg| {
            assert_eq!(number, uapi::SOCKLND_IOC_NI_ADD);
            let arg = arg.downcast_ref::<uapi::socklnd_ni>().unwrap();
            assert_eq!(Shown::from(&arg.nid).to_string(), "10.0.0.1@tcp7");
            assert_eq!((arg.flags, arg.pad), (0, 0));
            Ok(())
        });
        let report = add(&fake, "10.0.0.1@tcp7".parse().unwrap()).unwrap();
        assert_eq!(report.text(), "");
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            json!({"nid": "10.0.0.1@tcp7"})
        );
    }

    #[test]
    fn a_refusal_names_the_interface() {
        let fake = Fake::new(|_, _| Err(Errno::NOENT));
        let error = del(&fake, "10.0.0.1@tcp".parse().unwrap()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("can't delete interface 10.0.0.1@tcp: "),
            "{error}"
        );
    }

    #[test]
    fn interfaces_as_text_and_json() {
        let nid = nid_to_uapi("10.0.0.1@tcp".parse().unwrap());
        let entry = uapi::socklnd_ni_entry {
            nid,
            incarnation_us: 1_700_000_000_000_000,
            state: uapi::SOCKLND_NI_UP,
            pid: 12345,
            peers: 3,
            conns: 9,
            conns_per_peer: 2,
            pad: 0,
        };
        let report = list(&Fake::lists(vec![vec![entry]]), Pattern::Any).unwrap();
        assert_eq!(
            report.text(),
            "nid           state  peers  conns  bulk each way\n10.0.0.1@tcp  up         3      9              2"
        );
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            json!([{
                "nid": "10.0.0.1@tcp", "state": "up", "incarnation_us": 1_700_000_000_000_000_u64,
                "pid": 12345, "peers": 3, "conns": 9, "conns_per_peer": 2,
            }])
        );
    }
}
