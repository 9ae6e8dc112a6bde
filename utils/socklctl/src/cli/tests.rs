// SPDX-License-Identifier: GPL-2.0

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
        "route add tcp1 10.0.0.9@tcp",
        "route add tcp1 10.0.0.9@tcp --priority 3 --ni tcp",
        "route del tcp1",
        "route del any 10.0.0.9@tcp",
        "route list --ni tcp",
        "set routing on",
        "set routing off",
        "show routing",
        "route notify 10.0.0.9@tcp down",
        "conn list",
        "conn close any",
        "conn close 10.0.0.2@tcp 192.168.1.2",
        "ping 10.0.0.2@tcp -c 3 -W 0.5 -i 200ms",
        "bench 10.0.0.2@tcp --op get --size 4k --count 10 --in-flight 1 --no-verify",
        "serve --ready-fd 3",
        "stats --json",
        "stats --peers --ni tcp",
        "stats --watch --interval 200ms --count 3 --ni tcp",
        "export",
        "export /tmp/x.yaml",
        "import - --check",
        "import",
        "import -k /tmp/x.yaml",
        "export --backup /tmp/x.yaml",
        "ni add lo@tcp",
        "ni add tcp --if eth0",
        "ni del lo@tcp7",
        "ping localhost@tcp",
        "discover 10.0.0.2@tcp",
        "peer add 10.0.0.2@tcp localhost",
        "conn close localhost@tcp localhost",
        "interface add lo",
        "peer list --ni lo@tcp",
        "ni show",
        "peer show",
        "route show",
        "route add --net tcp1 --gateway 10.0.0.9@tcp --hop -1 --priority 3",
        "route del --net tcp1 --gateway 10.0.0.9@tcp",
        "route del --net tcp1",
        "net add --net tcp --if eth0,eth1",
        "net del --net tcp",
        "net del --net tcp7 --if eth0",
        "net show --net tcp --verbose",
        "--net tcp peer_list",
        "list_nids",
        "list_nids all",
        "which_nid 10.0.0.2@tcp 10.1.0.2@tcp1",
        "network down",
        "network up",
        "show_route",
        "route_list",
        "generate --man x --completions y",
        "ni set 10.0.0.1@tcp",
        "conn push",
        "conn push 10.0.0.2@tcp 192.168.1.2",
        "conn register --fd 0",
        "conn register --fd 3 --type bulk_in --peer 10.0.0.2@tcp --ni tcp",
        "interface add 192.168.1.1",
        "interface add 192.168.1.1/24 --ni tcp",
        "interface add 192.168.1.1 255.255.255.0",
        "if del",
        "if del 192.168.1.1",
        "interface list",
        "peer del 10.0.0.2@tcp --single-share",
        "version",
        "mynid",
        "mynid 10.0.0.1@tcp",
        "add_peer 10.0.0.2@tcp 10.0.0.2 988",
        "del_peer",
        "del_peer 10.0.0.2@tcp 10.0.0.2 single_share",
        "peer_list",
        "conn_list",
        "push",
        "push 10.0.0.2@tcp",
        "add_interface 192.168.1.1 255.255.255.0",
        "add_interface 192.168.1.1",
        "del_interface",
        "del_interface 192.168.1.1",
        "interface_list",
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
        "ni add no-such-host.invalid@tcp",
        "route add --net tcp1",
        "route add tcp1 10.0.0.9@tcp --net tcp2 --gateway 10.0.0.9@tcp",
        "net add --net tcp",
        "network tcp",
        "which_nid",
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
        "stats --interval 1",
        "stats --count 1",
        "stats --peers --watch",
        "stats --watch --interval 0",
        "stats --watch --interval 9ms",
        "stats --watch --count 0",
        "generate",
        "conn register",
        "conn register --fd -1",
        "conn register --fd 3 --type control",
        "conn register --fd 3 --peer 10.0.0.2@tcp",
        "interface add",
        "interface add 192.168.1.1/33",
        "interface add 192.168.1.1 255.0.255.0",
        "route add any 10.0.0.9@tcp",
        "route add 10.1.0.0@tcp1 10.0.0.9@tcp",
        "route add tcp1",
        "route del",
        "set routing",
        "set routing maybe",
        "route notify 10.0.0.9@tcp",
        "route notify 10.0.0.9@tcp maybe",
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

/// Every command says what it does, and every argument what it is.
#[test]
fn nothing_is_without_help() {
    fn look(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path} has no help");
        for arg in command.get_arguments() {
            // The forms of NIDs, patterns and hosts are explained once.
            let known = ["nid", "host", "port", "address"].contains(&arg.get_id().as_str());
            assert!(
                known || arg.get_help().is_some() || arg.is_hide_set(),
                "{path}: {} has no help",
                arg.get_id()
            );
        }
        for sub in command.get_subcommands() {
            look(sub, &path);
        }
    }
    look(&Cli::command(), "");
}
