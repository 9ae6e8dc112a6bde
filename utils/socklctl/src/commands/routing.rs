// SPDX-License-Identifier: GPL-2.0

//! Commands about forwarding.

use crate::{
    cli::OnOff,
    device::{self, Driver},
    error::{Action, Error},
    report::{Quiet, Report, table},
    uapi,
};
use serde::Serialize;

/// What was set.
#[derive(Debug, Serialize)]
pub(crate) struct Set {
    routing: bool,
}

pub(crate) fn set(driver: &impl Driver, state: OnOff) -> Result<Quiet<Set>, Error> {
    let routing = state == OnOff::On;
    let mut arg = uapi::socklnd_routing_set {
        on: routing.into(),
        ..Default::default()
    };
    driver
        .call(&device::ROUTING_SET, &mut arg)
        .map_err(|errno| {
            let word = match state {
                OnOff::On => "on",
                OnOff::Off => "off",
            };
            Error::request(
                Action::RoutingSet,
                format!("switch forwarding {word}"),
                errno,
            )
        })?;
    Ok(Quiet(Set { routing }))
}

#[derive(Debug, Serialize)]
pub(crate) struct Routing {
    pub(super) routing: bool,
    small: Pool,
    large: Pool,
}

/// Forwarding buffers of one size.
#[derive(Debug, Serialize)]
struct Pool {
    bytes: u32,
    buffers: u32,
    busy: u32,
    /// Connections that wait for one.
    waiting: u32,
    /// How often a message had to wait so far.
    waits: u64,
}

impl From<&uapi::socklnd_fwd_pool> for Pool {
    fn from(raw: &uapi::socklnd_fwd_pool) -> Self {
        Self {
            bytes: raw.bytes,
            buffers: raw.buffers,
            busy: raw.busy,
            waiting: raw.waiting,
            waits: raw.waits,
        }
    }
}

impl Report for Routing {
    fn text(&self) -> String {
        let state = if self.routing { "on" } else { "off" };
        let row = |name: &str, pool: &Pool| {
            [
                name.to_string(),
                pool.bytes.to_string(),
                pool.buffers.to_string(),
                pool.busy.to_string(),
                pool.waiting.to_string(),
                pool.waits.to_string(),
            ]
        };
        let titles = [
            "buffers",
            "bytes>",
            "number>",
            "in use>",
            "conns waiting>",
            "waits so far>",
        ];
        let rows = [row("small", &self.small), row("large", &self.large)];
        format!("forwarding is {state}\n{}", table(titles, rows))
    }
}

pub(crate) fn show(driver: &impl Driver) -> Result<Routing, Error> {
    let mut arg = uapi::socklnd_routing::default();
    driver
        .call(&device::ROUTING_GET, &mut arg)
        .map_err(|errno| Error::request(Action::List, "ask about forwarding", errno))?;
    Ok(Routing {
        routing: arg.on != 0,
        small: (&arg.small).into(),
        large: (&arg.large).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fake::Fake;
    use serde_json::json;

    #[test]
    fn on_and_off() {
        for (state, on) in [(OnOff::Off, 0), (OnOff::On, 1)] {
            let fake = Fake::new(move |number, arg| {
                assert_eq!(number, uapi::SOCKLND_IOC_ROUTING_SET);
                let arg = arg.downcast_ref::<uapi::socklnd_routing_set>().unwrap();
                assert_eq!(arg.on, on);
                Ok(())
            });
            set(&fake, state).unwrap();
        }
    }

    #[test]
    fn pools_as_text_and_json() {
        let fake = Fake::new(|_, arg| {
            let arg = arg.downcast_mut::<uapi::socklnd_routing>().unwrap();
            arg.on = 1;
            arg.large.buffers = 64;
            arg.large.waits = 7;
            Ok(())
        });
        let routing = show(&fake).unwrap();
        let text = routing.text();
        assert!(text.starts_with("forwarding is on\n"), "{text}");
        assert!(text.lines().last().unwrap().ends_with(" 7"), "{text}");
        let json = serde_json::to_value(&routing).unwrap();
        assert_eq!(json["routing"], json!(true));
        assert_eq!(json["large"]["buffers"], 64);
    }
}
