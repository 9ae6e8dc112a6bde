// SPDX-License-Identifier: GPL-2.0

//! lnetctl's YAML: what its `export` writes, and the format of `/etc/lnet.conf`.

use super::{
    File, expression,
    lnet::{Builder, cut},
};
use crate::{netdev::NetDevices, repo::wire::Nid};
use yaml_serde::{Mapping, Value};

/// Headings that such a file can have. Others are reported as having no effect.
const HEADINGS: [&str; 10] = [
    "net",
    "ip2nets",
    "route",
    "routing",
    "buffers",
    "peer",
    "global",
    "numa",
    "discovery",
    "udsp",
];

/// The keys of an NI in an export that are not its configuration.
const STATE: [&str; 9] = [
    "status",
    "statistics",
    "sent_stats",
    "received_stats",
    "dropped_stats",
    "health stats",
    "dev cpt",
    "nid",
    "interfaces",
];

/// Reads such a file; `None` if it is not one.
pub(super) fn parse(text: &str, netdevs: &NetDevices) -> Result<Option<File>, String> {
    // Errors in other YAML are reported by the parser of the other format.
    let Ok(Value::Mapping(all)) = yaml_serde::from_str(text) else {
        return Ok(None);
    };
    let ours = ["version", "ni"].iter().any(|key| all.contains_key(key));
    if ours || !HEADINGS.iter().any(|key| all.contains_key(key)) {
        return Ok(None);
    }
    let mut builder = Builder::new(netdevs);
    for (key, value) in &all {
        let heading = text_of(key).unwrap_or_default();
        match heading.as_str() {
            "net" => each(&mut builder, "net", value, net),
            "ip2nets" => each(&mut builder, "ip2nets", value, ip2nets),
            "route" => each(&mut builder, "route", value, route),
            "routing" => {
                if is_enabled(value) {
                    builder.routing();
                }
            }
            "buffers" => each(&mut builder, "buffers", value, buffers),
            "peer" => builder.ignore(
                "peer",
                "peers are found by their NIDs; where one is elsewhere, \
                                              'socklctl peer add' says it",
            ),
            other => builder.ignore(other, "a setting of LNet, which this driver does not have"),
        }
    }
    Ok(Some(builder.build()))
}

/// A value that is a word or a number, as text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        _ => None,
    }
}

fn get(item: &Mapping, key: &str) -> Option<String> {
    item.get(key).and_then(text_of)
}

/// The words of a numbered list, `{0: eth0, 1: eth1}`, or of any other.
fn list(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Mapping(all)) => all.values().filter_map(text_of).collect(),
        Some(Value::Sequence(all)) => all.iter().filter_map(text_of).collect(),
        other => other.and_then(text_of).into_iter().collect(),
    }
}

/// Calls `read` for each item of a list, or for the only one.
fn each(
    builder: &mut Builder<'_>,
    place: &str,
    value: &Value,
    read: fn(&mut Builder<'_>, &str, &Mapping),
) {
    let items = match value {
        Value::Sequence(items) => items.as_slice(),
        Value::Null => &[],
        one => std::slice::from_ref(one),
    };
    for (index, item) in items.iter().enumerate() {
        let place = format!("{place}[{index}]");
        match item {
            Value::Mapping(item) => read(builder, &place, item),
            _ => builder.problem(&place, "a mapping expected, like 'net type: tcp'"),
        }
    }
}

fn is_enabled(value: &Value) -> bool {
    match value {
        Value::Sequence(items) => items.iter().any(is_enabled),
        Value::Mapping(item) => {
            let enabled = get(item, "enable");
            enabled.is_some_and(|on| ["1", "true", "yes"].contains(&on.as_str()))
        }
        _ => false,
    }
}

fn net(builder: &mut Builder<'_>, place: &str, item: &Mapping) {
    let Some(name) = get(item, "net type").or_else(|| get(item, "net")) else {
        builder.problem(place, "without 'net type'");
        return;
    };
    // Every export has the loopback network, which is not this driver's.
    if name == "lo" {
        return;
    }
    let Some(net) = builder.network(place, &name) else {
        return;
    };
    match item.get("local NI(s)") {
        Some(Value::Sequence(nis)) => {
            for (index, value) in nis.iter().enumerate() {
                let place = format!("{place}.local NI(s)[{index}]");
                match value {
                    Value::Mapping(item) => ni(builder, &place, net, item),
                    _ => builder.problem(&place, "a mapping expected, with 'nid' or 'interfaces'"),
                }
            }
        }
        // Before version 2.10 there was one NI, without a heading.
        _ => ni(builder, place, net, item),
    }
}

fn ni(builder: &mut Builder<'_>, place: &str, net: u16, item: &Mapping) {
    let devices = list(item.get("interfaces"));
    // A device may have several addresses: the NID says which one, if the node has it.
    let nid = get(item, "nid").and_then(|nid| nid.parse::<Nid>().ok());
    let nid = nid.filter(|nid| nid.net() == net);
    match nid.filter(|nid| devices.is_empty() || builder.is_local(nid.addr())) {
        Some(nid) => builder.ni(nid),
        None if devices.is_empty() => {
            builder.problem(place, "with neither 'interfaces' nor a NID of its network")
        }
        None => {
            for device in &devices {
                builder.add_device(place, net, Some(device));
            }
        }
    }
    for (key, value) in item {
        let key = text_of(key).unwrap_or_default();
        match key.as_str() {
            "lnd tunables" => {
                let Value::Mapping(all) = value else {
                    continue;
                };
                for (name, value) in all {
                    let (name, value) = (text_of(name), text_of(value));
                    let (name, value) = (name.unwrap_or_default(), value.unwrap_or_default());
                    match name.as_str() {
                        "conns_per_peer" | "tos" => builder.set(&name, &value),
                        _ => builder
                            .ignore(place, format!("{name}: this driver has nothing like it")),
                    }
                }
            }
            "net type" | "net" | "local NI(s)" => {}
            known if STATE.contains(&known) => {}
            other => builder.ignore(
                place,
                format!("{other}: a setting of LNet, which this driver does not have"),
            ),
        }
    }
}

fn ip2nets(builder: &mut Builder<'_>, place: &str, item: &Mapping) {
    let Some(name) = get(item, "net-spec") else {
        builder.problem(place, "without 'net-spec'");
        return;
    };
    let place = format!("{place}: {name}");
    let Some(net) = builder.network(&place, &name) else {
        return;
    };
    let devices: Vec<_> = list(item.get("interfaces"))
        .iter()
        .map(|device| device.split('[').next().unwrap_or_default().to_string())
        .collect();
    let patterns = list(item.get("ip-range"));
    if patterns.is_empty() {
        for device in &devices {
            builder.add_device(&place, net, Some(device));
        }
        if devices.is_empty() {
            builder.problem(&place, "with neither 'interfaces' nor 'ip-range'");
        }
    } else {
        // It is no error that no rule matches: one file is for many nodes.
        builder.network_by_address(&place, net, &devices, &patterns);
    }
}

fn route(builder: &mut Builder<'_>, place: &str, item: &Mapping) {
    let (Some(name), Some(gateways)) = (get(item, "net"), get(item, "gateway")) else {
        builder.problem(place, "without 'net' or 'gateway'");
        return;
    };
    let Some(net) = builder.network(place, &name) else {
        return;
    };
    let priority = get(item, "priority").unwrap_or_else(|| "0".to_string());
    let Ok(priority) = priority
        .parse::<i64>()
        .map(|it| u32::try_from(it).unwrap_or(0))
    else {
        builder.problem(place, format!("priority '{priority}' is not a number"));
        return;
    };
    for gateway in cut(&gateways, ',') {
        match expression::expand(gateway) {
            Some(all) => all
                .iter()
                .for_each(|nid| builder.route(place, net, nid, priority)),
            None => builder.problem(place, format!("'{gateway}' is not a list of NIDs")),
        }
    }
}

fn buffers(builder: &mut Builder<'_>, _: &str, item: &Mapping) {
    for (key, parameter) in [
        ("small", "small_router_buffers"),
        ("large", "large_router_buffers"),
    ] {
        // 0: LNet's default.
        if let Some(number) = get(item, key).filter(|number| number != "0") {
            builder.set(parameter, &number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> File {
        let netdevs = NetDevices::of(&[
            "lo 127.0.0.1",
            "eth0 10.0.0.1",
            "eth0 10.0.0.2",
            "eth1 192.168.1.1",
        ]);
        parse(text, &netdevs).unwrap().expect("lnetctl's YAML")
    }

    fn nids(file: &File) -> Vec<String> {
        file.config
            .nis
            .iter()
            .map(|ni| ni.nid.to_string())
            .collect()
    }

    #[test]
    fn an_export_of_lnetctls() {
        let file = read(
            "\
net:
    - net type: lo
      local NI(s):
        - nid: 0@lo
          status: up
    - net type: tcp
      local NI(s):
        - nid: 10.0.0.2@tcp
          status: up
          interfaces:
              0: eth0
          statistics:
              send_count: 0
          tunables:
              peer_timeout: 180
              peer_credits: 8
          lnd tunables:
              conns_per_peer: 4
              timeout: 49
          dev cpt: 0
          CPT: \"[0,1]\"
    - net type: tcp1
      local NI(s):
        - interfaces:
              0: eth1
    - net type: o2ib
      local NI(s):
        - nid: 10.9.0.1@o2ib
route:
    - net: tcp2
      gateway: 10.0.0.[8-9]@tcp
      hop: -1
      priority: 1
    - net: tcp3
      gateway: 10.9.0.9@o2ib
      priority: 0
peer:
    - primary nid: 10.0.0.7@tcp
      Multi-Rail: True
global:
    numa_range: 0
routing:
    - enable: 1
buffers:
    - tiny: 512
      small: 0
      large: 256
",
        );
        assert_eq!(file.problems, [""; 0]);
        assert_eq!(nids(&file), ["10.0.0.2@tcp", "192.168.1.1@tcp1"]);
        let gateways = &file.config.nis[0].gateways;
        let gateways: Vec<_> = gateways
            .iter()
            .map(|it| format!("{} {} {}", it.nid, it.network, it.priority))
            .collect();
        assert_eq!(gateways, ["10.0.0.8@tcp 2 1", "10.0.0.9@tcp 2 1"]);
        assert!(file.config.routing);
        let settings: Vec<_> = file
            .settings
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(settings, ["conns_per_peer=4", "large_router_buffers=256"]);
        for (ignored, sign) in file.ignored.iter().zip([
            "net[1].local NI(s)[0]: tunables",
            "net[1].local NI(s)[0]: timeout",
            "net[1].local NI(s)[0]: CPT",
            "net[3]: 'o2ib'",
            "route[1]: gateway 10.9.0.9@o2ib",
            "peer: ",
            "global: ",
        ]) {
            assert!(ignored.starts_with(sign), "{ignored}, not {sign}");
        }
        assert_eq!(file.ignored.len(), 7, "{:?}", file.ignored);
    }

    #[test]
    fn networks_by_address() {
        let file = read(
            "\
ip2nets:
  - net-spec: tcp1
    interfaces:
        0: eth0[0]
        1: eth1
    ip-range:
        0: 192.168.*.*
        1: 11.*.*.*
  - net-spec: tcp2
    ip-range:
        0: 10.0.0.[2-9]
  - net-spec: tcp3
    interfaces: {0: eth9}
    ip-range: {0: 10.0.0.*}
",
        );
        assert_eq!(nids(&file), ["192.168.1.1@tcp1", "10.0.0.2@tcp2"]);
        assert_eq!(file.problems, [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let file = read(
            "\
net:
    - tcp
    - local NI(s): []
    - {net type: tcp, local NI(s): [{interfaces: {0: eth9}}, {nid: 10.0.0.1@tcp1}, x]}
route:
    - {net: tcp1}
    - {net: tcp1, gateway: 10.0.0.300@tcp}
    - {net: tcp1, gateway: 10.0.0.9@tcp, priority: high}
ip2nets:
    - {net-spec: tcp}
    - {ip-range: {0: 10.x}}
",
        );
        assert_eq!(file.problems.len(), 10, "{:?}", file.problems);
        assert_eq!(nids(&file), [""; 0]);
    }

    #[test]
    fn other_files_are_none() {
        let netdevs = NetDevices::default();
        for text in [
            "",
            "version: 1\nni: []",
            "version: 1\nni: []\nroute: []",
            "x: 1",
            "- net",
            "net: [",
            "net",
        ] {
            assert_eq!(parse(text, &netdevs).unwrap(), None, "{text}");
        }
    }
}
