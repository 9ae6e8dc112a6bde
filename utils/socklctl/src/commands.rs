// SPDX-License-Identifier: GPL-2.0

//! The commands.

mod bench;
pub(crate) mod config;
mod conn;
pub(crate) mod generate;
mod interface;
mod ni;
mod peer;
mod ping;
mod route;
mod routing;
mod serve;
mod stats;

use crate::{
    address::{Networks, Pattern, Prefix},
    cli::{
        Command, ConnCommand, InterfaceCommand, Lctl, ListArgs, NetCommand, NiCommand, PeerCommand,
        RouteCommand, SetCommand, ShowCommand, UpDown,
    },
    device::{Driver, Version},
    error::Error,
    report::{Output, Report},
    uapi,
};
use peer::Deletion;
use serde::Serialize;

/// Carries out a command that needs the module.
pub(crate) fn run(command: &Command, driver: &impl Driver, output: &Output) -> Result<(), Error> {
    match command {
        Command::Ni(command) => run_ni(command, driver, output),
        Command::Net(command) => run_net(command, driver, output),
        Command::Peer(command) => run_peer(command, driver, output),
        Command::Set(SetCommand::Routing { state }) => {
            output.report(&routing::set(driver, *state)?)
        }
        Command::Show(ShowCommand::Routing) => output.report(&routing::show(driver)?),
        Command::Route(command) => run_route(command, driver, output),
        Command::Conn(command) => run_conn(command, driver, output),
        Command::Interface(command) => run_interface(command, driver, output),
        Command::Ping(args) => ping::run(driver, output, args),
        Command::Bench(args) => bench::run(driver, output, args),
        Command::Serve(args) => serve::run(driver, output, args),
        Command::Stats(args) if args.watch => stats::watch(driver, output, args),
        Command::Stats(args) if args.openmetrics => {
            let metrics = match args.peers {
                true => stats::OpenMetrics::from(&stats::peers(driver, args.list.ni)?),
                false => stats::OpenMetrics::from(&stats::list(driver, args.list.ni)?),
            };
            output.report(&metrics)
        }
        Command::Stats(args) if args.peers => output.report(&stats::peers(driver, args.list.ni)?),
        Command::Stats(args) => output.report(&stats::list(driver, args.list.ni)?),
        Command::Export(args) => config::export(driver, output, args),
        Command::Version => output.report(&version(driver)?),
        // Handled elsewhere: these don't need the module at first, or are lctl's.
        Command::Import(_) | Command::Generate(_) | Command::Lctl(_) => Ok(()),
    }
}

fn run_ni(command: &NiCommand, driver: &impl Driver, output: &Output) -> Result<(), Error> {
    match *command {
        NiCommand::Add { nid, ref device } => {
            output.report(&ni::add(driver, ni::nid_of(nid, device.as_deref())?)?)
        }
        NiCommand::Del { nid } => output.report(&ni::del(driver, nid)?),
        NiCommand::Set { nid } => output.report(&ni::set(driver, nid)?),
        NiCommand::List(ListArgs { ni }) => output.report(&ni::list(driver, ni)?),
    }
}

fn run_net(command: &NetCommand, driver: &impl Driver, output: &Output) -> Result<(), Error> {
    match command {
        NetCommand::Add { net, devices } => output.report(&ni::net_add(driver, *net, devices)?),
        NetCommand::Del { net, devices } => output.report(&ni::net_del(driver, *net, devices)?),
        NetCommand::Show { net, .. } => {
            output.report(&ni::list(driver, net.map_or(Pattern::Any, Pattern::Net))?)
        }
    }
}

fn run_peer(command: &PeerCommand, driver: &impl Driver, output: &Output) -> Result<(), Error> {
    match *command {
        PeerCommand::Add {
            nid,
            address,
            port,
            ni,
        } => output.report(&peer::add(driver, ni, nid, address, port)?),
        PeerCommand::Del {
            nid,
            address,
            single,
            list: ListArgs { ni },
        } => {
            let what = if single {
                Deletion::Single
            } else {
                Deletion::All
            };
            output.report(&peer::del(driver, ni, nid, address, what)?)
        }
        PeerCommand::List(ListArgs { ni }) => output.report(&peer::list(driver, ni)?),
    }
}

fn run_route(command: &RouteCommand, driver: &impl Driver, output: &Output) -> Result<(), Error> {
    match *command {
        RouteCommand::Add {
            network,
            gateway,
            priority,
            list: ListArgs { ni },
            lnetctl,
        } => {
            let network = network.or(lnetctl.net);
            let Some((network, gateway)) = network.zip(gateway.or(lnetctl.via)) else {
                return Err(Error::Outcome("a route has a network and a gateway".into()));
            };
            output.report(&route::add(driver, ni, network, gateway, priority)?)
        }
        RouteCommand::Del {
            network,
            gateway,
            list: ListArgs { ni },
            lnetctl,
        } => {
            let network = network.map_or(lnetctl.net, |Networks(network)| network);
            let gateway = lnetctl.via.map_or(gateway, Pattern::One);
            output.report(&route::del(driver, ni, network, gateway)?)
        }
        RouteCommand::List(ListArgs { ni }) => output.report(&route::list(driver, ni)?),
        RouteCommand::Notify {
            gateway,
            state,
            list: ListArgs { ni },
        } => output.report(&route::notify(driver, ni, gateway, state == UpDown::Up)?),
    }
}

fn run_conn(command: &ConnCommand, driver: &impl Driver, output: &Output) -> Result<(), Error> {
    match *command {
        ConnCommand::List(ListArgs { ni }) => output.report(&conn::list(driver, ni)?),
        ConnCommand::Close {
            nid,
            address,
            list: ListArgs { ni },
        } => output.report(&conn::close(driver, ni, nid, address)?),
        ConnCommand::Push {
            nid,
            address,
            list: ListArgs { ni },
        } => output.report(&conn::push(driver, ni, nid, address)?),
        ConnCommand::Register {
            fd,
            r#type,
            peer,
            list: ListArgs { ni },
        } => output.report(&conn::register(driver, ni, fd, r#type.zip(peer))?),
    }
}

fn run_interface(
    command: &InterfaceCommand,
    driver: &impl Driver,
    output: &Output,
) -> Result<(), Error> {
    match *command {
        InterfaceCommand::Add {
            address: Prefix { addr, len },
            netmask,
            list: ListArgs { ni },
        } => {
            if len.is_some() && netmask.is_some() {
                return Err(Error::Outcome(
                    "the length of the prefix is given twice: by ADDRESS/BITS and by a mask".into(),
                ));
            }
            let len = len.or(netmask);
            output.report(&interface::add(driver, ni, Prefix { addr, len })?)
        }
        InterfaceCommand::Del {
            address,
            list: ListArgs { ni },
        } => output.report(&interface::del(driver, ni, address)?),
        InterfaceCommand::List(ListArgs { ni }) => output.report(&interface::list(driver, ni)?),
    }
}

/// Carries out one of lctl's commands, for the NIs of one network or of all.
pub(crate) fn run_lctl(
    verb: &Lctl,
    net: Option<u16>,
    driver: &impl Driver,
    output: &Output,
) -> Result<(), Error> {
    let any = net.map_or(Pattern::Any, Pattern::Net);
    match *verb {
        Lctl::Mynid { nid: Some(nid) } => output.report(&ni::set(driver, nid)?),
        Lctl::Mynid { nid: None } => output.report(&ni::mynid(driver)?),
        Lctl::AddPeer { nid, host, port } => {
            output.report(&peer::add(driver, any, nid, Some(host), Some(port))?)
        }
        Lctl::DelPeer {
            nid,
            host,
            ref single_share,
        } => {
            let what = match single_share {
                Some(_) => Deletion::Single,
                None => Deletion::All,
            };
            output.report(&peer::del(driver, any, nid, host, what)?)
        }
        Lctl::PeerList => output.report(&peer::list(driver, any)?),
        Lctl::ConnList => output.report(&conn::list(driver, any)?),
        Lctl::Disconnect { nid, host } => output.report(&conn::close(driver, any, nid, host)?),
        Lctl::Push { nid } => output.report(&conn::push(driver, any, nid, None)?),
        Lctl::AddInterface {
            address: Prefix { addr, len },
            netmask,
        } => {
            let len = len.or(netmask);
            output.report(&interface::add(driver, any, Prefix { addr, len })?)
        }
        Lctl::DelInterface { address } => output.report(&interface::del(driver, any, address)?),
        Lctl::InterfaceList => output.report(&interface::list(driver, any)?),
        Lctl::ListNids { .. } => output.report(&ni::list_nids(driver, any)?),
        Lctl::WhichNid { ref nids } => output.report(&ni::which_nid(driver, any, nids)?),
        Lctl::Network { ref what } => match what.as_str() {
            "up" | "configure" => output.report(&ni::network_up(driver, any)?),
            _ => output.report(&ni::network_down(driver, any)?),
        },
        Lctl::RouteList => output.report(&route::list(driver, any)?),
    }
}

/// Versions of both sides.
#[derive(Debug, Serialize)]
struct Versions {
    socklctl: &'static str,
    module: String,
    /// Of the ioctl interface, as the module has it.
    abi: String,
}

impl Report for Versions {
    fn text(&self) -> String {
        let Self {
            socklctl,
            module,
            abi,
        } = self;
        format!("socklctl {socklctl}, module {module}, interface {abi}")
    }
}

fn version(driver: &impl Driver) -> Result<Versions, Error> {
    let version: uapi::socklnd_version = driver.version()?;
    let release = version
        .release
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    Ok(Versions {
        socklctl: env!("CARGO_PKG_VERSION"),
        module: String::from_utf8_lossy(release).into_owned(),
        abi: format!("{}.{}", version.abi_major, version.abi_minor),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fake::Fake;

    #[test]
    fn the_version_is_cut_at_its_end() {
        let fake = Fake::new(|_, arg| {
            let version = arg.downcast_mut::<uapi::socklnd_version>().unwrap();
            version.abi_major = 1;
            version.abi_minor = 2;
            version.release[..6].copy_from_slice(b"0.1.0\0");
            Ok(())
        });
        let versions = version(&fake).unwrap();
        assert_eq!(
            (versions.module.as_str(), versions.abi.as_str()),
            ("0.1.0", "1.2")
        );
    }
}
