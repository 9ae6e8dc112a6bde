// SPDX-License-Identifier: GPL-2.0

//! A node's configuration: written to a file, and read from one.

mod parameters;

use self::parameters::{Parameters, is_same};
use super::peer::Deletion;
use crate::{
    address::{Pattern, Prefix, address_from_uapi},
    cli::{ExportArgs, ImportArgs, OnOff},
    config::{self, Config, GatewayConfig, NiConfig, PeerConfig, RawConfig, RouteConfig},
    device::{self, Driver},
    error::{Action, Error},
    repo::wire::Nid,
    report::{Output, Report},
    uapi,
};
use serde::Serialize;
use std::{
    fmt, fs,
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

/// What is configured now, and what the driver has discovered: routes without shares.
pub(crate) fn current(driver: &impl Driver) -> Result<Config, Error> {
    let failed =
        |what| move |errno| Error::request(Action::List, format!("ask for the {what}"), errno);
    let mut nis: Vec<NiConfig> = driver
        .list(&device::NI_LIST, Pattern::Any.to_uapi())
        .map_err(failed("NIs"))?
        .iter()
        .filter_map(|entry| {
            Some(NiConfig {
                nid: crate::address::Shown::from(&entry.nid).nid()?,
                addresses: Vec::new(),
                peers: Vec::new(),
                gateways: Vec::new(),
            })
        })
        .collect();
    for ni in &mut nis {
        let pattern = Pattern::One(ni.nid).to_uapi();
        let addresses = driver
            .list(&device::IF_LIST, pattern)
            .map_err(failed("addresses of NIs"))?;
        let addresses = addresses.iter().filter_map(prefix);
        ni.addresses = addresses.filter(|p| p.addr != ni.nid.addr()).collect();
        ni.addresses.sort();
        let entries = driver
            .list(&device::PEER_LIST, pattern)
            .map_err(failed("peers"))?;
        ni.peers = peers(&entries);
        let routes = super::route::entries(driver, Pattern::One(ni.nid))?;
        ni.gateways = routes.iter().filter_map(gateway).collect();
    }
    Ok(Config {
        routing: super::routing::show(driver)?.routing,
        nis,
    })
}

/// The address, with the length of its prefix if that was configured.
fn prefix(entry: &uapi::socklnd_if_entry) -> Option<Prefix> {
    let is_configured = entry.flags & uapi::SOCKLND_IF_KERNEL_PREFIX == 0;
    Some(Prefix {
        addr: address_from_uapi(&entry.addr)?,
        len: u8::try_from(entry.prefix_len)
            .ok()
            .filter(|_| is_configured),
    })
}

fn gateway(entry: &uapi::socklnd_route_entry) -> Option<GatewayConfig> {
    Some(GatewayConfig {
        nid: crate::address::Shown::from(&entry.gateway).nid()?,
        network: entry.target.net,
        priority: entry.priority,
    })
}

fn peers(entries: &[uapi::socklnd_peer_entry]) -> Vec<PeerConfig> {
    let mut peers: Vec<PeerConfig> = Vec::new();
    for entry in entries {
        let Some(nid) = crate::address::Shown::from(&entry.nid).nid() else {
            continue;
        };
        // Those of one peer are adjacent.
        if peers.last().is_none_or(|last| last.nid != nid) {
            peers.push(PeerConfig {
                nid,
                routes: Vec::new(),
            });
        }
        let has_route = entry.flags & uapi::SOCKLND_PEER_HAS_ROUTE != 0;
        let addr = address_from_uapi(&entry.route_addr).filter(|_| has_route);
        if let (Some(peer), Some(addr)) = (peers.last_mut(), addr) {
            peer.routes.push(RouteConfig {
                addr,
                port: Some(entry.route_port),
                shares: entry.route_share_count,
            });
        }
    }
    for peer in &mut peers {
        peer.routes.sort_by_key(|route| route.addr);
    }
    peers.sort_by_key(|peer| peer.nid);
    peers
}

/// Removes what was not configured, but learned.
fn configured(mut config: Config) -> Config {
    for peer in config.nis.iter_mut().flat_map(|ni| &mut ni.peers) {
        peer.routes.retain(|route| route.shares > 0);
    }
    for ni in &mut config.nis {
        ni.peers.retain(|peer| !peer.routes.is_empty());
    }
    config
}

impl Report for RawConfig {
    fn text(&self) -> String {
        self.to_yaml().trim_end().to_string()
    }
}

pub(crate) fn export(
    driver: &impl Driver,
    output: &Output,
    args: &ExportArgs,
) -> Result<(), Error> {
    let config = configured(current(driver)?).to_raw();
    if args.file == Path::new("-") {
        return output.report(&config);
    }
    write_whole(&args.file, &output.render(&config)).map_err(|source| Error::File {
        what: "write",
        path: args.file.clone(),
        source,
    })
}

/// Writes a file completely, or leaves it as it was. An existing one keeps its owner and its mode.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    // A symbolic link is followed.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let old = fs::symlink_metadata(&path).ok();
    // A device or a pipe is written to, and so is the target of a dangling link: there is nothing to
    // replace.
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        return fs::write(path, format!("{text}\n"));
    }
    let (name, mut file) = create_beside(&path, if old.is_some() { 0o600 } else { 0o666 })?;
    let written = (|| {
        if let Some(old) = &old {
            let new = file.metadata()?;
            if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(old.permissions())?;
        }
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&name, &path)
    })();
    written.inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&name);
    })
}

/// Creates a file with a new name in the folder of `path`. Files and links that are there are neither followed
/// nor changed.
fn create_beside(path: &Path, mode: u32) -> io::Result<(PathBuf, fs::File)> {
    const ATTEMPTS: u32 = 100;
    let mut attempt = 0;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}-{attempt}.new", std::process::id()));
        let new = fs::File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&name);
        match new {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS => {
                attempt += 1;
            }
            new => return Ok((name.into(), new?)),
        }
    }
}

/// One thing that an import adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action")]
pub(crate) enum Step {
    #[serde(rename = "set")]
    Set {
        name: String,
        value: String,
        /// What it is now.
        #[serde(skip)]
        old: String,
    },
    #[serde(rename = "ni_add")]
    Ni {
        #[serde(serialize_with = "shown")]
        nid: Nid,
    },
    #[serde(rename = "interface_add")]
    Address {
        #[serde(serialize_with = "shown")]
        ni: Nid,
        address: Prefix,
    },
    #[serde(rename = "peer_add")]
    Route {
        #[serde(serialize_with = "shown")]
        ni: Nid,
        #[serde(serialize_with = "shown")]
        nid: Nid,
        address: IpAddr,
        port: Option<u16>,
    },
    #[serde(rename = "routing_on")]
    Routing,
    #[serde(rename = "route_add")]
    Gateway {
        #[serde(serialize_with = "shown")]
        ni: Nid,
        #[serde(serialize_with = "shown")]
        nid: Nid,
        #[serde(serialize_with = "network_name")]
        network: u16,
        priority: u32,
    },
}

fn shown<S: serde::Serializer>(nid: &Nid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(nid)
}

fn network_name<S: serde::Serializer>(network: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Pattern::Net(*network))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { name, value, .. } => write!(f, "set the parameter {name} to {value}"),
            Self::Ni { nid } => write!(f, "ni add {nid}"),
            Self::Address { ni, address } => write!(f, "interface add {address} --ni {ni}"),
            Self::Route {
                ni,
                nid,
                address,
                port,
            } => {
                write!(f, "peer add {nid} {address} --ni {ni}")?;
                port.map_or(Ok(()), |port| write!(f, " --port {port}"))
            }
            Self::Routing => f.write_str("set routing on"),
            Self::Gateway {
                ni,
                nid,
                network,
                priority,
            } => {
                let network = Pattern::Net(*network);
                write!(
                    f,
                    "route add {network} {nid} --priority {priority} --ni {ni}"
                )
            }
        }
    }
}

impl Step {
    /// The NI that has to be there before.
    fn needs(&self) -> Option<Nid> {
        match *self {
            Self::Set { .. } | Self::Ni { .. } | Self::Routing => None,
            Self::Address { ni, .. } | Self::Route { ni, .. } | Self::Gateway { ni, .. } => {
                Some(ni)
            }
        }
    }

    /// Does it. A text says why nothing was changed, which is no failure.
    fn apply(
        &self,
        driver: &impl Driver,
        parameters: &Parameters,
    ) -> Result<Option<String>, Error> {
        match *self {
            Self::Set {
                ref name,
                ref value,
                ref old,
            } => {
                return match parameters.set(name, value) {
                    Ok(()) => Ok(None),
                    // At its insertion the module takes the nearest for many such values.
                    Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(Some(format!(
                        "{name} is {old}: the module does not take {value} while it is loaded"
                    ))),
                    Err(source) => Err(Error::Parameter {
                        name: name.clone(),
                        value: value.clone(),
                        source,
                    }),
                };
            }
            Self::Ni { nid } => super::ni::add(driver, nid).map(drop),
            Self::Address { ni, address } => {
                super::interface::add(driver, Pattern::One(ni), address).map(drop)
            }
            Self::Route {
                ni,
                nid,
                address,
                port,
            } => super::peer::add(driver, Pattern::One(ni), nid, Some(address), port).map(drop),
            Self::Routing => super::routing::set(driver, OnOff::On).map(drop),
            Self::Gateway {
                ni,
                nid,
                network,
                priority,
            } => super::route::add(driver, Pattern::One(ni), network, nid, priority).map(drop),
        }
        .map(|()| None)
    }

    fn undo(&self, driver: &impl Driver, parameters: &Parameters) -> Result<(), Error> {
        match *self {
            Self::Set {
                ref name, ref old, ..
            } => parameters
                .set(name, old)
                .map_err(|source| Error::Parameter {
                    name: name.clone(),
                    value: old.clone(),
                    source,
                }),
            Self::Ni { nid } => super::ni::del(driver, nid).map(drop),
            Self::Address { ni, address } => {
                super::interface::del(driver, Pattern::One(ni), Some(address.addr)).map(drop)
            }
            Self::Route {
                ni, nid, address, ..
            } => {
                let (ni, nid) = (Pattern::One(ni), Pattern::One(nid));
                super::peer::del(driver, ni, nid, Some(address), Deletion::Undo).map(drop)
            }
            Self::Routing => super::routing::set(driver, OnOff::Off).map(drop),
            Self::Gateway {
                ni, nid, network, ..
            } => {
                let (ni, nid) = (Pattern::One(ni), Pattern::One(nid));
                super::route::del(driver, ni, Some(network), nid).map(drop)
            }
        }
    }
}

/// The steps by which a node that has `now` gets all that `wanted` has; and the problems with the rest.
fn plan(wanted: &Config, now: &Config) -> (Vec<Step>, Vec<String>) {
    let mut steps = Vec::new();
    let mut problems = Vec::new();
    for ni in &wanted.nis {
        let old = now.nis.iter().find(|old| old.nid == ni.nid);
        if old.is_none() {
            steps.push(Step::Ni { nid: ni.nid });
        }
        plan_addresses(ni, old, &mut steps, &mut problems);
        for peer in &ni.peers {
            let old = old.and_then(|old| old.peers.iter().find(|old| old.nid == peer.nid));
            plan_routes(ni.nid, peer, old, &mut steps, &mut problems);
        }
        plan_gateways(ni, old, &mut steps, &mut problems);
    }
    // Last, so that the gateway is used when it is completely configured.
    if wanted.routing && !now.routing {
        steps.push(Step::Routing);
    }
    (steps, problems)
}

/// The parameters of the module that are changed. Those that can't be are ignored, and reported.
fn plan_settings(
    wanted: &[(String, String)],
    parameters: &Parameters,
    ignored: &mut Vec<String>,
) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for (name, value) in wanted {
        let now = parameters.get(name).map_err(|source| Error::Parameter {
            name: name.clone(),
            value: value.clone(),
            source,
        })?;
        match now {
            None => ignored.push(format!("{name}: this driver has no such parameter")),
            Some(now) if is_same(&now.value, value) => {}
            Some(now) if now.changeable => steps.push(Step::Set {
                name: name.clone(),
                value: value.clone(),
                old: now.value,
            }),
            Some(now) => ignored.push(format!(
                "{name} is {} until the module is loaded anew, with 'options ksocklnd {name}={value}' in a file \
                 of modprobe.d",
                now.value
            )),
        }
    }
    Ok(steps)
}

fn plan_addresses(
    ni: &NiConfig,
    old: Option<&NiConfig>,
    steps: &mut Vec<Step>,
    problems: &mut Vec<String>,
) {
    let there = old.map_or(&[][..], |old| &old.addresses);
    let mut count = there.len();
    let most = uapi::SOCKLND_IF_MAX as usize - 1;
    for address in &ni.addresses {
        match there.iter().find(|old| old.addr == address.addr) {
            Some(old)
                if old.len.is_some() && address.len.is_some_and(|len| old.len != Some(len)) =>
            {
                problems.push(format!("{}: {address}: it has {old} already", ni.nid));
            }
            Some(_) => {}
            None => {
                count += 1;
                if count <= most {
                    steps.push(Step::Address {
                        ni: ni.nid,
                        address: *address,
                    });
                }
            }
        }
    }
    if count > most {
        problems.push(format!(
            "{}: it would have more than {most} addresses",
            ni.nid
        ));
    }
}

fn plan_gateways(
    ni: &NiConfig,
    old: Option<&NiConfig>,
    steps: &mut Vec<Step>,
    problems: &mut Vec<String>,
) {
    let there = old.map_or(&[][..], |old| &old.gateways);
    for gateway in &ni.gateways {
        let same = |old: &&GatewayConfig| (old.nid, old.network) == (gateway.nid, gateway.network);
        match there.iter().find(same) {
            Some(old) if old.priority != gateway.priority => problems.push(format!(
                "{}: it leads to {} with priority {} already",
                gateway.nid,
                Pattern::Net(gateway.network),
                old.priority
            )),
            Some(_) => {}
            None => steps.push(Step::Gateway {
                ni: ni.nid,
                nid: gateway.nid,
                network: gateway.network,
                priority: gateway.priority,
            }),
        }
    }
}

fn plan_routes(
    ni: Nid,
    peer: &PeerConfig,
    old: Option<&PeerConfig>,
    steps: &mut Vec<Step>,
    problems: &mut Vec<String>,
) {
    for route in &peer.routes {
        // One that the driver has discovered is replaced.
        let same = |old: &&RouteConfig| old.addr == route.addr && old.shares > 0;
        let old = old.and_then(|old| old.routes.iter().find(same));
        if let Some(port) = old.and_then(|old| old.port) {
            // The driver has one route to an address, whatever the port.
            if route.port.is_some_and(|wanted| wanted != port) {
                problems.push(format!(
                    "{}: it has {} at port {port} already",
                    peer.nid, route.addr
                ));
                continue;
            }
        }
        let missing = route.shares.saturating_sub(old.map_or(0, |old| old.shares));
        let step = Step::Route {
            ni,
            nid: peer.nid,
            address: route.addr,
            // Without a port, any is right.
            port: route.port.or(old.and_then(|old| old.port)),
        };
        steps.extend(std::iter::repeat_n(step, missing as usize));
    }
}

/// The result of an import.
#[derive(Debug, Serialize)]
struct Imported<'a> {
    /// Whether it was done, or only checked.
    applied: bool,
    /// The steps that were done, or would be; `null` if there is no module to compare with.
    steps: Option<Vec<Step>>,
    /// The steps that failed.
    failed: Vec<Failed>,
    /// Errors in the file, and conflicts with the present configuration.
    problems: &'a [String],
    /// What in the file does not apply to this driver.
    ignored: &'a [String],
}

/// A step that failed.
#[derive(Debug, Serialize)]
struct Failed {
    step: Step,
    /// `null` if the step's NI is missing, which is reported separately.
    why: Option<Error>,
}

impl Report for Imported<'_> {
    fn text(&self) -> String {
        let mut lines: Vec<_> = self
            .ignored
            .iter()
            .map(|line| format!("ignored: {line}"))
            .collect();
        lines.extend(self.problems.iter().map(|line| format!("left out: {line}")));
        for Failed { step, why } in &self.failed {
            lines.push(match why {
                Some(why) => format!("not done: {why}"),
                None => format!("not done: {step}: the NI is missing"),
            });
        }
        match &self.steps {
            None => lines.push("valid; there is no module here to compare it with".to_string()),
            Some(steps) if steps.is_empty() && self.failed.is_empty() => {
                lines.push("nothing to do".to_string());
            }
            // Steps that were applied are not listed.
            Some(_) if self.applied => {}
            Some(steps) => lines.extend(steps.iter().map(|step| format!("would {step}"))),
        }
        lines.join("\n")
    }
}

impl Imported<'_> {
    /// The failed steps and problems as an error, for the exit status.
    fn outcome(&self) -> Result<(), Error> {
        match self.failed.len() + self.problems.len() {
            0 => Ok(()),
            1 => Err(Error::Outcome(
                "1 step failed, see above".into(),
            )),
            left => Err(Error::Outcome(format!(
                "{left} steps failed, see above"
            ))),
        }
    }
}

/// Reports that a file is valid, if there is no module.
pub(crate) fn report_valid(
    output: &Output,
    args: &ImportArgs,
    file: &config::File,
) -> Result<(), Error> {
    refuse(args, &file.problems)?;
    let imported = Imported {
        applied: false,
        steps: None,
        failed: Vec::new(),
        problems: &file.problems,
        ignored: &file.ignored,
    };
    output.report(&imported)?;
    imported.outcome()
}

/// Problems end an import without `--keep-going`.
fn refuse(args: &ImportArgs, problems: &[String]) -> Result<(), Error> {
    if problems.is_empty() || args.keep_going {
        return Ok(());
    }
    Err(Error::Invalid {
        path: args.file.clone(),
        problems: problems.to_vec(),
    })
}

/// Adds what the file has and the node lacks: all of it, or nothing; with `keep_going`, as much as possible; with
/// `check`, nothing, and only reports the steps.
pub(crate) fn import(
    driver: &impl Driver,
    output: &Output,
    args: &ImportArgs,
    file: config::File,
) -> Result<(), Error> {
    let parameters = Parameters::of_module();
    let config::File {
        config,
        settings,
        mut ignored,
        mut problems,
    } = file;
    let mut steps = plan_settings(&settings, &parameters, &mut ignored)?;
    let (more, mut against) = plan(&config, &current(driver)?);
    steps.extend(more);
    problems.append(&mut against);
    refuse(args, &problems)?;
    let mut failed = Vec::new();
    if !args.check && args.keep_going {
        (steps, failed) = apply_what_goes(driver, &parameters, steps, &mut ignored);
    } else if !args.check {
        steps = apply(driver, &parameters, steps, &mut ignored)?;
    }
    let imported = Imported {
        applied: !args.check,
        steps: Some(steps),
        failed,
        problems: &problems,
        ignored: &ignored,
    };
    output.report(&imported)?;
    imported.outcome()
}

/// Does all steps, or none. Returns those that changed something.
fn apply(
    driver: &impl Driver,
    parameters: &Parameters,
    steps: Vec<Step>,
    ignored: &mut Vec<String>,
) -> Result<Vec<Step>, Error> {
    let mut done: Vec<Step> = Vec::new();
    for step in steps {
        match step.apply(driver, parameters) {
            Ok(None) => done.push(step),
            Ok(Some(why)) => ignored.push(why),
            Err(why) => {
                // Goes on if a step can't be undone.
                let undone = done.iter().rev().map(|step| step.undo(driver, parameters));
                let left: Vec<_> = undone.filter_map(Result::err).collect();
                return Err(Error::Import {
                    why: Box::new(why),
                    undone: done.len() - left.len(),
                    left,
                });
            }
        }
    }
    Ok(done)
}

/// Does all steps that work. Returns them, and those that failed.
fn apply_what_goes(
    driver: &impl Driver,
    parameters: &Parameters,
    steps: Vec<Step>,
    ignored: &mut Vec<String>,
) -> (Vec<Step>, Vec<Failed>) {
    let mut done = Vec::new();
    let mut failed: Vec<Failed> = Vec::new();
    for step in steps {
        let missing = step.needs().is_some_and(|ni| {
            let mut failed = failed.iter();
            failed.any(|failed| matches!(failed.step, Step::Ni { nid } if nid == ni))
        });
        if missing {
            failed.push(Failed { step, why: None });
            continue;
        }
        match step.apply(driver, parameters) {
            Ok(None) => done.push(step),
            Ok(Some(why)) => ignored.push(why),
            Err(why) => failed.push(Failed {
                step,
                why: Some(why),
            }),
        }
    }
    (done, failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{netdev::NetDevices, device::fake::Fake};
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
}
