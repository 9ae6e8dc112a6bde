// SPDX-License-Identifier: GPL-2.0

//! Runs socklnd's scenarios inside a virtual machine, as the child of its init.
//!
//! Results go to the second serial port, as KTAP; the kernel's log goes to the first. What the
//! kernel logged is judged by the host.

mod agent;
mod bpf;
mod checks;
mod command;
mod debugfs;
mod family;
mod faults;
mod ioctl;
mod lab;
mod lnet;
mod modern;
mod module;
mod node;
mod pace;
mod peer;
mod port;
mod proxy;
mod run;
mod scenarios;
mod stuck;
mod wait;
mod worker;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(about = "Runs socklnd's scenarios inside a virtual machine")]
enum Cli {
    /// Lists the scenarios, one a line, each with the seconds that it may take.
    List,
    /// Runs the scenarios that the host names, one after the other, between network namespaces of this machine.
    Netns,
    /// Runs commands from the host.
    Agent,
    /// Inserts the module and gives the only network card this node's address.
    ShellSetup {
        /// The node's number.
        node: u8,
    },
    /// Inserts the module, so that its KUnit suites run, and removes it.
    Kunit,
}

fn main() -> Result<()> {
    match Cli::parse() {
        Cli::List => {
            for run in scenarios::runs() {
                println!("{} {}", run.name(), run.scenario.limit.as_secs());
            }
            Ok(())
        }
        Cli::Netns => run::netns(),
        Cli::Agent => agent::serve(),
        Cli::ShellSetup { node } => agent::shell_setup(node),
        Cli::Kunit => run::kunit(),
    }
}
