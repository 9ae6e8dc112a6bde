// SPDX-License-Identifier: GPL-2.0

//! lctl's commands, with lctl's arguments.

use crate::{
    address::{Pattern, Prefix, parse_mask},
    repo::wire::Nid,
    typed,
};
use clap::Subcommand;
use std::net::IpAddr;

#[derive(Debug, Subcommand)]
pub(crate) enum Lctl {
    /// lctl: print the NID of this node; with a NID, like 'ni set'
    #[command(name = "mynid")]
    Mynid {
        #[arg(value_parser = typed::local_nid)]
        nid: Option<Nid>,
    },

    /// lctl: like 'peer add'
    #[command(name = "add_peer")]
    AddPeer {
        #[arg(value_parser = typed::nid)]
        nid: Nid,
        #[arg(value_parser = typed::address)]
        host: IpAddr,
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
    },

    /// lctl: like 'peer del'; without a NID, all peers
    #[command(name = "del_peer")]
    DelPeer {
        #[arg(default_value_t)]
        nid: Pattern,
        #[arg(value_parser = typed::address)]
        host: Option<IpAddr>,
        /// Undo one addition only
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
        #[arg(value_parser = typed::address)]
        host: Option<IpAddr>,
    },

    /// lctl: like 'conn push'; without a NID, all connections
    #[command(name = "push")]
    Push {
        #[arg(default_value_t)]
        nid: Pattern,
    },

    /// lctl: like 'interface add'
    #[command(name = "add_interface")]
    AddInterface {
        #[arg(value_parser = typed::prefix)]
        address: Prefix,
        /// The netmask [default: as on the network device]
        #[arg(value_parser = parse_mask)]
        netmask: Option<u8>,
    },

    /// lctl: like 'interface del'; without an address, all
    #[command(name = "del_interface")]
    DelInterface {
        #[arg(value_parser = typed::local_address)]
        address: Option<IpAddr>,
    },

    /// lctl: like 'interface list'
    #[command(name = "interface_list")]
    InterfaceList,

    /// lctl: print the NIDs of this node
    #[command(name = "list_nids")]
    ListNids {
        /// lctl: of all kinds of network; this driver has one
        #[arg(hide = true, value_parser = ["all"])]
        all: Option<String>,
    },

    /// lctl: print the first of these NIDs that this node can reach
    #[command(name = "which_nid")]
    WhichNid {
        /// The NIDs
        #[arg(required = true, value_parser = typed::nid)]
        nids: Vec<Nid>,
    },

    /// lctl: 'network down' stops all NIs
    #[command(name = "network")]
    Network {
        /// What to do
        #[arg(value_parser = ["up", "configure", "down", "unconfigure"])]
        what: String,
    },

    /// lctl: like 'route list'
    #[command(name = "route_list", alias = "show_route")]
    RouteList,
}
