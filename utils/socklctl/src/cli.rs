// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::{
    address::{Pattern, parse_nid},
    repo::wire::Nid,
    uapi,
    units::{parse_size, parse_time},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use std::{net::IpAddr, time::Duration};

const AFTER_HELP: &str = "\
A NID is an IP address and a network: 10.0.0.1@tcp, 10.0.0.1@tcp7. A PATTERN is a NID, the name of a
network (tcp7) for all NIDs in it, or 'any'.

Everything acts on the network namespace that socklctl runs in. What changes or sends something
needs CAP_NET_ADMIN there.

Exit status: 0 done, 1 failed, 2 wrong command line.";

#[derive(Debug, Parser)]
#[command(version, about, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print JSON, errors (on the standard error output) too
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Local interfaces: the NIDs of this node
    #[command(subcommand)]
    Ni(NiCommand),

    /// Peers, and the routes that lead to them
    #[command(subcommand)]
    Peer(PeerCommand),

    /// Connections
    #[command(subcommand)]
    Conn(ConnCommand),

    /// Ask a node who it is
    Ping(PingArgs),

    /// Move data to or from a node where 'socklctl serve' runs, and measure
    Bench(BenchArgs),

    /// Answer other nodes' bench, until interrupted
    Serve(ServeArgs),

    /// Counters of the local interfaces
    Stats(ListArgs),

    /// Version of the module
    Version,

    // lctl's verbs, with lctl's arguments.
    /// lctl: print the NID of this node, or set it
    #[command(name = "mynid")]
    Mynid {
        #[arg(value_parser = parse_nid)]
        nid: Option<Nid>,
    },

    /// lctl: like 'peer add'
    #[command(name = "add_peer")]
    AddPeer {
        #[arg(value_parser = parse_nid)]
        nid: Nid,
        host: IpAddr,
        port: u16,
    },

    /// lctl: like 'peer del'; without a NID, all peers
    #[command(name = "del_peer")]
    DelPeer {
        #[arg(default_value_t)]
        nid: Pattern,
        host: Option<IpAddr>,
        /// Take back one addition only
        #[arg(value_parser = ["single_share"])]
        single_share: Option<String>,
    },

    /// lctl: like 'peer list'
    #[command(name = "peer_list")]
    PeerList,

    /// lctl: like 'conn list'
    #[command(name = "conn_list")]
    ConnList,

    /// lctl: like 'conn close'; without a NID, all connections
    #[command(name = "disconnect")]
    Disconnect {
        #[arg(default_value_t)]
        nid: Pattern,
        host: Option<IpAddr>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NiCommand {
    /// Start an interface: give this node a NID and listen on its address
    Add {
        #[arg(value_parser = parse_nid)]
        nid: Nid,
    },
    /// Stop an interface, with all its peers and connections
    Del {
        #[arg(value_parser = parse_nid)]
        nid: Nid,
    },
    /// List interfaces
    List(ListArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Say where a peer can be reached
    Add {
        #[arg(value_parser = parse_nid)]
        nid: Nid,
        /// Address to connect to [default: the one in the NID]
        address: Option<IpAddr>,
        /// Port to connect to [default: the acceptor's usual one, 988]
        #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
        /// Local interface to reach it from [default: the one in the peer's network]
        #[arg(
            long,
            value_name = "PATTERN",
            default_value_t,
            hide_default_value = true
        )]
        ni: Pattern,
    },
    /// Forget peers, and close their connections
    Del {
        #[arg(value_name = "PATTERN")]
        nid: Pattern,
        /// Only routes to this address
        address: Option<IpAddr>,
        /// Take back one addition only
        #[arg(long)]
        single: bool,
        #[command(flatten)]
        list: ListArgs,
    },
    /// List peers and routes
    List(ListArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnCommand {
    /// List connections
    List(ListArgs),
    /// Close connections; peers stay and may connect again
    Close {
        #[arg(value_name = "PATTERN")]
        nid: Pattern,
        /// Only connections to this address
        address: Option<IpAddr>,
        #[command(flatten)]
        list: ListArgs,
    },
}

/// What narrows a request down to some of the local interfaces.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct ListArgs {
    /// Only local interfaces that match
    #[arg(
        long,
        value_name = "PATTERN",
        default_value_t,
        hide_default_value = true
    )]
    pub(crate) ni: Pattern,
}

#[derive(Args, Debug)]
pub(crate) struct PingArgs {
    #[arg(value_parser = parse_nid)]
    pub(crate) nid: Nid,

    /// lctl's place for the timeout
    #[arg(value_parser = parse_time, hide = true, conflicts_with = "timeout")]
    pub(crate) lctl_timeout: Option<Duration>,

    /// How many times
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,

    /// How long to wait for an answer, in seconds (or like 200ms) [default: 10]
    #[arg(short = 'W', long, value_parser = parse_time)]
    pub(crate) timeout: Option<Duration>,

    /// How long to wait between two, in seconds
    #[arg(short, long, default_value = "1", value_parser = parse_time)]
    pub(crate) interval: Duration,

    /// Local interface to send from [default: the one in the peer's network]
    #[arg(
        long,
        value_name = "PATTERN",
        default_value_t,
        hide_default_value = true
    )]
    pub(crate) ni: Pattern,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BenchOp {
    /// From here to the peer
    Put,
    /// From the peer to here
    Get,
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[arg(value_parser = parse_nid)]
    pub(crate) nid: Nid,

    #[arg(long, value_enum, default_value = "put")]
    pub(crate) op: BenchOp,

    /// Bytes a message, 1M at most
    #[arg(short, long, default_value = "1M", value_parser = parse_message_size)]
    pub(crate) size: u32,

    /// Messages in all
    #[arg(short, long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: u64,

    /// Messages under way at the same time; the node may allow fewer
    #[arg(
        short = 'f', long, default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(uapi::SOCKLND_BENCH_MAX_IN_FLIGHT)),
    )]
    pub(crate) in_flight: u32,

    /// Don't compare what arrived with what was sent
    #[arg(long)]
    pub(crate) no_verify: bool,

    /// How long all of it may take, in seconds
    #[arg(short = 'W', long, default_value = "600", value_parser = parse_time)]
    pub(crate) timeout: Duration,

    /// Local interface to use [default: the one in the peer's network]
    #[arg(
        long,
        value_name = "PATTERN",
        default_value_t,
        hide_default_value = true
    )]
    pub(crate) ni: Pattern,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Only local interfaces that match
    #[arg(
        long,
        value_name = "PATTERN",
        default_value_t,
        hide_default_value = true
    )]
    pub(crate) ni: Pattern,

    /// Write 'ready' to this file descriptor instead of the standard output
    #[arg(long, value_name = "FD")]
    pub(crate) ready_fd: Option<u32>,
}

/// Reads the size of a message.
fn parse_message_size(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    u32::try_from(size)
        .ok()
        .filter(|size| *size <= uapi::SOCKLND_BENCH_MAX_SIZE)
        .ok_or_else(|| "a message has 1M at most".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, error::ErrorKind};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("socklctl").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        for line in [
            "ni add 10.0.0.1@tcp",
            "ni del 10.0.0.1@tcp7",
            "ni list",
            "ni list --json",
            "--json ni list",
            "peer add 10.0.0.2@tcp",
            "peer add 10.0.0.2@tcp 192.168.1.2 --port 7988 --ni 10.0.0.1@tcp",
            "peer del 10.0.0.2@tcp",
            "peer del 10.0.0.2@tcp 192.168.1.2 --single",
            "peer del any --ni tcp7",
            "peer list --ni tcp7",
            "conn list",
            "conn close any",
            "conn close 10.0.0.2@tcp 192.168.1.2",
            "ping 10.0.0.2@tcp -c 3 -W 0.5 -i 200ms",
            "bench 10.0.0.2@tcp --op get --size 4k --count 10 --in-flight 1 --no-verify",
            "serve --ready-fd 3",
            "stats --json",
            "version",
            "mynid",
            "mynid 10.0.0.1@tcp",
            "add_peer 10.0.0.2@tcp 10.0.0.2 988",
            "del_peer",
            "del_peer 10.0.0.2@tcp 10.0.0.2 single_share",
            "peer_list",
            "conn_list",
            "disconnect",
            "disconnect 10.0.0.2@tcp",
            "ping 10.0.0.2@tcp 5",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn wrong_command_lines_end_with_status_2() {
        for line in [
            "",
            "ni",
            "ni add",
            "ni add 10.0.0.1",
            "ni add any",
            "peer add tcp",
            "peer add 10.0.0.2@tcp --port 0",
            "peer add 10.0.0.2@tcp --port 65536",
            "peer del",
            "conn close",
            "ping 10.0.0.2@tcp -c 0",
            "ping 10.0.0.2@tcp 5 -W 5",
            "bench 10.0.0.2@tcp --op push",
            "bench 10.0.0.2@tcp --size 1048577",
            "bench 10.0.0.2@tcp --size 4G",
            "bench 10.0.0.2@tcp --count 0",
            "bench 10.0.0.2@tcp --in-flight 0",
            "bench 10.0.0.2@tcp --in-flight 257",
            "del_peer 10.0.0.2@tcp 10.0.0.2 twice",
            "frobnicate",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_is_no_error() {
        let error = parse("--help").unwrap_err();
        assert_eq!(
            (error.kind(), error.exit_code()),
            (ErrorKind::DisplayHelp, 0)
        );
    }
}
