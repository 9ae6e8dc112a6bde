// SPDX-License-Identifier: GPL-2.0

//! Commands about local NIs.

use crate::{
    address::{Pattern, Shown, nid_to_uapi},
    device::{self, Driver},
    error::{Action, Error},
    netdev::NetDevices,
    repo::wire::Nid,
    report::{Quiet, Report, table},
    typed::NidOrNet,
    uapi,
};
use serde::Serialize;
use std::net::IpAddr;

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
        .map_err(|errno| Error::request(Action::NiAdd, format!("add NI {nid}"), errno))?;
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
        .map_err(|errno| Error::request(Action::NiDel, format!("delete NI {nid}"), errno))?;
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

/// The given NID, or that of a network device in a network.
pub(crate) fn nid_of(nid: NidOrNet, device: Option<&str>) -> Result<Nid, Error> {
    match (nid, device) {
        (NidOrNet::Nid(nid), None) => Ok(nid),
        (NidOrNet::Net(net), Some(device)) => Ok(Nid::tcp(net, device_address(device)?)),
        (NidOrNet::Net(_), None) => Err(Error::Outcome(
            "the NID has no address: give one, or a network device with --if".into(),
        )),
        (NidOrNet::Nid(nid), Some(_)) => Err(Error::Outcome(format!(
            "{nid} has an address, so --if can't be used; use --if with a network, like tcp"
        ))),
    }
}

fn device_address(device: &str) -> Result<IpAddr, Error> {
    let netdevs = NetDevices::read().map_err(|errno| {
        Error::request(
            Action::List,
            "ask for the addresses of network devices",
            errno,
        )
    })?;
    let found = netdevs.address_of(device);
    found.map_err(|why| Error::Outcome(why.to_string()))
}

/// NIDs of this node, one a line.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Nids(Vec<Shown>);

impl Report for Nids {
    fn text(&self) -> String {
        let nids: Vec<_> = self.0.iter().map(Shown::to_string).collect();
        nids.join("\n")
    }
}

pub(crate) fn list_nids(driver: &impl Driver, ni: Pattern) -> Result<Nids, Error> {
    Ok(Nids(list(driver, ni)?.0.iter().map(|ni| ni.nid).collect()))
}

/// The first of these NIDs that this node can reach: its own, one in a network of its, or one in a network
/// to which a route leads.
pub(crate) fn which_nid(driver: &impl Driver, ni: Pattern, nids: &[Nid]) -> Result<Nids, Error> {
    let own: Vec<_> = list_nids(driver, ni)?
        .0
        .iter()
        .filter_map(|nid| nid.nid())
        .collect();
    let routes = super::route::entries(driver, ni)?;
    let distance = |nid: &Nid| {
        if own.contains(nid) {
            Some(0)
        } else if own.iter().any(|own| own.net() == nid.net()) {
            Some(1)
        } else {
            let leads = routes.iter().any(|route| route.target.net == nid.net());
            leads.then_some(2)
        }
    };
    let known = nids.iter().filter_map(|nid| Some((distance(nid)?, nid)));
    // Of several at the same distance the first.
    let nearest = known.min_by_key(|(distance, _)| *distance);
    let (_, nid) = nearest.ok_or_else(|| {
        Error::Outcome(
            "none of these is in a network of this node, or in one to which a route leads".into(),
        )
    })?;
    Ok(Nids(vec![(&nid_to_uapi(*nid)).into()]))
}

/// lctl's 'network up': fails if there is no NI, because no NI is configured by default.
pub(crate) fn network_up(driver: &impl Driver, ni: Pattern) -> Result<Quiet<Nids>, Error> {
    let nids = list_nids(driver, ni)?;
    if nids.0.is_empty() {
        return Err(Error::Outcome(
            "there is no NI: add some with 'socklctl import FILE' or 'socklctl ni add'".into(),
        ));
    }
    Ok(Quiet(nids))
}

/// lctl's 'network down': stops the NIs that match.
pub(crate) fn network_down(driver: &impl Driver, ni: Pattern) -> Result<Quiet<Nids>, Error> {
    let nids = list_nids(driver, ni)?;
    for nid in nids.0.iter().filter_map(|nid| nid.nid()) {
        del(driver, nid)?;
    }
    Ok(Quiet(nids))
}

/// NIDs of these devices in a network.
fn nids_of(net: u16, devices: &[String]) -> Result<Vec<Nid>, Error> {
    let devices = devices.iter();
    devices
        .map(|device| Ok(Nid::tcp(net, device_address(device)?)))
        .collect()
}

/// lnetctl's 'net add': a NID for each device; none if one of them fails.
pub(crate) fn net_add(
    driver: &impl Driver,
    net: u16,
    devices: &[String],
) -> Result<Quiet<Nids>, Error> {
    let nids = nids_of(net, devices)?;
    for (done, nid) in nids.iter().enumerate() {
        add(driver, *nid).inspect_err(|_| {
            // The first error is the one to report.
            let before = nids.iter().take(done);
            before.for_each(|nid| drop(del(driver, *nid)));
        })?;
    }
    Ok(Quiet(Nids(
        nids.iter().map(|nid| (&nid_to_uapi(*nid)).into()).collect(),
    )))
}

/// lnetctl's 'net del': the NIDs of these devices, or all of the network.
pub(crate) fn net_del(
    driver: &impl Driver,
    net: u16,
    devices: &[String],
) -> Result<Quiet<Nids>, Error> {
    if devices.is_empty() {
        return network_down(driver, Pattern::Net(net));
    }
    let nids = nids_of(net, devices)?;
    for nid in &nids {
        del(driver, *nid)?;
    }
    Ok(Quiet(Nids(
        nids.iter().map(|nid| (&nid_to_uapi(*nid)).into()).collect(),
    )))
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Nis(Vec<Ni>);

#[derive(Debug, Serialize)]
struct Ni {
    nid: Shown,
    state: &'static str,
    /// When it was started, in microseconds since 1970.
    incarnation_us: u64,
    pid: u32,
    peers: u32,
    conns: u32,
    /// Connections for bulk to each peer, each way.
    conns_per_peer: u32,
}

impl From<&uapi::socklnd_ni_entry> for Ni {
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

impl Report for Nis {
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

pub(crate) fn list(driver: &impl Driver, ni: Pattern) -> Result<Nis, Error> {
    let entries = driver
        .list(&device::NI_LIST, ni.to_uapi())
        .map_err(|errno| Error::request(Action::List, "list NIs", errno))?;
    Ok(Nis(entries.iter().map(Ni::from).collect()))
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
                .starts_with("can't delete NI 10.0.0.1@tcp: "),
            "{error}"
        );
    }

    fn entry(nid: &str) -> uapi::socklnd_ni_entry {
        uapi::socklnd_ni_entry {
            nid: nid_to_uapi(nid.parse().unwrap()),
            ..Default::default()
        }
    }

    #[test]
    fn nids_are_listed_as_lctl_does() {
        let entries = vec![entry("10.0.0.1@tcp"), entry("10.1.0.1@tcp7")];
        let nids = list_nids(&Fake::lists(vec![entries]), Pattern::Any).unwrap();
        assert_eq!(nids.text(), "10.0.0.1@tcp\n10.1.0.1@tcp7");
        assert_eq!(
            serde_json::to_value(&nids).unwrap(),
            json!(["10.0.0.1@tcp", "10.1.0.1@tcp7"])
        );
        let none = network_up(
            &Fake::lists(vec![Vec::<uapi::socklnd_ni_entry>::new()]),
            Pattern::Any,
        );
        assert!(none.unwrap_err().to_string().contains("socklctl import"));
    }

    #[test]
    fn a_device_and_a_network_make_a_nid() {
        let nid = "10.0.0.1@tcp".parse().unwrap();
        assert_eq!(nid_of(NidOrNet::Nid(nid), None).unwrap(), nid);
        let lo = nid_of(NidOrNet::Net(7), Some("lo")).unwrap();
        assert_eq!(lo.to_string(), "127.0.0.1@tcp7");
        for (nid, device, sign) in [
            (NidOrNet::Net(7), None, "--if"),
            (NidOrNet::Nid(nid), Some("lo"), "--if can't be used"),
            (
                NidOrNet::Net(7),
                Some("nosuch0"),
                "no network device nosuch0",
            ),
        ] {
            let error = nid_of(nid, device).unwrap_err().to_string();
            assert!(error.contains(sign), "{error}");
        }
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
