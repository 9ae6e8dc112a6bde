// SPDX-License-Identifier: GPL-2.0

//! The list of scenarios.

mod admin;
mod asked;
mod attempts;
mod basic;
mod boundary;
mod bystander;
mod configuration;
mod connect;
mod conns;
mod discovery;
mod ends;
mod finding_back;
mod gateway;
mod hooks;
mod hostile;
mod interfaces;
mod ipv6;
mod links;
mod lnet;
mod many_conns;
mod memory;
mod processors;
mod reaper;
mod refusals;
mod register;
mod simultaneous;
mod sockmap;
mod storm;
mod told;
mod trace;
mod traffic;
mod tunables;
mod unload;
mod versions;
mod wrong_versions;
mod zero_copy;

use std::time::Duration;

use anyhow::Result;

use crate::family::Family;
use crate::lab::Lab;
use crate::module::Flavour;

/// One thing to try: in namespaces of its own, with the module freshly inserted.
pub struct Scenario {
    /// Its name, as `--filter` knows it.
    pub name: &'static str,
    /// How many nodes it has.
    pub nodes: usize,
    /// How long it may take on the slowest machine that tests run on.
    pub limit: Duration,
    /// What it does. What is left behind afterwards is looked at by the caller.
    pub run: fn(&mut Lab) -> Result<()>,
    /// What the module is built for that is inserted.
    pub flavour: Flavour,
    /// Why it is not run over IPv6, if it isn't.
    ipv4_only: Option<&'static str>,
}

impl Scenario {
    /// One that is run over IPv4 alone, because of this.
    const fn ipv4_only(self, reason: &'static str) -> Scenario {
        Scenario {
            ipv4_only: Some(reason),
            ..self
        }
    }

    /// One for the module under LNet, whose part the shim plays.
    const fn lnet(self) -> Scenario {
        Scenario {
            flavour: Flavour::Lnet,
            ..self
        }
    }
}

const fn scenario(
    name: &'static str,
    nodes: usize,
    seconds: u64,
    run: fn(&mut Lab) -> Result<()>,
) -> Scenario {
    Scenario {
        name,
        nodes,
        limit: Duration::from_secs(seconds),
        run,
        flavour: Flavour::Standalone,
        ipv4_only: None,
    }
}

/// A scenario over one of the families.
pub struct Run {
    /// Which one.
    pub scenario: &'static Scenario,
    /// Over what.
    pub family: Family,
}

impl Run {
    /// Its name: over IPv4 the scenario's, over IPv6 that with an ending.
    pub fn name(&self) -> String {
        match self.family {
            Family::V4 => self.scenario.name.to_owned(),
            Family::V6 => format!("{}_ipv6", self.scenario.name),
        }
    }
}

/// All that there is to run: every scenario over IPv4, and then over IPv6, if that is something else.
pub fn runs() -> impl Iterator<Item = Run> {
    [Family::V4, Family::V6].into_iter().flat_map(|family| {
        let scenarios = ALL.iter();
        let there =
            move |scenario: &&Scenario| family == Family::V4 || scenario.ipv4_only.is_none();
        scenarios
            .filter(there)
            .map(move |scenario| Run { scenario, family })
    })
}

// Why some are run over IPv4 alone.
const IPV6_ITSELF: &str = "it has addresses of IPv6 of its own";
const NO_NODES: &str = "it has no nodes";
const SHIM: &str = "what it tries does not depend on the family";
const FILES_OF_IPV4: &str = "it is about files that know the patterns of IPv4 alone";
const OLD_FORMAT: &str = "it is about the format of a version that IPv6 has not";
const SEVERAL_VERSIONS: &str = "IPv6 has version 4 alone, and this is about the choice";

/// All of them, the simple ones first.
pub const ALL: &[Scenario] = &[
    scenario("ping_both_ways", 2, 30, basic::ping_both_ways),
    scenario("ping_unreachable", 2, 90, basic::ping_unreachable),
    scenario("ping_nobody_listens", 2, 30, basic::ping_nobody_listens),
    scenario("ping_scripted_peer", 2, 30, basic::ping_scripted_peer),
    scenario("interface_errors", 1, 30, admin::interface_errors),
    scenario("ioctl_abuse", 2, 90, admin::ioctl_abuse),
    scenario("no_capability", 2, 30, admin::no_capability),
    scenario("idle", 2, 60, admin::idle),
    scenario("shares", 1, 60, configuration::shares),
    scenario("wildcards", 4, 60, configuration::wildcards),
    scenario("push", 2, 60, configuration::push),
    scenario("set_nid", 2, 60, configuration::set_nid),
    scenario(
        "interface_commands",
        1,
        90,
        configuration::interface_commands,
    ),
    scenario("export_import", 2, 90, configuration::export_import),
    scenario("failed_import", 2, 60, configuration::failed_import),
    scenario("foreign_files", 2, 90, configuration::foreign_files).ipv4_only(FILES_OF_IPV4),
    scenario("steady_lists", 1, 120, configuration::steady_lists),
    scenario("watch_counters", 2, 60, configuration::watch_counters),
    scenario("routes", 3, 60, gateway::routes_come_and_go),
    scenario("forwarding", 6, 180, gateway::across),
    scenario("forwarding_refused", 3, 60, gateway::refused),
    scenario("foreign_networks", 3, 90, gateway::foreign_networks),
    scenario("forwarding_stuck_receiver", 8, 300, gateway::stuck_receiver),
    scenario("forwarding_dying_conns", 3, 90, gateway::dying_conns),
    scenario("forwarding_long_wait", 3, 120, gateway::long_wait),
    scenario(
        "forwarding_held_by_few_bytes",
        4,
        240,
        gateway::held_by_few_bytes,
    ),
    scenario("forwarding_switched_off", 3, 120, gateway::switched_off),
    scenario("forwarding_gateway_lost", 6, 240, gateway::lost),
    scenario("forwarding_losses", 6, 400, gateway::thirty_losses),
    scenario(
        "forwarding_thousand_losses",
        6,
        7200,
        gateway::thousand_losses,
    ),
    scenario("forwarding_unload", 3, 240, gateway::unload),
    scenario("register_accepted", 2, 60, register::accepted),
    scenario("register_made", 2, 60, register::made),
    scenario("register_silent", 2, 60, register::silent),
    scenario("register_wrong", 2, 60, register::wrong),
    scenario("register_and_keep", 3, 120, register::kept_open),
    scenario("register_lingering", 2, 120, register::lingering),
    scenario("sockmap", 3, 120, sockmap::sockmap),
    scenario("tunable_ranges", 0, 60, tunables::ranges).ipv4_only(NO_NODES),
    scenario("module_parameters", 0, 60, tunables::insertion).ipv4_only(NO_NODES),
    scenario("living_tunables", 2, 120, tunables::living),
    scenario("eager_ack", 2, 60, tunables::eager_ack),
    scenario("simultaneous_connect", 2, 180, connect::simultaneous),
    scenario(
        "simultaneous_in_all_versions",
        2,
        300,
        simultaneous::in_all_versions,
    ),
    scenario(
        "simultaneous_very_often",
        2,
        10_800,
        simultaneous::very_often,
    ),
    scenario("interfaces", 1, 60, interfaces::administration),
    scenario("learned_routes", 2, 120, interfaces::learned_routes)
        .ipv4_only("addresses are told by version 1.0 alone"),
    scenario("own_addresses", 2, 90, interfaces::own_addresses),
    scenario(
        "addresses_come_and_go",
        2,
        120,
        interfaces::addresses_come_and_go,
    ),
    scenario(
        "address_lost_in_handshake",
        2,
        120,
        interfaces::address_lost_in_handshake,
    ),
    scenario(
        "destroyed_listeners",
        2,
        120,
        interfaces::destroyed_listeners,
    ),
    scenario("two_networks", 2, 180, interfaces::two_networks),
    scenario("links", 2, 120, links::state),
    scenario("test_layer", 2, 600, boundary::test_layer).ipv4_only(SEVERAL_VERSIONS),
    scenario("two_devices", 2, 120, links::two_devices),
    scenario("nis_come_and_go", 2, 240, links::nis_come_and_go),
    scenario("first_messages", 2, 120, connect::first_messages),
    scenario("peer_restarts", 2, 120, connect::peer_restarts),
    scenario("half_open", 2, 120, connect::half_open),
    scenario("refusing_peer", 2, 60, connect::refusing_peer),
    scenario("silent_listener", 2, 60, connect::silent_listener),
    scenario("incarnations", 2, 60, attempts::incarnations),
    scenario("closing_peer", 2, 60, attempts::closing_peer),
    scenario(
        "deleted_while_waiting",
        2,
        60,
        attempts::deleted_while_waiting,
    ),
    scenario(
        "hello_during_backoff",
        2,
        90,
        attempts::hello_during_backoff,
    ),
    scenario("taken_ports", 2, 60, attempts::taken_ports),
    scenario("unanswered_attempt", 2, 60, attempts::unanswered),
    scenario(
        "closed_after_accept",
        2,
        90,
        finding_back::closed_after_accept,
    ),
    scenario("unneeded_attempts", 2, 90, finding_back::unneeded_attempts),
    scenario("lost_answers", 2, 180, finding_back::lost_answers),
    scenario("all_addresses", 2, 180, finding_back::all_addresses),
    scenario("peer_crashes", 2, 180, finding_back::peer_crashes),
    scenario("earlier_clock", 2, 240, finding_back::earlier_clock),
    scenario("dead_peers", 2, 180, connect::dead_peers),
    scenario("conns_per_peer", 2, 240, many_conns::agreed),
    scenario("conns_per_peer_ranges", 2, 60, many_conns::numbers),
    scenario("conns_cut_at_random", 3, 300, many_conns::cut_at_random),
    scenario("conns_per_peer_scripted", 2, 90, many_conns::scripted),
    scenario("mutual_connects", 6, 240, connect::mutual_connects),
    scenario("reconnects", 2, 3600, connect::reconnects),
    scenario("closed_at_once", 2, 90, ends::closed_at_once),
    scenario("dropped_zero_copy", 2, 90, ends::dropped_zero_copy),
    scenario("zero_copy_never_freed", 5, 240, ends::zero_copy_never_freed),
    scenario("limit_of_bulk", 2, 120, conns::limit_of_bulk),
    scenario("last_alive", 2, 90, conns::last_alive),
    scenario("keepalive", 2, 60, conns::keepalive),
    scenario("nagle", 2, 60, conns::nagle),
    scenario(
        "dead_peer_while_sending",
        2,
        60,
        conns::dead_peer_while_sending,
    ),
    scenario(
        "closed_while_unreachable",
        2,
        60,
        conns::closed_while_unreachable,
    ),
    scenario("fair_turns", 3, 60, conns::fair_turns),
    scenario("messages", 2, 900, traffic::messages),
    scenario("too_long_message", 2, 30, traffic::too_long),
    scenario("bad_network", 2, 180, traffic::bad_network),
    scenario("tiny_buffers", 2, 240, traffic::tiny_buffers),
    scenario("cable_pulled_and_plugged", 2, 240, traffic::cable_pulled),
    scenario("ipv6_basic", 2, 180, ipv6::basic).ipv4_only(IPV6_ITSELF),
    scenario("ipv6_addresses", 2, 240, ipv6::addresses).ipv4_only(IPV6_ITSELF),
    scenario("ipv6_pinned_versions", 2, 120, ipv6::pinned_versions).ipv4_only(IPV6_ITSELF),
    scenario("ipv6_strangers", 2, 180, ipv6::strangers).ipv4_only(IPV6_ITSELF),
    scenario("ipv6_gateway", 3, 240, ipv6::gateway).ipv4_only(IPV6_ITSELF),
    scenario("zero_copy", 2, 400, zero_copy::verified),
    scenario("zero_copy_cut", 2, 240, zero_copy::cut),
    scenario("zero_copy_unload", 2, 240, zero_copy::unload),
    scenario("zero_copy_acks", 2, 300, asked::real_nodes),
    scenario("zero_copy_ack_forms", 2, 120, asked::forms),
    scenario("zero_copy_wrong_acks", 3, 300, asked::wrong_forms),
    scenario("zero_copy_missing_acks", 2, 240, asked::missing),
    scenario("acks_past_stuck_bulk", 2, 180, asked::past_stuck_bulk),
    scenario("zero_copy_early_acks", 2, 180, asked::too_early),
    scenario("acks_after_restart", 2, 240, told::acks_after_restart),
    scenario("gaps_between_cookies", 2, 120, told::gaps),
    scenario("counted_once", 2, 180, told::counted_once),
    scenario("ten_nodes", 10, 180, traffic::ten_nodes),
    scenario("current_active", 2, 240, versions::active),
    scenario("current_passive", 2, 120, versions::passive),
    scenario("discovery", 2, 120, discovery::discovery)
        .ipv4_only("what is expected is from captures, which have IPv4 alone"),
    scenario("older_peers", 2, 120, versions::older_peers).ipv4_only(SEVERAL_VERSIONS),
    scenario("changing_versions", 2, 60, versions::changing_versions),
    scenario("acknowledgements", 2, 120, versions::acknowledgements),
    scenario("checksums", 2, 60, versions::checksums).ipv4_only(OLD_FORMAT),
    scenario("keepalive_messages", 2, 120, versions::keepalive_messages),
    scenario("mixed_versions", 2, 300, versions::mixed).ipv4_only(SEVERAL_VERSIONS),
    scenario("wrong_current_hellos", 3, 180, wrong_versions::hellos),
    scenario("wrong_current_answers", 3, 240, wrong_versions::answers),
    scenario("wrong_current_messages", 3, 180, wrong_versions::messages),
    scenario("byte_by_byte", 2, 60, hostile::byte_by_byte),
    scenario("foreign_versions", 2, 60, hostile::foreign_versions),
    scenario("wrong_requests", 3, 180, hostile::wrong_requests),
    scenario("wrong_hellos", 3, 180, hostile::wrong_hellos).ipv4_only(OLD_FORMAT),
    scenario("wrong_messages", 3, 180, hostile::wrong_messages),
    scenario("unprivileged_port", 2, 30, hostile::unprivileged_port),
    scenario("refused_in_the_log", 2, 240, refusals::in_the_log),
    scenario("second_address", 2, 90, refusals::second_address),
    scenario("strangers", 2, 120, refusals::strangers),
    scenario("called_back", 2, 120, refusals::called_back),
    scenario("cut_off", 3, 120, hostile::cut_off),
    scenario("slow_loris", 4, 120, hostile::slow_loris),
    scenario("dribbling_handshake", 2, 60, hostile::dribbling_handshake),
    scenario("no_memory_inserting", 0, 900, memory::inserting).ipv4_only(NO_NODES),
    scenario("no_memory_connecting", 2, 600, memory::connecting),
    scenario("no_memory_in_transfer", 2, 900, memory::in_transfer),
    scenario("no_memory_once", 2, 900, memory::between_two),
    scenario("no_memory_once_at_gateway", 3, 900, memory::across_gateway),
    scenario("no_memory_to_send", 2, 180, hooks::no_memory),
    scenario("no_memory_to_accept", 2, 60, hooks::no_memory_to_accept),
    scenario("unsent_acks", 2, 90, hooks::unsent_acks),
    scenario("stalled_peer", 2, 180, hooks::stalled_peer),
    scenario("stalled_reader", 2, 90, hooks::stalled_reader),
    scenario("stalled_sender", 2, 90, hooks::stalled_sender),
    scenario("idle_peers", 2, 180, reaper::idle_peers),
    scenario("forgotten_peers", 2, 120, reaper::forgotten_peers),
    scenario("statistics", 2, 120, hooks::statistics),
    scenario("tracepoints", 2, 120, trace::tracepoints),
    scenario("unload_in_transfer", 4, 900, unload::in_transfer),
    scenario("unload_200_times", 4, 3600, unload::two_hundred_times),
    scenario("unload_in_handshake", 3, 120, unload::in_handshake),
    scenario("flood_of_connections", 3, 240, storm::flood).ipv4_only("it makes packets by hand"),
    scenario("processors", 2, 300, processors::come_and_go),
    scenario("peers_during_shutdown", 4, 240, storm::during_shutdown),
    scenario("namespace_deleted", 4, 180, unload::namespace_deleted),
    scenario("lnet_traffic", 2, 240, lnet::traffic)
        .lnet()
        .ipv4_only(SHIM),
    scenario("lnet_other_modules", 1, 60, lnet::other_modules)
        .lnet()
        .ipv4_only(SHIM),
    scenario("lnet_contexts", 2, 240, lnet::contexts)
        .lnet()
        .ipv4_only(SHIM),
    scenario("lnet_administration", 2, 120, lnet::administration)
        .lnet()
        .ipv4_only(SHIM),
    scenario("lnet_late_receives", 2, 180, lnet::late_receives)
        .lnet()
        .ipv4_only(SHIM),
    scenario("lnet_losses", 3, 300, lnet::losses)
        .lnet()
        .ipv4_only(SHIM),
    scenario("lnet_routers", 3, 180, lnet::routers)
        .lnet()
        .ipv4_only(SHIM),
    scenario("lnet_acceptor", 2, 120, lnet::acceptor)
        .lnet()
        .ipv4_only(SHIM),
    scenario("lnet_flavours", 2, 120, lnet::flavours)
        .lnet()
        .ipv4_only(SHIM),
    scenario("lnet_hung_peer", 2, 180, lnet::hung_peer)
        .lnet()
        .ipv4_only(SHIM),
];
