// SPDX-License-Identifier: GPL-2.0

//! Verbs of lctl and lnetctl that are not understood here: what does their work instead.
//!
//! Looked at only when a command line was found to be wrong.

use std::ffi::OsString;

const PARAMETERS: &str = "parameters of the module are files in /sys/module/ksocklnd/parameters, and at boot \
                          'options ksocklnd NAME=VALUE' in modprobe.d";

/// The words that a command line begins with, and the answer. Those that say more come first.
const ANSWERS: &[(&[&str], &str)] = &[
    (
        &["lnet"],
        "there is no LNet to configure: 'modprobe ksocklnd' loads the driver, 'socklctl import FILE' gives it \
         what a file has, 'socklctl network down' stops all of it",
    ),
    (
        &["net", "add"],
        "it takes --net and --if; tunables are the module's: see /sys/module/ksocklnd/parameters",
    ),
    (&["net", "set"], PARAMETERS),
    (
        &["peer", "add"],
        "peers are found by their NIDs, and need not be added; 'socklctl peer add NID ADDRESS' says where one \
         is that is not at the address in its NID",
    ),
    (
        &["peer", "del"],
        "it is 'socklctl peer del NID', which closes its connections too",
    ),
    (
        &["peer", "show"],
        "'socklctl peer list' has all of them, 'socklctl ping NID' asks one for its NIDs",
    ),
    (
        &["peer"],
        "what LNet keeps of a peer is not here; 'socklctl peer list' and 'socklctl stats --peers' show what is",
    ),
    (
        &["routing"],
        "it is 'socklctl show routing' and 'socklctl set routing on'",
    ),
    (
        &["buffers"],
        "it is 'socklctl show routing'; their numbers are the module's parameters small_router_buffers and \
         large_router_buffers",
    ),
    (&["set"], PARAMETERS),
    (
        &["global"],
        "LNet's own settings are not here; 'socklctl show routing' says whether this node is a gateway, and \
         parameters of the module are in /sys/module/ksocklnd/parameters",
    ),
    (&["stats", "show"], "it is 'socklctl stats'"),
    (
        &["stats", "reset"],
        "counters are never reset; 'socklctl stats --watch' shows what they gain",
    ),
    (
        &["debug"],
        "it is 'socklctl peer list', and more is in /sys/kernel/debug/socklnd/stats",
    ),
    (
        &["import"],
        "an import only adds what is missing; 'socklctl import --check FILE' tells what, and 'socklctl network \
         down' before it makes the node begin anew",
    ),
    (
        &["discover"],
        "it is 'socklctl ping NID', which asks a node for its NIDs each time",
    ),
    (
        &["ping"],
        "it is 'socklctl ping NID', for one NID each time (see: socklctl ping --help)",
    ),
    (
        &["network"],
        "'socklctl network down' stops all interfaces; the network that lctl's other verbs are about goes \
         before them: 'socklctl --net tcp peer_list'",
    ),
    (&["add_route"], "it is 'socklctl route add NETWORK GATEWAY'"),
    (&["del_route"], "it is 'socklctl route del NETWORK GATEWAY'"),
    (
        &["set_route"],
        "it is 'socklctl route notify GATEWAY up' or 'down'",
    ),
    (&["get_param"], PARAMETERS),
    (&["set_param"], PARAMETERS),
    (&["list_param"], PARAMETERS),
    (
        &["active_tx"],
        "it is 'socklctl conn list', and more is in /sys/kernel/debug/socklnd/stats",
    ),
    (&["dk"], LOG),
    (&["debug_kernel"], LOG),
    (&["dl"], LUSTRE),
    (&["device_list"], LUSTRE),
    (&["numa"], NOTHING),
    (&["udsp"], NOTHING),
    (&["fault"], NOTHING),
    (&["cpt-of-nid"], NOTHING),
];

const LOG: &str = "the driver writes to the kernel's log (dmesg), and has tracepoints: see \
                   /sys/kernel/tracing/events/socklnd";
const LUSTRE: &str = "that is about Lustre's devices, of which the driver knows nothing";
const NOTHING: &str = "there is nothing of that kind in this driver";

/// What to answer to this wrong command line, if it is one of theirs.
pub(crate) fn find(args: &[OsString]) -> Option<String> {
    let mut words = args
        .iter()
        .skip(1)
        .map(|arg| arg.to_string_lossy())
        .peekable();
    // What may stand before the verb.
    while words.peek().is_some_and(|word| word.starts_with("--")) {
        if words.next().is_some_and(|word| word == "--net") {
            words.next();
        }
    }
    let words: Vec<_> = words.collect();
    let matches = |known: &[&str]| {
        known.len() <= words.len() && known.iter().zip(&words).all(|(known, word)| known == word)
    };
    let (known, answer) = ANSWERS.iter().find(|(known, _)| matches(known))?;
    Some(format!("{}: {answer}", known.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn answer(line: &str) -> Option<String> {
        let args: Vec<_> = ["socklctl"]
            .into_iter()
            .chain(line.split_whitespace())
            .map(OsString::from)
            .collect();
        // There is an answer to a wrong command line only.
        Cli::try_parse_from(&args).err().and_then(|_| find(&args))
    }

    #[test]
    fn their_verbs_are_answered() {
        for (line, sign) in [
            ("lnet configure --all", "socklctl import"),
            ("net set --net tcp --all", "/sys/module"),
            ("net add --net tcp --if eth0 --peer-credits 8", "--if"),
            ("peer add --prim_nid 10.0.0.2@tcp", "peer add NID ADDRESS"),
            ("peer show --nid 10.0.0.2@tcp -v", "socklctl peer list"),
            ("peer set --health 1000", "socklctl stats --peers"),
            ("routing show", "socklctl show routing"),
            ("set discovery 0", "/sys/module"),
            ("global show", "socklctl show routing"),
            ("stats show", "socklctl stats"),
            ("import --del x.yaml", "only adds"),
            ("discover --force 10.0.0.2@tcp", "socklctl ping NID"),
            ("network tcp", "--net tcp peer_list"),
            ("--net tcp add_route 10.0.0.9@tcp", "socklctl route add"),
            ("--json get_param debug", "/sys/module"),
            ("numa show", "nothing of that kind"),
        ] {
            let answer = answer(line).expect(line);
            assert!(answer.contains(sign), "{line}: {answer}");
        }
        for line in ["", "frobnicate", "ni add", "network down", "stats", "--net"] {
            assert_eq!(answer(line), None, "{line}");
        }
    }
}
