// SPDX-License-Identifier: GPL-2.0

//! The command line.

mod lctl;
#[cfg(test)]
mod tests;

pub(crate) use lctl::Lctl;

use crate::{
    address::{Networks, Pattern, Prefix, parse_mask, parse_network},
    repo::wire::Nid,
    typed::{self, NidOrNet},
    uapi,
    units::{parse_size, parse_time},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use std::{net::IpAddr, path::PathBuf, time::Duration};

const AFTER_HELP: &str = "\
A NID is an IP address and a network: 10.0.0.1@tcp, 10.0.0.1@tcp7. A PATTERN is a NID, the name of a
network (tcp7) for all NIDs in it, or 'any'. The name of a host (oss2@tcp) can be used in place of
its address, and that of a network device of this node (eth0@tcp) in place of the device's
address.

Each command acts on the network namespace that socklctl runs in. Commands that change or send
something need CAP_NET_ADMIN in it.

Exit status: 0 done, 1 failed, 2 wrong command line.";

const AFTER_LONG_HELP: &str = "\
A NID names a node: an IP address and a network, such as 10.0.0.1@tcp or 10.0.0.1@tcp7. A PATTERN is
a NID, the name of a network (tcp7) for all NIDs in it, or 'any'. The name of a host (oss2@tcp) can
be used in place of its address, and that of a network device of this node (eth0@tcp) in place of
the device's address.

Each command acts on the network namespace that socklctl runs in: 'ip netns exec NAME socklctl ...'
administers another one. Commands that change or send something need CAP_NET_ADMIN in it.

With --json every command prints one JSON value; errors are JSON too, on the standard error output,
with the name of the error number if there is one.

Exit status: 0 done, 1 failed, 2 wrong command line.

First steps:
  socklctl ni add 10.0.0.1@tcp        give this node a NID: one of its own addresses
  socklctl ni add tcp --if eth0       or the one that this network device has
  socklctl ping 10.0.0.2@tcp          connects on demand, to the address in the NID
  socklctl peer add 10.0.0.3@tcp 192.168.5.3
                                      or to the address that is given
  socklctl route add tcp1 10.0.0.9@tcp
                                      reaches another network through a gateway
  socklctl conn list                  lists the connections
  socklctl stats --watch              shows the traffic
  socklctl export /etc/socklnd.yaml   saves the configuration
  socklctl import /etc/socklnd.yaml   restores it, after the next boot

The commands of lctl and lnetctl (peer_list, list_nids, 'net show', ...) work too, with their
arguments, if they make sense for this driver. For the others, socklctl names the command to use instead.";

#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Print JSON, errors (on the standard error output) too
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// For lctl's commands: only this network
    #[arg(long, value_name = "NETWORK", hide = true, value_parser = parse_network)]
    pub(crate) net: Option<u16>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Local NIs: the NIDs of this node
    #[command(subcommand)]
    Ni(NiCommand),

    /// Peers, and the routes that lead to them
    #[command(subcommand)]
    Peer(PeerCommand),

    /// Routes to other networks, through gateways
    #[command(subcommand)]
    Route(RouteCommand),

    /// Change settings of the whole node
    #[command(subcommand)]
    Set(SetCommand),

    /// Show settings of the whole node
    #[command(subcommand)]
    Show(ShowCommand),

    /// Connections
    #[command(subcommand)]
    Conn(ConnCommand),

    /// Addresses that an NI uses, in addition to the one in its NID
    #[command(subcommand, visible_alias = "if")]
    Interface(InterfaceCommand),

    /// lnetctl: NIs by network and network device
    #[command(subcommand)]
    Net(NetCommand),

    /// Ask a node for its NIDs
    #[command(alias = "discover")]
    Ping(PingArgs),

    /// Measure throughput to or from a node on which 'socklctl serve' runs
    Bench(BenchArgs),

    /// Offer the service that 'socklctl bench' needs, until interrupted
    Serve(ServeArgs),

    /// Show the counters of the local NIs, or their rates
    Stats(StatsArgs),

    /// Write this node's configuration to a file
    ///
    /// The file has what was configured: NIs (with the addresses they use), peers (with the routes that
    /// were added, and how often), gateways to other networks, and whether this node forwards messages.
    /// Peers and routes that the driver discovered are left out. The same configuration always makes the
    /// same file.
    Export(ExportArgs),

    /// Configure this node from a file that 'export' has written, or from a configuration file of Lustre
    #[command(after_long_help = IMPORT_HELP)]
    Import(ImportArgs),

    /// Show the version of the module
    Version,

    /// Write manual pages or shell completions
    #[command(hide = true)]
    Generate(GenerateArgs),

    #[command(flatten)]
    Lctl(Lctl),
}

const IMPORT_HELP: &str = "\
The whole file is checked first, and all errors in it are reported. Then what the file has and the
node lacks is added. Nothing is removed or changed, so importing a file twice has the same effect as
importing it once. If a step fails, the steps before it are undone.

With --keep-going, all steps that work are done and kept, and the others are reported. This is for a
node that boots and may lack a network device. The exit status is 1 if a step failed.

The file:

  version: 1
  routing: true                       # optional: forward, as 'set routing on' says
  ni:
    - nid: 10.0.0.1@tcp
      addresses: [192.168.1.1/24]     # optional: those that 'interface add' adds
      peers:                          # optional
        - nid: 10.0.0.2@tcp
          routes:                     # optional: one route to the address in the NID
            - address: 10.0.0.2       # optional: the one in the NID
              port: 988               # optional: the default of 'peer add'
              shares: 1               # optional: how often it was added
      gateways:                       # optional: those that 'route add' adds
        - nid: 10.0.0.9@tcp
          network: tcp1
          priority: 0                 # optional

Configuration files of Lustre are read too; what does not apply to this driver is reported:
  lnetctl's YAML      net:, ip2nets:, route:, routing: and buffers:
  modprobe.d          'options lnet' with networks, ip2nets, routes, forwarding, accept and others,
                      and 'options ksocklnd'; parameters of the module are set if they can be changed
                      while it is loaded";

#[derive(Debug, Subcommand)]
pub(crate) enum NiCommand {
    /// Start an NI: give this node a NID and listen on its address
    ///
    /// Examples:
    ///   socklctl ni add 10.0.0.1@tcp
    ///   socklctl ni add eth0@tcp         the address that this network device has
    ///   socklctl ni add tcp --if eth0    the same
    #[command(verbatim_doc_comment)]
    Add {
        /// The NID, or its network
        #[arg(value_name = "NID|NETWORK")]
        nid: NidOrNet,
        /// The network device whose address the NI gets
        #[arg(long = "if", value_name = "DEVICE")]
        device: Option<String>,
    },
    /// Stop an NI, with all its peers and connections
    Del {
        #[arg(value_parser = typed::local_nid)]
        nid: Nid,
    },
    /// Give this node this NID and no other
    ///
    /// Starts an NI if there is none. If there is one with another NID, the new NI replaces it, and its
    /// peers are removed; if the new one can't be started, the old one stays. If there are several NIs,
    /// the command fails.
    Set {
        #[arg(value_parser = typed::local_nid)]
        nid: Nid,
    },
    /// List NIs
    #[command(alias = "show")]
    List(ListArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Add a peer, or an address of it
    ///
    /// This is not needed for a peer that has the address in its NID. Additions of the same address are
    /// counted: it needs as many 'peer del --single' to remove it.
    Add {
        #[arg(value_parser = typed::nid)]
        nid: Nid,
        /// Address to connect to [default: the one in the NID]
        #[arg(value_parser = typed::address)]
        address: Option<IpAddr>,
        /// Port to connect to [default: that of the parameter accept_port, 988]
        #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
        /// Local NI to connect from [default: the one in the peer's network]
        #[arg(
            long,
            value_name = "PATTERN",
            value_parser = typed::local_pattern,
            default_value_t,
            hide_default_value = true
        )]
        ni: Pattern,
    },
    /// Remove peers, and close their connections
    ///
    /// Examples:
    ///   socklctl peer del 10.0.0.2@tcp               with all its addresses
    ///   socklctl peer del 10.0.0.2@tcp 192.168.5.2   only that address of it
    ///   socklctl peer del any 192.168.5.2            that address of any peer
    ///   socklctl peer del 10.0.0.2@tcp --single      undo one 'peer add'
    #[command(verbatim_doc_comment)]
    Del {
        #[arg(value_name = "PATTERN")]
        nid: Pattern,
        /// Only routes to this address
        #[arg(value_parser = typed::address)]
        address: Option<IpAddr>,
        /// Undo one addition only
        #[arg(long, alias = "single-share")]
        single: bool,
        #[command(flatten)]
        list: ListArgs,
    },
    /// List peers and routes
    #[command(alias = "show")]
    List(ListArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Add a gateway to another network
    ///
    /// If there are several gateways to a network, those that are up and have the lowest priority
    /// number are used in turn. A gateway is in a network of this node. These routes are not the routes
    /// to a peer's addresses, which 'peer add' adds.
    ///
    /// Example:
    ///   socklctl route add tcp1 10.0.0.9@tcp
    #[command(verbatim_doc_comment)]
    Add {
        /// The other network, like tcp1
        #[arg(value_parser = parse_network, required_unless_present = "net")]
        network: Option<u16>,
        /// The gateway's NID
        #[arg(value_parser = typed::nid, required_unless_present = "via")]
        gateway: Option<Nid>,
        /// Routes with lower numbers are preferred
        #[arg(short, long, default_value_t = 0)]
        priority: u32,
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        lnetctl: RouteOptions,
    },
    /// Remove routes
    Del {
        /// The other network, or 'any'
        #[arg(required_unless_present = "net")]
        network: Option<Networks>,
        /// Only through gateways that match
        #[arg(value_name = "PATTERN", default_value_t, hide_default_value = true)]
        gateway: Pattern,
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        lnetctl: RouteOptions,
    },
    /// List routes and the state of their gateways
    ///
    /// A gateway is 'up', or 'down' if it is not reachable, or 'set down' if 'route notify' has set that.
    #[command(alias = "show")]
    List(ListArgs),
    /// Set the state of a gateway
    ///
    /// The connections to a gateway that is set down are closed, and it is not used until it is set up
    /// again.
    Notify {
        /// The gateway's NID
        #[arg(value_parser = typed::nid)]
        gateway: Nid,
        #[arg(value_enum, help = "The state")]
        state: UpDown,
        #[command(flatten)]
        list: ListArgs,
    },
}

/// What lnetctl has instead of arguments.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct RouteOptions {
    #[arg(long, hide = true, value_parser = parse_network, conflicts_with_all = ["network", "gateway"])]
    pub(crate) net: Option<u16>,
    #[arg(long = "gateway", hide = true, value_parser = typed::nid, requires = "net")]
    pub(crate) via: Option<Nid>,
    /// The number of hops, which has no effect.
    #[arg(long, hide = true, value_parser = clap::value_parser!(i32).range(-1..256), allow_hyphen_values = true)]
    pub(crate) hop: Option<i32>,
}

/// lnetctl's commands for NIs.
#[derive(Debug, Subcommand)]
pub(crate) enum NetCommand {
    /// Start NIs: like 'ni add', for each network device
    Add {
        /// The network
        #[arg(long, value_parser = parse_network)]
        net: u16,
        /// The network devices, with commas between them
        #[arg(
            long = "if",
            value_name = "DEVICES",
            value_delimiter = ',',
            required = true
        )]
        devices: Vec<String>,
    },
    /// Stop NIs: like 'ni del'
    Del {
        /// The network
        #[arg(long, value_parser = parse_network)]
        net: u16,
        /// Only those of these network devices [default: all in the network]
        #[arg(long = "if", value_name = "DEVICES", value_delimiter = ',')]
        devices: Vec<String>,
    },
    /// List NIs: like 'ni list'
    Show {
        /// Only this network
        #[arg(long, value_parser = parse_network)]
        net: Option<u16>,
        /// lnetctl: more output, which the JSON form has anyway
        #[arg(short, long, hide = true)]
        verbose: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UpDown {
    /// It may be used
    Up,
    /// It is not used
    Down,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SetCommand {
    /// Whether this node is a gateway: whether it forwards messages from one network to another
    ///
    /// 'on' allocates the forwarding buffers. 'off' frees them, and the node drops messages that are not
    /// for itself.
    Routing {
        #[arg(value_enum, help = "Whether it is a gateway")]
        state: OnOff,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ShowCommand {
    /// Whether this node forwards messages, and the state of its forwarding buffers
    Routing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// It is a gateway
    On,
    /// It is none
    Off,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnCommand {
    /// List connections
    List(ListArgs),
    /// Close connections; peers stay and may connect again
    Close {
        #[arg(value_name = "PATTERN")]
        nid: Pattern,
        /// Only connections to or from this address
        #[arg(value_parser = typed::address)]
        address: Option<IpAddr>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Make TCP send data that it holds back to fill a segment
    Push {
        #[arg(value_name = "PATTERN", default_value_t)]
        nid: Pattern,
        /// Only connections to or from this address
        #[arg(value_parser = typed::address)]
        address: Option<IpAddr>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Hand a connected socket over to the driver
    ///
    /// For programs that accept or open connections themselves and start socklctl with the socket as
    /// one of its file descriptors, like inetd. The driver takes the connection when socklctl has ended
    /// and all other processes have closed the socket too. If one still has it open after accept_timeout, the
    /// driver does not take it, and the kernel log says so.
    ///
    /// Examples:
    ///   socklctl conn register --fd 0
    ///       the other node has opened the connection; its HELLO says what type it has
    ///   socklctl conn register --fd 3 --type control --peer 10.0.0.2@tcp
    ///       this node has opened it
    #[command(verbatim_doc_comment)]
    Register {
        /// File descriptor of the socket
        #[arg(long)]
        fd: u16,
        /// Type of the connection, if this node has opened it [default: as the other node's HELLO says]
        #[arg(long, value_enum, requires = "peer")]
        r#type: Option<ConnType>,
        /// The node at the other end, if this node has opened the connection
        #[arg(long, value_name = "NID", value_parser = typed::nid, requires = "type")]
        peer: Option<Nid>,
        #[command(flatten)]
        list: ListArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum ConnType {
    /// Messages of every size, both ways
    Any,
    /// Small messages, both ways
    Control,
    /// Large messages from the peer to here
    BulkIn,
    /// Large messages from here to the peer
    BulkOut,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InterfaceCommand {
    /// Add an address of this node to an NI
    ///
    /// New connections prefer the address that is in one subnet with the peer's.
    ///
    /// Examples:
    ///   socklctl interface add 192.168.1.1                 the kernel knows the subnet
    ///   socklctl interface add 192.168.1.1/24
    ///   socklctl interface add 192.168.1.1 255.255.255.0   as lctl has it
    #[command(verbatim_doc_comment)]
    Add {
        /// The address, with the length of its prefix [default: as on the network device]
        #[arg(value_name = "ADDRESS[/BITS]", value_parser = typed::prefix)]
        address: Prefix,
        /// The netmask, instead of the length of the prefix
        #[arg(value_parser = parse_mask)]
        netmask: Option<u8>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Remove an address from an NI, and close the connections from it
    Del {
        /// The address [default: all but those in NIDs]
        #[arg(value_parser = typed::local_address)]
        address: Option<IpAddr>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// List the addresses of NIs
    #[command(alias = "show")]
    List(ListArgs),
}

/// Options that restrict a request to some of the local NIs.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct ListArgs {
    /// Only local NIs that match
    #[arg(
        long,
        value_name = "PATTERN",
        value_parser = typed::local_pattern,
        default_value_t,
        hide_default_value = true
    )]
    pub(crate) ni: Pattern,
}

#[derive(Args, Debug)]
pub(crate) struct PingArgs {
    #[arg(value_parser = typed::nid)]
    pub(crate) nid: Nid,

    /// The timeout, as lctl has it
    #[arg(value_parser = parse_time, hide = true, conflicts_with = "timeout")]
    pub(crate) lctl_timeout: Option<Duration>,

    /// Number of pings
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,

    /// How long to wait for an answer, in seconds (or like 200ms) [default: 10]
    #[arg(short = 'W', long, value_parser = parse_time)]
    pub(crate) timeout: Option<Duration>,

    /// Time between two pings, in seconds
    #[arg(short, long, default_value = "1", value_parser = parse_time)]
    pub(crate) interval: Duration,

    /// Local NI to send from [default: the one in the peer's network]
    #[arg(
        long,
        value_name = "PATTERN",
        value_parser = typed::local_pattern,
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
    #[arg(value_parser = typed::nid)]
    pub(crate) nid: Nid,

    /// Which way the data goes
    #[arg(long, value_enum, default_value = "put")]
    pub(crate) op: BenchOp,

    /// Bytes of a message, at most 1M
    #[arg(short, long, default_value = "1M", value_parser = parse_message_size)]
    pub(crate) size: u32,

    /// Number of messages
    #[arg(short, long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: u64,

    /// Messages in flight at the same time; the other node may allow fewer
    #[arg(
        short = 'f', long, default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(uapi::SOCKLND_BENCH_MAX_IN_FLIGHT)),
    )]
    pub(crate) in_flight: u32,

    /// Don't compare the received data with the sent data
    #[arg(long)]
    pub(crate) no_verify: bool,

    /// Timeout for all messages together, in seconds
    #[arg(short = 'W', long, default_value = "600", value_parser = parse_time)]
    pub(crate) timeout: Duration,

    /// Local NI to use [default: the one in the peer's network]
    #[arg(
        long,
        value_name = "PATTERN",
        value_parser = typed::local_pattern,
        default_value_t,
        hide_default_value = true
    )]
    pub(crate) ni: Pattern,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Only local NIs that match
    #[arg(
        long,
        value_name = "PATTERN",
        value_parser = typed::local_pattern,
        default_value_t,
        hide_default_value = true
    )]
    pub(crate) ni: Pattern,

    /// Write 'ready' to this file descriptor instead of the standard output
    #[arg(long, value_name = "FD")]
    pub(crate) ready_fd: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,

    /// Show the counters of each peer, not of each NI
    #[arg(short, long, conflicts_with = "watch")]
    pub(crate) peers: bool,

    /// Write the text format of OpenMetrics, for Prometheus's node exporter
    #[arg(short, long, conflicts_with = "watch")]
    pub(crate) openmetrics: bool,

    /// Show rates per second, once in each interval, until interrupted
    ///
    /// On a terminal, a table that is redrawn; elsewhere, a line for each NI (with --json, a value for
    /// each interval).
    #[arg(short, long)]
    pub(crate) watch: bool,

    /// How long an interval is, in seconds (or like 200ms)
    #[arg(
        short, long, default_value = "1", requires = "watch",
        value_parser = parse_interval,
    )]
    pub(crate) interval: Duration,

    /// End after this number of intervals
    #[arg(short, long, requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The file, which is replaced; '-' is the standard output
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,

    /// lnetctl: only what was configured, which is always so
    #[arg(long, hide = true)]
    pub(crate) backup: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The file; '-' is the standard input
    #[arg(default_value = "-", hide_default_value = true)]
    pub(crate) file: PathBuf,

    /// Only check the file, and print what would be done
    #[arg(long)]
    pub(crate) check: bool,

    /// Do all steps that work, and report the others
    #[arg(short, long)]
    pub(crate) keep_going: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct GenerateArgs {
    /// Write manual pages to this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) man: Option<PathBuf>,

    /// Write completions for bash, fish and zsh to this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) completions: Option<PathBuf>,
}

/// Reads the time between two lines of output.
fn parse_interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(10);
    parse_time(text)?
        .checked_sub(SHORTEST)
        .map(|rest| rest + SHORTEST)
        .ok_or_else(|| "shorter than 10ms".to_string())
}

/// Reads the size of a message.
fn parse_message_size(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    u32::try_from(size)
        .ok()
        .filter(|size| *size <= uapi::SOCKLND_BENCH_MAX_SIZE)
        .ok_or_else(|| "a message has at most 1M".to_string())
}
