// SPDX-License-Identifier: GPL-2.0

//! socklctl administers ksocklnd, Lustre's socket network driver, through `/dev/socklnd`.
//!
//! - `cli`: the command line;
//! - `commands`: what each command does with it;
//! - `config`: a node's configuration in a file;
//! - `report`: results as text and as JSON;
//! - `device`: the module's device, with all `unsafe` code;
//! - `uapi`: the ioctl interface, generated from its header by `scripts/gen-uapi`;
//! - `address`, `units`, `error`: values and errors as people read and write them;
//! - `typed`: NIDs and addresses in arguments, also by the names of hosts and network devices;
//! - `netdev`: this node's network devices;
//! - `hints`: what to use instead of commands of lctl and lnetctl that socklctl does not have.

mod address;
mod cli;
mod commands;
mod config;
mod device;
mod error;
mod hints;
mod netdev;
mod report;
mod typed;
mod units;

#[rustfmt::skip]
#[allow(non_camel_case_types, unreachable_pub, dead_code, clippy::all)]
mod uapi;

/// Files of the module that are built here too.
#[rustfmt::skip]
#[path = "../../.."]
mod repo {
    // Of the wire formats only the NID is used here. The kernel's linter looks after the files.
    #[allow(dead_code, unused_imports, clippy::all)]
    pub(crate) mod wire;
}

use clap::Parser;
use cli::Command;
use device::Device;
use error::Error;
use report::{Format, Output};
use rustix::io::Errno;
use std::{error::Error as _, ffi::OsString, path::Path, process::ExitCode};
use typed::TypedError;

fn run(cli: &cli::Cli, output: &Output) -> Result<(), Error> {
    let name = std::str::from_utf8(uapi::SOCKLND_DEVICE).unwrap_or_default();
    let path = Path::new("/dev").join(name.trim_end_matches('\0'));
    match &cli.command {
        // These two do part of their work without the module.
        Command::Generate(args) => commands::generate::run(args),
        Command::Import(args) => {
            let file = config::File::read(&args.file)?;
            match Device::open(&path) {
                Err(Error::Open { errno, .. }) if args.check && errno == Errno::NOENT => {
                    commands::config::report_valid(output, args, &file)
                }
                device => commands::config::import(&device?, output, args, file),
            }
        }
        Command::Lctl(verb) => commands::run_lctl(verb, cli.net, &Device::open(&path)?, output),
        _ if cli.net.is_some() => Err(Error::Outcome(
            "--net is for lctl's commands, like peer_list; others have --ni, after the command"
                .into(),
        )),
        command => commands::run(command, &Device::open(&path)?, output),
    }
}

/// Prints what is wrong with a command line. Returns only if socklctl has a hint for it.
fn refuse(error: &clap::Error, args: &[OsString]) -> ExitCode {
    let output = Output::new(Format::selected_by(args.iter().any(|arg| arg == "--json")));
    let unknown = error.source().and_then(|source| source.downcast_ref());
    if let Some(TypedError::Unknown(why)) = unknown {
        output.error(&Error::Outcome(why.clone()));
        return ExitCode::FAILURE;
    }
    // Not where help was asked for.
    if let Some(answer) = hints::find(args).filter(|_| error.use_stderr()) {
        output.error(&Error::Outcome(answer));
        return ExitCode::from(2);
    }
    error.exit()
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let cli = match cli::Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &args),
    };
    let output = Output::new(Format::selected_by(cli.json));
    match run(&cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}
