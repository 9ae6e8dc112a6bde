// SPDX-License-Identifier: GPL-2.0

//! Commands about routes to other networks, through gateways.

use super::peer::Count;
use crate::{
    address::{Pattern, Shown, nid_to_uapi},
    device::{self, Driver},
    error::{Action, Error},
    repo::wire::Nid,
    report::{Quiet, Report, table},
    uapi,
};
use serde::{Serialize, Serializer};

/// The route that a request was about.
#[derive(Debug, Serialize)]
pub(crate) struct Named {
    #[serde(serialize_with = "shown")]
    network: Pattern,
    gateway: Shown,
}

fn shown<S: Serializer>(pattern: &Pattern, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(pattern)
}

pub(crate) fn add(
    driver: &impl Driver,
    ni: Pattern,
    network: u16,
    gateway: Nid,
    priority: u32,
) -> Result<Quiet<Named>, Error> {
    let network = Pattern::Net(network);
    let mut arg = uapi::socklnd_route {
        ni: ni.to_uapi(),
        gateway: nid_to_uapi(gateway),
        target: network.to_uapi(),
        priority,
        ..Default::default()
    };
    driver.call(&device::ROUTE_ADD, &mut arg).map_err(|errno| {
        let what = format!("add a route to {network} through {gateway}");
        Error::request(Action::RouteAdd, what, errno)
    })?;
    Ok(Quiet(Named {
        network,
        gateway: (&arg.gateway).into(),
    }))
}

pub(crate) fn del(
    driver: &impl Driver,
    ni: Pattern,
    network: Option<u16>,
    gateway: Pattern,
) -> Result<Count, Error> {
    let network = network.map_or(Pattern::Any, Pattern::Net);
    let mut arg = uapi::socklnd_route {
        ni: ni.to_uapi(),
        gateway: gateway.to_uapi(),
        target: network.to_uapi(),
        ..Default::default()
    };
    driver.call(&device::ROUTE_DEL, &mut arg).map_err(|errno| {
        let what = format!("delete routes to {network} through {gateway}");
        Error::request(Action::RouteDel, what, errno)
    })?;
    Ok(Count {
        count: arg.count,
        what: "route",
    })
}

/// The gateway that a request was about.
#[derive(Debug, Serialize)]
pub(crate) struct Gateway {
    gateway: Shown,
}

pub(crate) fn notify(
    driver: &impl Driver,
    ni: Pattern,
    gateway: Nid,
    up: bool,
) -> Result<Quiet<Gateway>, Error> {
    let mut arg = uapi::socklnd_gateway {
        ni: ni.to_uapi(),
        gateway: nid_to_uapi(gateway),
        state: if up {
            uapi::SOCKLND_GATEWAY_UP
        } else {
            uapi::SOCKLND_GATEWAY_SET_DOWN
        },
        ..Default::default()
    };
    driver
        .call(&device::ROUTE_NOTIFY, &mut arg)
        .map_err(|errno| {
            let word = if up { "up" } else { "down" };
            let what = format!("set gateway {gateway} {word}");
            Error::request(Action::RouteNotify, what, errno)
        })?;
    Ok(Quiet(Gateway {
        gateway: (&arg.gateway).into(),
    }))
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Routes(Vec<Route>);

#[derive(Debug, Serialize)]
struct Route {
    ni: Shown,
    #[serde(serialize_with = "shown")]
    network: Pattern,
    gateway: Shown,
    priority: u32,
    state: &'static str,
    /// How many messages were sent by this route so far.
    chosen: u64,
}

impl From<&uapi::socklnd_route_entry> for Route {
    fn from(entry: &uapi::socklnd_route_entry) -> Self {
        Self {
            ni: (&entry.ni).into(),
            network: Pattern::Net(entry.target.net),
            gateway: (&entry.gateway).into(),
            priority: entry.priority,
            state: match entry.state {
                uapi::SOCKLND_GATEWAY_UP => "up",
                uapi::SOCKLND_GATEWAY_DOWN => "down",
                uapi::SOCKLND_GATEWAY_SET_DOWN => "set down",
                _ => "?",
            },
            chosen: entry.chosen,
        }
    }
}

impl Report for Routes {
    fn text(&self) -> String {
        let rows = self.0.iter().map(|route| {
            [
                route.network.to_string(),
                route.gateway.to_string(),
                route.priority.to_string(),
                route.state.to_string(),
                route.chosen.to_string(),
                route.ni.to_string(),
            ]
        });
        let titles = [
            "network",
            "gateway",
            "priority>",
            "state",
            "messages>",
            "from",
        ];
        table(titles, rows)
    }
}

/// The entries as the module has them, sorted.
pub(super) fn entries(
    driver: &impl Driver,
    ni: Pattern,
) -> Result<Vec<uapi::socklnd_route_entry>, Error> {
    let mut entries = driver
        .list(&device::ROUTE_LIST, ni.to_uapi())
        .map_err(|errno| Error::request(Action::List, "list routes to other networks", errno))?;
    entries.sort_by_key(|entry| {
        let gateway = Shown::from(&entry.gateway);
        (
            Shown::from(&entry.ni),
            entry.target.net,
            entry.priority,
            gateway,
        )
    });
    Ok(entries)
}

pub(crate) fn list(driver: &impl Driver, ni: Pattern) -> Result<Routes, Error> {
    Ok(Routes(
        entries(driver, ni)?.iter().map(Route::from).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fake::Fake;
    use rustix::io::Errno;
    use serde_json::json;

    fn nid(text: &str) -> Nid {
        text.parse().unwrap()
    }

    #[test]
    fn a_route_names_network_and_gateway() {
        let fake = Fake::new(|number, arg| {
            assert_eq!(number, uapi::SOCKLND_IOC_ROUTE_ADD);
            let arg = arg.downcast_ref::<uapi::socklnd_route>().unwrap();
            assert_eq!((arg.target.net, arg.target.addr.family), (1, 0));
            assert_eq!((arg.priority, arg.gateway.net), (3, 0));
            Ok(())
        });
        let added = add(&fake, Pattern::Any, 1, nid("10.0.0.9@tcp"), 3).unwrap();
        assert_eq!(
            serde_json::to_value(&added).unwrap(),
            json!({"network": "tcp1", "gateway": "10.0.0.9@tcp"})
        );
    }

    #[test]
    fn deleting_and_notifying() {
        let fake = Fake::new(|_, arg| {
            let arg = arg.downcast_mut::<uapi::socklnd_route>().unwrap();
            assert_eq!((arg.target.lnd, arg.gateway.lnd), (0, 0));
            arg.count = 2;
            Ok(())
        });
        let count = del(&fake, Pattern::Any, None, Pattern::Any).unwrap();
        assert_eq!(count.text(), "2 routes");
        let fake = Fake::new(|_, _| Err(Errno::NOENT));
        let gateway = nid("10.0.0.9@tcp");
        let error = notify(&fake, Pattern::Any, gateway, false).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("gateway 10.0.0.9@tcp down"), "{text}");
        assert!(text.contains("socklctl route list"), "{text}");
    }

    #[test]
    fn routes_in_order() {
        let entry = |target, gateway: &str, state| uapi::socklnd_route_entry {
            ni: nid_to_uapi(nid("10.0.0.1@tcp")),
            gateway: nid_to_uapi(nid(gateway)),
            target: Pattern::Net(target).to_uapi(),
            state,
            chosen: 4,
            ..Default::default()
        };
        let fake = Fake::lists(vec![vec![
            entry(2, "10.0.0.8@tcp", uapi::SOCKLND_GATEWAY_UP),
            entry(1, "10.0.0.9@tcp", uapi::SOCKLND_GATEWAY_SET_DOWN),
            entry(1, "10.0.0.8@tcp", uapi::SOCKLND_GATEWAY_DOWN),
        ]]);
        let routes = list(&fake, Pattern::Any).unwrap();
        let states: Vec<_> = routes.0.iter().map(|route| route.state).collect();
        assert_eq!(states, ["down", "set down", "up"]);
        assert!(routes.text().lines().nth(1).unwrap().starts_with("tcp1 "));
        assert_eq!(
            serde_json::to_value(&routes).unwrap()[2],
            json!({
                "ni": "10.0.0.1@tcp", "network": "tcp2", "gateway": "10.0.0.8@tcp",
                "priority": 0, "state": "up", "chosen": 4,
            })
        );
    }
}
