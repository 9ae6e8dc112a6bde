// SPDX-License-Identifier: GPL-2.0

//! Commands of lctl and lnetctl that socklctl does not have, and the command to use instead of each.
//!
//! Searched only if the command line could not be parsed.

use std::ffi::OsString;

const PARAMETERS: &str = "parameters of the module are files in /sys/module/ksocklnd/parameters, and at boot \
                          'options ksocklnd NAME=VALUE' in modprobe.d";

/// The first words of a command line, and the answer. Longer ones come before those that begin with the same
/// words.
const ANSWERS: &[(&[&str], &str)] = &[
    (
        &["lnet"],
        "there is no LNet to configure: 'modprobe ksocklnd' loads the driver, 'socklctl import FILE' configures \
         it from a file, 'socklctl network down' stops all NIs",
    ),
    (
        &["net", "add"],
        "it has the options --net and --if only; tunables are parameters of the module, in \
         /sys/module/ksocklnd/parameters",
    ),
    (&["net", "set"], PARAMETERS),
    (
        &["peer", "add"],
        "peers need not be added if they have the address in their NID; 'socklctl peer add NID ADDRESS' adds \
         another address",
    ),
    (
        &["peer", "del"],
        "use 'socklctl peer del NID', which closes its connections too",
    ),
    (
        &["peer", "show"],
        "'socklctl peer list' lists all of them, 'socklctl ping NID' asks one for its NIDs",
    ),
    (
        &["peer"],
        "this driver has nothing like it; 'socklctl peer list' and 'socklctl stats --peers' show its peers",
    ),
    (
        &["routing"],
        "use 'socklctl show routing' and 'socklctl set routing on'",
    ),
    (
        &["buffers"],
        "use 'socklctl show routing'; their numbers are the module's parameters small_router_buffers and \
         large_router_buffers",
    ),
    (&["set"], PARAMETERS),
    (
        &["global"],
        "this driver has no settings of LNet; 'socklctl show routing' says whether this node is a gateway, and \
         parameters of the module are in /sys/module/ksocklnd/parameters",
    ),
    (&["stats", "show"], "use 'socklctl stats'"),
    (
        &["stats", "reset"],
        "counters are never reset; 'socklctl stats --watch' shows rates",
    ),
    (
        &["debug"],
        "use 'socklctl peer list'; more is in /sys/kernel/debug/socklnd/stats",
    ),
    (
        &["import"],
        "an import only adds what is missing; 'socklctl import --check FILE' shows what, and 'socklctl network \
         down' removes the present configuration first",
    ),
    (
        &["discover"],
        "use 'socklctl ping NID', which asks a node for its NIDs",
    ),
    (
        &["ping"],
        "use 'socklctl ping NID', with one NID (see: socklctl ping --help)",
    ),
    (
        &["network"],
        "'socklctl network down' stops all NIs; the network for lctl's other commands is given before them: \
         'socklctl --net tcp peer_list'",
    ),
    (&["add_route"], "use 'socklctl route add NETWORK GATEWAY'"),
    (&["del_route"], "use 'socklctl route del NETWORK GATEWAY'"),
    (
        &["set_route"],
        "use 'socklctl route notify GATEWAY up' or 'down'",
    ),
    (&["get_param"], PARAMETERS),
    (&["set_param"], PARAMETERS),
    (&["list_param"], PARAMETERS),
    (
        &["active_tx"],
        "use 'socklctl conn list'; more is in /sys/kernel/debug/socklnd/stats",
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
const LUSTRE: &str = "that is about Lustre's devices, which the driver does not know";
const NOTHING: &str = "there is nothing of that kind in this driver";

/// The answer to this wrong command line, if it is a command of lctl or lnetctl.
pub(crate) fn find(args: &[OsString]) -> Option<String> {
    let mut words = args
        .iter()
        .skip(1)
        .map(|arg| arg.to_string_lossy())
        .peekable();
    // Options before the command.
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
    fn commands_of_lctl_and_lnetctl_have_answers() {
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
