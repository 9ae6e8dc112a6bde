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
network (tcp7) for all NIDs in it, or 'any'. For an address, the name of a host will do (oss2@tcp), and
for one of this node the name of a network device (eth0@tcp).

Everything acts on the network namespace that socklctl runs in. What changes or sends something
needs CAP_NET_ADMIN there.

Exit status: 0 done, 1 failed, 2 wrong command line.";

const AFTER_LONG_HELP: &str = "\
A NID names a node: an IP address and a network, such as 10.0.0.1@tcp or 10.0.0.1@tcp7. A PATTERN is
a NID, the name of a network (tcp7) for all NIDs in it, or 'any'. For an address, the name of a host
will do (oss2@tcp), and for one of this node the name of a network device (eth0@tcp).

Everything acts on the network namespace that socklctl runs in: 'ip netns exec NAME socklctl ...'
administers another one. What changes or sends something needs CAP_NET_ADMIN there.

With --json every command prints one JSON value; errors are JSON too, on the standard error output,
with the name of the error number if there is one.

Exit status: 0 done, 1 failed, 2 wrong command line.

First steps:
  socklctl ni add 10.0.0.1@tcp        give this node a NID: one of its own addresses
  socklctl ni add tcp --if eth0       or the one that this network device has
  socklctl ping 10.0.0.2@tcp          connects on demand, to the address in the NID
  socklctl peer add 10.0.0.3@tcp 192.168.5.3
                                      or to the address that you say
  socklctl route add tcp1 10.0.0.9@tcp
                                      and a whole network behind a gateway
  socklctl conn list                  what is connected, and how
  socklctl stats --watch              what goes over it
  socklctl export /etc/socklnd.yaml   keep all that, to be brought back
  socklctl import /etc/socklnd.yaml   after the next boot

lctl's and lnetctl's verbs (peer_list, list_nids, 'net show', ...) are understood too, with their
arguments, where they make sense here; of others it is said what does their work.";

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

    /// For lctl's verbs: only this network
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

    /// Say how this node behaves as a whole
    #[command(subcommand)]
    Set(SetCommand),

    /// Show how this node behaves as a whole
    #[command(subcommand)]
    Show(ShowCommand),

    /// Connections
    #[command(subcommand)]
    Conn(ConnCommand),

    /// Addresses that an NI uses beside that in its NID
    #[command(subcommand, visible_alias = "if")]
    Interface(InterfaceCommand),

    /// lnetctl: NIs by network and network device
    #[command(subcommand)]
    Net(NetCommand),

    /// Ask a node for its NIDs
    #[command(alias = "discover")]
    Ping(PingArgs),

    /// Move data to or from a node where 'socklctl serve' runs, and measure
    Bench(BenchArgs),

    /// Answer other nodes' bench, until interrupted
    Serve(ServeArgs),

    /// Counters of the local NIs, or what they gain in a second
    Stats(StatsArgs),

    /// Write this node's configuration to a file
    ///
    /// What was configured, and only that: NIs (with the addresses they use), peers (with the
    /// routes that were added, and how often), gateways to other networks, and whether this node is
    /// one. What the driver found by itself is left out. The same configuration always makes the same
    /// file.
    Export(ExportArgs),

    /// Configure this node from a file: one that 'export' has written, or one of Lustre's
    #[command(after_long_help = IMPORT_HELP)]
    Import(ImportArgs),

    /// Version of the module
    Version,

    /// Write manual pages or shell completions
    #[command(hide = true)]
    Generate(GenerateArgs),

    #[command(flatten)]
    Lctl(Lctl),
}

const IMPORT_HELP: &str = "\
The whole file is checked before anything is done about it, and all that is wrong with it is told.
Then the node gets what the file has and it lacks. What is there already, stays; so does what the
file doesn't mention, so importing a file twice is no more than importing it once. If something can't
be done after all, what was done before is undone.

With --keep-going, as for a node that boots and may lack a network device, what can be done is done,
and stays. The rest is told; the exit status is 1 if there is any.

The file:

  version: 1
  routing: true                       # optional: forward, as 'set routing on' says
  ni:
    - nid: 10.0.0.1@tcp
      addresses: [192.168.1.1/24]     # optional; those that 'interface add' adds
      peers:                          # optional
        - nid: 10.0.0.2@tcp
          routes:                     # optional: one, to the address in the NID
            - address: 10.0.0.2       # optional: the one in the NID
              port: 988               # optional: the acceptor's usual one
              shares: 1               # optional: how often it was added
      gateways:                       # optional; those that 'route add' adds
        - nid: 10.0.0.9@tcp
          network: tcp1
          priority: 0                 # optional

Files of Lustre's are read too, and what they have that means nothing here is told:
  lnetctl's YAML      net:, ip2nets:, route:, routing: and buffers:
  modprobe.d          'options lnet' with networks, ip2nets, routes, forwarding, accept and its like,
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
        /// The network device with the address that it is to have
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
    /// Starts an NI if there is none. If there is one with another NID, it is replaced, and
    /// its peers are forgotten; if the new one can't be started, the old one stays. If there are
    /// several, nothing is done.
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
    /// Say where a peer can be reached
    ///
    /// Not needed for a peer at the address that its NID names. Adding the same address again
    /// counts: it takes as many 'peer del --single' to take it back.
    Add {
        #[arg(value_parser = typed::nid)]
        nid: Nid,
        /// Address to connect to [default: the one in the NID]
        #[arg(value_parser = typed::address)]
        address: Option<IpAddr>,
        /// Port to connect to [default: the acceptor's usual one, 988]
        #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
        /// Local NI to reach it from [default: the one in the peer's network]
        #[arg(
            long,
            value_name = "PATTERN",
            value_parser = typed::local_pattern,
            default_value_t,
            hide_default_value = true
        )]
        ni: Pattern,
    },
    /// Forget peers, and close their connections
    ///
    /// Examples:
    ///   socklctl peer del 10.0.0.2@tcp               with all its addresses
    ///   socklctl peer del 10.0.0.2@tcp 192.168.5.2   only that address of it
    ///   socklctl peer del any 192.168.5.2            that address, whosever it is
    ///   socklctl peer del 10.0.0.2@tcp --single      take back one 'peer add'
    #[command(verbatim_doc_comment)]
    Del {
        #[arg(value_name = "PATTERN")]
        nid: Pattern,
        /// Only routes to this address
        #[arg(value_parser = typed::address)]
        address: Option<IpAddr>,
        /// Take back one addition only
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
    /// Say which node passes messages on towards another network
    ///
    /// Of several gateways to the same network, those that live and have the lowest priority number
    /// are used, in turn. A gateway is in a network of this node. These routes have nothing to do with
    /// the addresses of a peer, which 'peer add' adds.
    ///
    /// Example:
    ///   socklctl route add tcp1 10.0.0.9@tcp
    #[command(verbatim_doc_comment)]
    Add {
        /// The other network, like tcp1
        #[arg(value_parser = parse_network, required_unless_present = "net")]
        network: Option<u16>,
        /// The node that passes messages on
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
    /// Take routes back
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
    /// List routes, and how their gateways are
    ///
    /// A gateway is 'up', or 'down' from when it was lost until it is back, or 'set down' by 'route
    /// notify'.
    #[command(alias = "show")]
    List(ListArgs),
    /// Say that a gateway is to be used, or not
    ///
    /// A gateway that is said to be down loses its connections, and is not used until it is said to
    /// be up.
    Notify {
        /// The node that passes messages on
        #[arg(value_parser = typed::nid)]
        gateway: Nid,
        #[arg(value_enum, help = "Whether it is to be used")]
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

/// lnetctl's verbs for what are NIs here.
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
        /// lnetctl: tell more, which the JSON form does
        #[arg(short, long, hide = true)]
        verbose: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UpDown {
    /// It is to be used
    Up,
    /// It is not
    Down,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SetCommand {
    /// Whether this node is a gateway: passes on messages for others from one network to another
    ///
    /// Switched on, the node takes the memory for its forwarding buffers; switched off, it gives it
    /// back, and drops what is for others.
    Routing {
        #[arg(value_enum, help = "Whether it is one")]
        state: OnOff,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ShowCommand {
    /// Whether this node passes on messages for others, and how its forwarding buffers are
    Routing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// It does
    On,
    /// It does not
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
    /// Send what TCP holds back for a fuller segment
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
    /// For programs that accept or make connections themselves and start socklctl with the socket as
    /// one of its file descriptors, like inetd. The driver takes the connection when socklctl has ended
    /// and all other processes have closed the socket too. If one still has it open after accept_timeout, the
    /// driver does not take it, and the kernel log says so.
    ///
    /// Examples:
    ///   socklctl conn register --fd 0
    ///       the other node has made the connection, and will say what it is for
    ///   socklctl conn register --fd 3 --type control --peer 10.0.0.2@tcp
    ///       this node has made it
    #[command(verbatim_doc_comment)]
    Register {
        /// File descriptor of the socket
        #[arg(long)]
        fd: u16,
        /// Type of the connection, if this node has made it [default: what the other node says]
        #[arg(long, value_enum, requires = "peer")]
        r#type: Option<ConnType>,
        /// The node at the other end, if this node has made the connection
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
    /// Use one more address of this node
    ///
    /// Connections made from now on prefer the address that shares a subnet with the peer's.
    ///
    /// Examples:
    ///   socklctl interface add 192.168.1.1                 the kernel knows the subnet
    ///   socklctl interface add 192.168.1.1/24
    ///   socklctl interface add 192.168.1.1 255.255.255.0   as lctl has it
    #[command(verbatim_doc_comment)]
    Add {
        /// The address, and how many bits of it are the subnet's [default: as the device has it]
        #[arg(value_name = "ADDRESS[/BITS]", value_parser = typed::prefix)]
        address: Prefix,
        /// The subnet's mask instead
        #[arg(value_parser = parse_mask)]
        netmask: Option<u8>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Don't use an address any more, and close the connections from it
    Del {
        /// The address [default: all but those in NIDs]
        #[arg(value_parser = typed::local_address)]
        address: Option<IpAddr>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// List the addresses that are used
    #[command(alias = "show")]
    List(ListArgs),
}

/// What narrows a request down to some of the local NIs.
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

    /// Bytes a message, 1M at most
    #[arg(short, long, default_value = "1M", value_parser = parse_message_size)]
    pub(crate) size: u32,

    /// Messages in all
    #[arg(short, long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: u64,

    /// Messages at the same time; the node may allow fewer
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

    /// Of each peer, not of each NI
    #[arg(short, long, conflicts_with = "watch")]
    pub(crate) peers: bool,

    /// In the text format of OpenMetrics, for Prometheus's node exporter
    #[arg(short, long, conflicts_with = "watch")]
    pub(crate) openmetrics: bool,

    /// Go on until interrupted, and show what changes: once in every interval, per second
    ///
    /// On a terminal one picture, drawn anew; elsewhere a line for each NI (with --json, a
    /// value for each interval).
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
    /// The file, which is replaced as a whole; '-' is the standard output
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,

    /// lnetctl: only what was configured, as always here
    #[arg(long, hide = true)]
    pub(crate) backup: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The file; '-' is the standard input
    #[arg(default_value = "-", hide_default_value = true)]
    pub(crate) file: PathBuf,

    /// Only check the file, and tell what would be done
    #[arg(long)]
    pub(crate) check: bool,

    /// Do what can be done, and tell what could not be
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

/// Reads a time that may be waited for again and again.
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
        .ok_or_else(|| "a message has 1M at most".to_string())
}
