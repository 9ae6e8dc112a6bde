// SPDX-License-Identifier: GPL-2.0

//! Tests of export and import, without a module.

use super::*;
use crate::{device::fake::Fake, netdev::NetDevices};
use rustix::io::Errno;
use std::{
    cell::RefCell,
    fs::Permissions,
    os::unix::fs::{PermissionsExt, symlink},
    rc::Rc,
};

fn config(text: &str) -> Config {
    let file = config::File::parse(text, &NetDevices::default()).unwrap();
    assert_eq!(file.problems, [""; 0]);
    file.config
}

/// The steps, nothing standing against any.
fn planned(wanted: &str, now: &str) -> Vec<Step> {
    let (steps, problems) = plan(&config(wanted), &config(now));
    assert_eq!(problems, [""; 0]);
    steps
}

/// Where no parameter is touched.
fn none() -> Parameters {
    Parameters::at(Path::new("/nonexistent"))
}

fn steps(wanted: &str, now: &str) -> Vec<String> {
    planned(wanted, now).iter().map(Step::to_string).collect()
}

const NONE: &str = "{version: 1, ni: []}";
const FULL: &str = "\
version: 1
ni:
- nid: 10.0.0.1@tcp
  addresses: [192.168.1.1/24]
  peers:
  - nid: 10.0.0.2@tcp
    routes: [{port: 988, shares: 2}, {address: 192.168.1.2}]
";
const GATEWAY: &str = "\
version: 1
ni:
- nid: 10.0.0.1@tcp
  gateways: [{nid: 10.0.0.9@tcp, network: tcp1, priority: 2}]
";

#[test]
fn gateways_are_added_once() {
    assert_eq!(
        steps(GATEWAY, FULL),
        ["route add tcp1 10.0.0.9@tcp --priority 2 --ni 10.0.0.1@tcp"]
    );
    assert_eq!(steps(GATEWAY, GATEWAY), [""; 0]);
    let other = GATEWAY.replace("priority: 2", "priority: 3");
    let (_, problems) = plan(&config(GATEWAY), &config(&other));
    assert_eq!(
        problems,
        ["10.0.0.9@tcp: it leads to tcp1 with priority 3 already"]
    );
}

#[test]
fn an_empty_node_gets_everything() {
    assert_eq!(
        steps(FULL, NONE),
        [
            "ni add 10.0.0.1@tcp",
            "interface add 192.168.1.1/24 --ni 10.0.0.1@tcp",
            "peer add 10.0.0.2@tcp 10.0.0.2 --ni 10.0.0.1@tcp --port 988",
            "peer add 10.0.0.2@tcp 10.0.0.2 --ni 10.0.0.1@tcp --port 988",
            "peer add 10.0.0.2@tcp 192.168.1.2 --ni 10.0.0.1@tcp",
        ]
    );
}

#[test]
fn forwarding_is_switched_on_last() {
    let on = GATEWAY.replace("version: 1", "version: 1\nrouting: true");
    assert_eq!(
        steps(&on, NONE),
        [
            "ni add 10.0.0.1@tcp",
            "route add tcp1 10.0.0.9@tcp --priority 2 --ni 10.0.0.1@tcp",
            "set routing on",
        ]
    );
    // What a file doesn't mention stays.
    assert_eq!(steps(GATEWAY, &on), [""; 0]);
}

#[test]
fn what_is_there_stays() {
    assert_eq!(steps(FULL, FULL), [""; 0]);
    assert_eq!(steps(NONE, FULL), [""; 0]);
    let part = "{version: 1, ni: [{nid: 10.0.0.1@tcp, peers: [{nid: 10.0.0.2@tcp}]}]}";
    assert_eq!(
        steps(FULL, part),
        [
            "interface add 192.168.1.1/24 --ni 10.0.0.1@tcp",
            "peer add 10.0.0.2@tcp 10.0.0.2 --ni 10.0.0.1@tcp --port 988",
            "peer add 10.0.0.2@tcp 192.168.1.2 --ni 10.0.0.1@tcp",
        ]
    );
}

#[test]
fn what_the_driver_has_found_makes_way() {
    let peer = "{nid: 10.0.0.2@tcp, routes: [{port: 7988}]}";
    let now = format!("{{version: 1, ni: [{{nid: 10.0.0.1@tcp, peers: [{peer}]}}]}}");
    let mut now = config(&now);
    let peers = now.nis.iter_mut().flat_map(|ni| &mut ni.peers);
    for route in peers.flat_map(|peer| &mut peer.routes) {
        route.shares = 0;
    }
    let (steps, problems) = plan(&config(FULL), &now);
    assert_eq!(problems, [""; 0]);
    let steps: Vec<String> = steps.iter().map(Step::to_string).collect();
    assert_eq!(
        steps,
        [
            "interface add 192.168.1.1/24 --ni 10.0.0.1@tcp",
            "peer add 10.0.0.2@tcp 10.0.0.2 --ni 10.0.0.1@tcp --port 988",
            "peer add 10.0.0.2@tcp 10.0.0.2 --ni 10.0.0.1@tcp --port 988",
            "peer add 10.0.0.2@tcp 192.168.1.2 --ni 10.0.0.1@tcp",
        ]
    );
}

#[test]
fn what_stands_against_it_is_told_before() {
    let now = "\
version: 1
ni:
- nid: 10.0.0.1@tcp
  addresses: [192.168.1.1/16]
  peers: [{nid: 10.0.0.2@tcp, routes: [{port: 7988}]}]
";
    let (_, problems) = plan(&config(FULL), &config(now));
    assert_eq!(
        problems,
        [
            "10.0.0.1@tcp: 192.168.1.1/24: it has 192.168.1.1/16 already",
            "10.0.0.2@tcp: it has 10.0.0.2 at port 7988 already",
        ]
    );
    let now = "{version: 1, ni: [{nid: 10.0.0.1@tcp7}]}";
    // Two networks on one address are no contradiction.
    assert!(plan(&config(FULL), &config(now)).1.is_empty());
    // A prefix that comes from the kernel is not configured.
    let now = "{version: 1, ni: [{nid: 10.0.0.1@tcp, addresses: [192.168.1.1]}]}";
    assert!(plan(&config(FULL), &config(now)).1.is_empty());
}

/// A stand-in that fails the requests of this position, and what it was asked for.
fn failing(at: &'static [usize]) -> (Fake, Rc<RefCell<Vec<u32>>>) {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&calls);
    let fake = Fake::new(move |number, _| {
        log.borrow_mut().push(number);
        if at.contains(&log.borrow().len()) {
            Err(Errno::NOSPC)
        } else {
            Ok(())
        }
    });
    (fake, calls)
}

#[test]
fn a_failure_undoes_what_was_done() {
    let steps = planned(FULL, NONE);
    let (fake, calls) = failing(&[3]);
    let error = apply(&fake, &none(), steps.clone(), &mut Vec::new()).unwrap_err();
    assert_eq!(
        *calls.borrow(),
        [
            uapi::SOCKLND_IOC_NI_ADD,
            uapi::SOCKLND_IOC_IF_ADD,
            uapi::SOCKLND_IOC_PEER_ADD,
            uapi::SOCKLND_IOC_IF_DEL,
            uapi::SOCKLND_IOC_NI_DEL,
        ]
    );
    let text = error.to_string();
    assert!(text.starts_with("can't add peer 10.0.0.2@tcp"), "{text}");
    assert!(
        text.ends_with("; nothing was changed: 2 steps were undone"),
        "{text}"
    );

    let (fake, _) = failing(&[3, 4]);
    let text = apply(&fake, &none(), steps.clone(), &mut Vec::new())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("; 1 step was undone, but not all: can't delete"),
        "{text}"
    );
}

#[test]
fn what_can_be_done_is_done() {
    let two = "\
version: 1
ni:
- nid: 10.0.0.77@tcp
  peers: [{nid: 10.0.0.2@tcp}, {nid: 10.0.0.3@tcp}]
- nid: 10.0.0.1@tcp7
  peers: [{nid: 10.0.0.2@tcp7}]
";
    let (fake, calls) = failing(&[1]);
    let (done, failed) = apply_what_goes(&fake, &none(), planned(two, NONE), &mut Vec::new());
    let names = |steps: &[Step]| steps.iter().map(Step::to_string).collect::<Vec<_>>();
    assert_eq!(
        names(&done),
        [
            "ni add 10.0.0.1@tcp7",
            "peer add 10.0.0.2@tcp7 10.0.0.2 --ni 10.0.0.1@tcp7"
        ]
    );
    // The peers of what is missing are not asked for.
    assert_eq!(calls.borrow().len(), 3);
    let imported = Imported {
        applied: true,
        steps: Some(done),
        failed,
        problems: &[],
        ignored: &["x: y".to_string()],
    };
    let text = imported.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[0], "ignored: x: y");
    assert!(
        lines[1].starts_with("not done: can't add NI 10.0.0.77@tcp: "),
        "{text}"
    );
    assert!(
        lines[3].ends_with("--ni 10.0.0.77@tcp: the NI is missing"),
        "{text}"
    );
    let outcome = imported.outcome().unwrap_err().to_string();
    assert!(outcome.starts_with("3 steps"), "{outcome}");
    let json = serde_json::to_value(&imported).unwrap();
    assert_eq!(json["failed"][0]["step"]["action"], "ni_add");
    assert_eq!(json["failed"][0]["why"]["errno"], "ENOSPC");
    assert_eq!(json["failed"][1]["why"], serde_json::Value::Null);
}

#[test]
fn parameters_are_set_where_they_can_be() {
    let folder = Folder::new("parameters");
    let parameters = Parameters::at(&folder.0);
    for (name, value, mode) in [
        ("accept", "secure\n", 0o644),
        ("sock_timeout", "50\n", 0o644),
        ("accept_port", "988\n", 0o444),
    ] {
        let path = folder.0.join(name);
        fs::write(&path, value).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    let settings: Vec<_> = [
        ("accept", "all"),
        ("sock_timeout", "0x32"),
        ("accept_port", "6988"),
        ("credits", "256"),
        ("../accept", "all"),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .into();
    let mut ignored = Vec::new();
    let steps = plan_settings(&settings, &parameters, &mut ignored).unwrap();
    let names: Vec<_> = steps.iter().map(Step::to_string).collect();
    assert_eq!(names, ["set the parameter accept to all"]);
    for (ignored, sign) in ignored.iter().zip([
        "accept_port is 988 until the module is loaded anew, with 'options ksocklnd accept_port=6988'",
        "credits: this driver has no such parameter",
        "../accept: this driver has no such parameter",
    ]) {
        assert!(ignored.starts_with(sign), "{ignored}");
    }
    assert_eq!(ignored.len(), 3);
    let (fake, _) = failing(&[]);
    apply(&fake, &parameters, steps.clone(), &mut Vec::new()).unwrap();
    assert_eq!(parameters.get("accept").unwrap().unwrap().value, "all");
    // What fails behind it brings the old value back.
    let mut steps = steps;
    steps.push(Step::Routing);
    let (fake, _) = failing(&[1]);
    apply(&fake, &parameters, steps, &mut Vec::new()).unwrap_err();
    assert_eq!(parameters.get("accept").unwrap().unwrap().value, "secure");
}

#[test]
fn routes_that_the_driver_found_are_not_exported() {
    let route = |nid: &str, shares| uapi::socklnd_peer_entry {
        nid: crate::address::nid_to_uapi(nid.parse().unwrap()),
        flags: uapi::SOCKLND_PEER_HAS_ROUTE,
        route_addr: crate::address::address_to_uapi(Some([10, 0, 0, shares as u8].into())),
        route_port: 988,
        route_share_count: shares,
        ..Default::default()
    };
    let peers = peers(&[
        route("10.0.0.3@tcp", 0),
        route("10.0.0.2@tcp", 9),
        route("10.0.0.2@tcp", 0),
        route("10.0.0.2@tcp", 2),
    ]);
    let nid = "10.0.0.1@tcp".parse().unwrap();
    let config = configured(Config {
        routing: false,
        nis: vec![NiConfig {
            nid,
            addresses: Vec::new(),
            peers,
            gateways: Vec::new(),
        }],
    });
    let peers = &config.nis[0].peers;
    assert_eq!(peers.len(), 1);
    let shares: Vec<_> = peers[0].routes.iter().map(|route| route.shares).collect();
    assert_eq!(shares, [2, 9]);
}

/// A folder that goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("socklctl-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn count(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let folder = Folder::new("replaced");
    let path = folder.0.join("x.yaml");
    for text in ["first", "second"] {
        write_whole(&path, text).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{text}\n"));
    }
    assert_eq!(folder.count(), 1);
    assert!(write_whole(&folder.0.join("no/x.yaml"), "x").is_err());
}

#[test]
fn a_replaced_file_keeps_its_mode() {
    let folder = Folder::new("mode");
    let path = folder.0.join("x.yaml");
    for mode in [0o600, 0o640, 0o444] {
        let _ = fs::remove_file(&path);
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        write_whole(&path, "new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    }
}

/// Links beside the file, under names that a temporary file might have, are not written to.
#[test]
fn links_beside_the_file_are_not_followed() {
    let folder = Folder::new("links");
    let path = folder.0.join("x.yaml");
    let victim = folder.0.join("victim");
    fs::write(&victim, "mine").unwrap();
    for name in [
        "x.yaml.new".to_string(),
        format!("x.yaml.{}-0.new", std::process::id()),
    ] {
        symlink(&victim, folder.0.join(name)).unwrap();
    }
    write_whole(&path, "new").unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(folder.count(), 4);
    // A link that is named itself leads to the file that is replaced, or made.
    for target in ["x.yaml", "other.yaml"] {
        let link = folder.0.join("link");
        symlink(target, &link).unwrap();
        write_whole(&link, target).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let text = fs::read_to_string(folder.0.join(target)).unwrap();
        assert_eq!(text, format!("{target}\n"));
        fs::remove_file(&link).unwrap();
    }
}
