// SPDX-License-Identifier: GPL-2.0

//! A node's configuration: written to a file, and read from one.

mod parameters;
#[cfg(test)]
mod tests;

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
            1 => Err(Error::Outcome("1 step failed, see above".into())),
            left => Err(Error::Outcome(format!("{left} steps failed, see above"))),
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
