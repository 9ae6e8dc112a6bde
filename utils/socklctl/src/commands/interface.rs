// SPDX-License-Identifier: GPL-2.0

//! Commands about addresses that NIs use.

use crate::{
    address::{Pattern, Prefix, Shown, address_from_uapi, address_to_uapi},
    device::{self, Driver},
    error::{Action, Error},
    report::{Quiet, Report, or_dash, table},
    uapi,
};
use serde::Serialize;
use std::net::IpAddr;

/// The address that a request was about; `null` is all of them.
#[derive(Debug, Serialize)]
pub(crate) struct Named {
    address: Option<Prefix>,
}

impl Report for Named {
    fn text(&self) -> String {
        or_dash(self.address)
    }
}

pub(crate) fn add(
    driver: &impl Driver,
    ni: Pattern,
    address: Prefix,
) -> Result<Quiet<Named>, Error> {
    let mut arg = uapi::socklnd_if {
        ni: ni.to_uapi(),
        addr: address_to_uapi(Some(address.addr)),
        prefix_len: address.len.unwrap_or_default().into(),
        flags: if address.len.is_some() {
            uapi::SOCKLND_IF_HAS_PREFIX
        } else {
            0
        },
        ..Default::default()
    };
    driver
        .call(&device::IF_ADD, &mut arg)
        .map_err(|errno| Error::request(Action::IfAdd, format!("add address {address}"), errno))?;
    Ok(Quiet(Named {
        address: Some(address),
    }))
}

pub(crate) fn del(
    driver: &impl Driver,
    ni: Pattern,
    address: Option<IpAddr>,
) -> Result<Quiet<Named>, Error> {
    let mut arg = uapi::socklnd_if {
        ni: ni.to_uapi(),
        addr: address_to_uapi(address),
        ..Default::default()
    };
    driver.call(&device::IF_DEL, &mut arg).map_err(|errno| {
        let what = match address {
            Some(address) => format!("delete address {address}"),
            None => "delete addresses".to_string(),
        };
        Error::request(Action::IfDel, what, errno)
    })?;
    Ok(Quiet(Named {
        address: address.map(|addr| Prefix { addr, len: None }),
    }))
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Addresses(Vec<Address>);

#[derive(Debug, Serialize)]
struct Address {
    ni: Shown,
    /// With the length of the prefix; `null` if the module wrote an address of another kind.
    address: Option<Prefix>,
    /// Whether a network device has it, or the NI waits for that.
    state: &'static str,
    peers: u32,
    routes: u32,
}

impl From<&uapi::socklnd_if_entry> for Address {
    fn from(entry: &uapi::socklnd_if_entry) -> Self {
        let len = u8::try_from(entry.prefix_len).ok();
        Self {
            ni: (&entry.ni).into(),
            address: address_from_uapi(&entry.addr).map(|addr| Prefix { addr, len }),
            state: if entry.flags & uapi::SOCKLND_IF_WAITS == 0 {
                "up"
            } else {
                "waiting"
            },
            peers: entry.peers,
            routes: entry.routes,
        }
    }
}

impl Report for Addresses {
    fn text(&self) -> String {
        let rows = self.0.iter().map(|entry| {
            [
                entry.ni.to_string(),
                or_dash(entry.address),
                entry.state.to_string(),
                entry.peers.to_string(),
                entry.routes.to_string(),
            ]
        });
        table(["nid", "address", "state", "peers>", "routes>"], rows)
    }
}

pub(crate) fn list(driver: &impl Driver, ni: Pattern) -> Result<Addresses, Error> {
    let entries = driver
        .list(&device::IF_LIST, ni.to_uapi())
        .map_err(|errno| Error::request(Action::List, "list addresses of NIs", errno))?;
    Ok(Addresses(entries.iter().map(Address::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::nid_to_uapi, device::fake::Fake};
    use rustix::io::Errno;
    use serde_json::json;

    #[test]
    fn a_prefix_is_said_or_not() {
        for (text, prefix_len, flags) in [
            ("10.0.0.1", 0, 0),
            ("10.0.0.1/0", 0, uapi::SOCKLND_IF_HAS_PREFIX),
            ("10.0.0.1/24", 24, uapi::SOCKLND_IF_HAS_PREFIX),
        ] {
            let fake = Fake::new(move |number, arg| {
                assert_eq!(number, uapi::SOCKLND_IOC_IF_ADD);
                let arg = arg.downcast_ref::<uapi::socklnd_if>().unwrap();
                assert_eq!((arg.prefix_len, arg.flags), (prefix_len, flags));
                Ok(())
            });
            add(&fake, Pattern::Any, text.parse().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_refusal_names_the_address() {
        let fake = Fake::new(|_, _| Err(Errno::BUSY));
        let error = del(&fake, Pattern::Any, Some([10, 0, 0, 1].into())).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("can't delete address 10.0.0.1: "),
            "{text}"
        );
        assert!(text.contains("in the NI's NID"), "{text}");
    }

    #[test]
    fn addresses_as_text_and_json() {
        let entry = uapi::socklnd_if_entry {
            ni: nid_to_uapi("10.0.0.1@tcp".parse().unwrap()),
            addr: address_to_uapi(Some([192, 168, 1, 1].into())),
            prefix_len: 24,
            peers: 2,
            routes: 3,
            ..Default::default()
        };
        let lost = uapi::socklnd_if_entry {
            addr: address_to_uapi(Some([192, 168, 1, 2].into())),
            flags: uapi::SOCKLND_IF_WAITS | uapi::SOCKLND_IF_KERNEL_PREFIX,
            ..entry
        };
        let report = list(&Fake::lists(vec![vec![entry, lost]]), Pattern::Any).unwrap();
        assert_eq!(
            report.text(),
            "nid           address         state    peers  routes\n\
             10.0.0.1@tcp  192.168.1.1/24  up           2       3\n\
             10.0.0.1@tcp  192.168.1.2/24  waiting      2       3"
        );
        let line = |address, state| {
            json!({
                "ni": "10.0.0.1@tcp", "address": address, "state": state, "peers": 2, "routes": 3
            })
        };
        assert_eq!(
            serde_json::to_value(&report).unwrap(),
            json!([
                line("192.168.1.1/24", "up"),
                line("192.168.1.2/24", "waiting")
            ])
        );
    }
}
