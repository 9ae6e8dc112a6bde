// SPDX-License-Identifier: GPL-2.0

//! What the commands do.

mod bench;
mod conn;
mod ni;
mod peer;
mod ping;
mod serve;
mod stats;

use crate::{
    address::Pattern,
    cli::{Command, ConnCommand, ListArgs, NiCommand, PeerCommand},
    device::{Driver, Version},
    error::Error,
    report::{Output, Report},
    uapi,
};
use serde::Serialize;

/// Carries out a command.
pub(crate) fn run(command: &Command, driver: &impl Driver, output: &Output) -> Result<(), Error> {
    match *command {
        Command::Ni(NiCommand::Add { nid }) => output.report(&ni::add(driver, nid)?),
        Command::Ni(NiCommand::Del { nid }) => output.report(&ni::del(driver, nid)?),
        Command::Ni(NiCommand::List(ListArgs { ni })) => output.report(&ni::list(driver, ni)?),
        Command::Mynid { nid: Some(nid) } => output.report(&ni::add(driver, nid)?),
        Command::Mynid { nid: None } => output.report(&ni::mynid(driver)?),

        Command::Peer(PeerCommand::Add {
            nid,
            address,
            port,
            ni,
        }) => output.report(&peer::add(driver, ni, nid, address, port)?),
        Command::AddPeer { nid, host, port } => output.report(&peer::add(
            driver,
            Pattern::Any,
            nid,
            Some(host),
            Some(port),
        )?),
        Command::Peer(PeerCommand::Del {
            nid,
            address,
            single,
            list: ListArgs { ni },
        }) => output.report(&peer::del(driver, ni, nid, address, single)?),
        Command::DelPeer {
            nid,
            host,
            ref single_share,
        } => output.report(&peer::del(
            driver,
            Pattern::Any,
            nid,
            host,
            single_share.is_some(),
        )?),
        Command::Peer(PeerCommand::List(ListArgs { ni })) => {
            output.report(&peer::list(driver, ni)?)
        }
        Command::PeerList => output.report(&peer::list(driver, Pattern::Any)?),

        Command::Conn(ConnCommand::List(ListArgs { ni })) => {
            output.report(&conn::list(driver, ni)?)
        }
        Command::ConnList => output.report(&conn::list(driver, Pattern::Any)?),
        Command::Conn(ConnCommand::Close {
            nid,
            address,
            list: ListArgs { ni },
        }) => output.report(&conn::close(driver, ni, nid, address)?),
        Command::Disconnect { nid, host } => {
            output.report(&conn::close(driver, Pattern::Any, nid, host)?)
        }

        Command::Ping(ref args) => ping::run(driver, output, args),
        Command::Bench(ref args) => bench::run(driver, output, args),
        Command::Serve(ref args) => serve::run(driver, output, args),
        Command::Stats(ListArgs { ni }) => output.report(&stats::list(driver, ni)?),
        Command::Version => output.report(&version(driver)?),
    }
}

/// Versions of both sides.
#[derive(Debug, Serialize)]
struct Versions {
    socklctl: &'static str,
    module: String,
    /// Of the interface between the two, as the module has it.
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
