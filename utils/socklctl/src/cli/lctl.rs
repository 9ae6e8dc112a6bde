// SPDX-License-Identifier: GPL-2.0

//! lctl's verbs, with lctl's arguments.

use crate::{
    address::{Pattern, parse_mask, parse_nid},
    repo::wire::Nid,
};
use clap::Subcommand;
use std::net::IpAddr;

#[derive(Debug, Subcommand)]
pub(crate) enum Lctl {
    /// lctl: print the NID of this node; with a NID, like 'ni set'
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
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
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

    /// lctl: like 'conn push'; without a NID, all connections
    #[command(name = "push")]
    Push {
        #[arg(default_value_t)]
        nid: Pattern,
    },

    /// lctl: like 'interface add'
    #[command(name = "add_interface")]
    AddInterface {
        address: IpAddr,
        /// The subnet's mask [default: as the device has it]
        #[arg(value_parser = parse_mask)]
        netmask: Option<u8>,
    },

    /// lctl: like 'interface del'; without an address, all
    #[command(name = "del_interface")]
    DelInterface { address: Option<IpAddr> },

    /// lctl: like 'interface list'
    #[command(name = "interface_list")]
    InterfaceList,
}
