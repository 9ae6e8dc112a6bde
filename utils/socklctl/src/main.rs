// SPDX-License-Identifier: GPL-2.0

//! socklctl administers ksocklnd, Lustre's socket network driver, through `/dev/socklnd`.
//!
//! - `cli`: the command line;
//! - `commands`: what each command does with it;
//! - `config`: a node's configuration as a file has it;
//! - `report`: results as text and as JSON;
//! - `device`: the way to the module, with all that is `unsafe`;
//! - `uapi`: the module's interface, generated from its header by `scripts/gen-uapi`;
//! - `address`, `units`, `error`: values and errors as people read and write them.

mod address;
mod cli;
mod commands;
mod config;
mod device;
mod error;
mod report;
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
use report::Output;
use rustix::io::Errno;
use std::{path::Path, process::ExitCode};

fn run(cli: &cli::Cli, output: &Output) -> Result<(), Error> {
    let name = std::str::from_utf8(uapi::SOCKLND_DEVICE).unwrap_or_default();
    let path = Path::new("/dev").join(name.trim_end_matches('\0'));
    match &cli.command {
        // These two have something to do before, or without, the module.
        Command::Generate(args) => commands::generate::run(args),
        Command::Import(args) => {
            let config = config::Config::read(&args.file)?;
            match Device::open(&path) {
                Err(Error::Open { errno, .. }) if args.check && errno == Errno::NOENT => {
                    commands::config::report_valid(output)
                }
                device => {
                    commands::config::import(&device?, output, &args.file, &config, args.check)
                }
            }
        }
        command => commands::run(command, &Device::open(&path)?, output),
    }
}

fn main() -> ExitCode {
    // Ends with status 2 by itself if the command line is wrong.
    let cli = cli::Cli::parse();
    let output = Output::new(cli.json);
    match run(&cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}
