# SPDX-License-Identifier: GPL-2.0
"""Lustre's own LNet over the driver: two virtual machines on the stock kernel with a tree that the user has built.

The same steps are taken with the tree's own driver on both sides, which tells what to expect; with ours on both sides; and
with one on each side, both ways.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from lib import initramfs, lustre_tree, paths
from lib.nodes import CommandFailed, Node, Output, Pair, at_once
from lib.report import Report
from lib.twonode import rest_and_remove, run_steps
from lib.vm import Vm

OURS, C = "ours", "C"
# Who runs on node 1 and on node 2. The first tells what the others are compared with.
COMBINATIONS = ((C, C), (OURS, OURS), (OURS, C), (C, OURS))
DRIVER = paths.BUILD / "stock-lnet" / "ksocklnd.ko"
STANDALONE = "standalone"
PROTOCOLS = (1, 2, 3, 4)
MODPROBE = "/sbin/modprobe"
NET = "tcp"

# Outages: one that TCP bridges, and one that is longer than the driver's timeout.
SHORT_CUT_S = 8
LONG_CUT_S = lustre_tree.SOCK_TIMEOUT_S + 10
# The longest that anything may take which waits for timeouts; a bound for what hangs.
PATIENCE_S = 600.0
NOWHERE = "02:00:00:00:00:99"

# Names of tests of lnet_selftest, their arguments, loops of each, and how many run at a time.
SELFTESTS = (
    ("ping, 1 at a time", "ping", 300, 1),
    ("ping, 8 at a time", "ping", 100, 8),
    ("write 4 KiB", "brw write check=full size=4K", 50, 8),
    ("read 4 KiB", "brw read check=full size=4K", 50, 8),
    ("write 1 MiB", "brw write check=full size=1M", 4, 8),
    ("read 1 MiB", "brw read check=full size=1M", 4, 8),
)
# Makes a session with one test, and runs it.
BEGIN = """
set -e
export LST_SESSION=1
client=$1 server=$2 loops=$3 many=$4
shift 4
lst new_session --timeout 300 tests
lst add_group c "$client"
lst add_group s "$server"
lst add_batch b
lst add_test --batch b --loop "$loops" --concurrency "$many" --distribute 1:1 --from c --to s "$@"
read began rest </proc/uptime
lst run b
echo "began $began"
"""
# Waits until it is done, or stops it if it has no end, tells what went wrong, and ends the session.
END = """
set -e
export LST_SESSION=1
[ "$1" = done ] || lst stop b
until lst query b | grep -q 'is stopped'; do usleep 50000; done
read ended rest </proc/uptime
lst show_error --session c s
lst end_session
echo "ended $ended"
"""
FOR_EVER = 1_000_000
# What lnet_selftest says when nothing went wrong.
NO_ERRORS = re.compile(r"^Total 0 error nodes", re.MULTILINE)
# What LNet and the drivers say of trouble, without what differs from one time to the next.
_COMPLAINT = re.compile(r"(LNetError|LustreError|LBUG|ASSERTION|ksocklnd: error).*")
_VARIES = re.compile(r"0x[0-9a-f]+|[0-9]+")


class PatientNode(Node):
    """A node whose commands may take long: modules as large as Lustre's take a slow machine a while."""

    def start(self, *argv: str, limit: float = PATIENCE_S) -> Future[Output]:
        return super().start(*argv, limit=limit)

    def run(self, *argv: str, limit: float = PATIENCE_S) -> str:
        return super().run(*argv, limit=limit)


class LustrePair(Pair):
    """Two nodes with a tree's modules and tools."""

    memory = 768

    def __init__(self, name: str, kernel: paths.Kernel, tree: lustre_tree.Tree, *, keep: bool = False) -> None:
        self.tree = tree
        super().__init__(name, kernel, keep=keep)

    def node(self, number: int, vm: Vm) -> Node:
        return PatientNode(number, vm)

    def build(self, archive: Path) -> None:
        drivers = {C: self.tree.driver()}
        if DRIVER.exists():
            drivers[OURS] = DRIVER
        # What is inserted without Lustre is the standalone flavour, if there is one.
        kernel = self._kernel if self._kernel.module.exists() else replace(self._kernel, module=drivers[C])
        initramfs.build(
            kernel, archive, initramfs.BARE, lambda into: self.tree.add(into, drivers, file_system=False),
        )


class Scenario:
    """Steps that build on each other; each is a test of its own."""

    def __init__(self, pair: LustrePair, drivers: tuple[str, str]) -> None:
        self.pair = pair
        self.drivers = drivers
        self.figures: dict[str, str] = {}
        self.complaints: dict[str, set[str]] = {}
        self.one: Node
        self.two: Node

    def both(self) -> list[tuple[Node, Node]]:
        """Each node with the other."""
        return [(self.one, self.two), (self.two, self.one)]

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """All of them in order."""
        can = not self.pair.tree.selftest_crashes()
        selftests: list[tuple[str, Callable[[], None]]] = [
            (f"lnet_selftest: {name}", lambda each=(name, *rest): self.selftest(*each)) for name, *rest in SELFTESTS if can
        ]
        under_load = [(f"cable out for {SHORT_CUT_S} s under load", self.short_cut)] if can else []
        as_before = [("lnet_selftest as before", lambda: self.selftest("again", *SELFTESTS[2][1:]))] if can else []
        quiet: list[tuple[str, Callable[[], None]]] = [
            ("networks= and lctl network up", self.up_by_networks),
            ("lctl ping", self.lctl_ping),
            ("lctl network down and modprobe -r", self.down),
            ("another lnet.ko", self.other_lnet),
            ("lnetctl lnet configure and net add", self.up_by_lnetctl),
            ("lnetctl net show -v 4", self.net_show),
            ("lnetctl ping", self.ping),
            ("lnetctl discover", self.discover),
            ("lctl peer_list, conn_list, interface_list, mynid", self.lists),
            *selftests,
            ("lnetctl net set", self.net_set),
            ("lctl disconnect, push, add_peer, del_peer", self.peer_commands),
            ("lnetctl export, net del, import", self.export_import),
        ]
        return [
            ("boot", self.boot),
            *((name, lambda name=name, step=step: self.quietly(name, step)) for name, step in quiet),
            ("drop rules, and health comes back", self.drop_rules),
            *under_load,
            (f"cable out for {LONG_CUT_S} s", self.long_cut),
            ("device down and up", self.device_down),
            ("a node killed under load, and back", self.killed),
            ("health at 1000 again", self.healthy),
            *as_before,
            # Last, because LNet goes on trying NIDs that a peer had once.
            ("two nets on one card", self.second_net),
            ("a long NID, over IPv6", self.long_nid),
            ("net del and modprobe -r", self.end_lnet),
            ("power off", self.end),
        ]

    # -- bringing it up ---------------------------------------------------------------------------

    def boot(self) -> None:
        """Both machines come up, each with its driver where modprobe finds it."""
        self.one, self.two = self.pair.boot_both()
        for node, driver in zip((self.one, self.two), self.drivers):
            prepare(node, driver)

    def quietly(self, name: str, step: Callable[[], None]) -> None:
        """Takes a step in which nothing is broken on purpose; notes what LNet complained about."""
        before = {node: len(node.vm.console()) for node, _ in self.both()}
        step()
        self.complaints[name] = {
            _VARIES.sub("#", found.group()) for node, start in before.items()
            for found in map(_COMPLAINT.search, node.vm.console()[start:].splitlines()) if found
        }

    def up_by_networks(self) -> None:
        """The way of configuration files."""
        for node, _ in self.both():
            node.run(MODPROBE, "lnet", f"networks={NET}0(eth0)")
            node.run("lctl", "network", "up")
            expect(node, node.nid, "lctl", "list_nids")

    def lctl_ping(self) -> None:
        """Both ways."""
        for node, other in self.both():
            expect(node, other.nid, "lctl", "ping", other.nid)

    def down(self) -> None:
        """LNet goes, and all modules."""
        for node, _ in self.both():
            node.run("lctl", "network", "down")
            unload(node)

    def other_lnet(self) -> None:
        """This driver runs with the lnet.ko that it was built for, and with no other."""
        for (node, _), driver in zip(self.both(), self.drivers):
            if driver == OURS:
                path = f"/lib/modules/{node.run('uname', '-r').strip()}/extra/lnet.ko"
                node.run("mv", path, "/tmp/lnet.ko")
                node.run("cp", f"/{lustre_tree.OTHER_LNET}", path)
                node.run(MODPROBE, "lnet")
                if node.start(MODPROBE, "ksocklnd").result(PATIENCE_S).status == 0:
                    raise CommandFailed(f"{node.name}: the driver runs with another lnet.ko")
                expect(node, "is loaded: build it again", "dmesg")
                node.run("mv", "/tmp/lnet.ko", path)
                unload(node)

    def up_by_lnetctl(self) -> None:
        """The way of today's tools."""
        at_once(*(lambda node=node: bring_up(node) for node, _ in self.both()))

    def net_show(self) -> None:
        """All that is to be seen of an NI."""
        for node, _ in self.both():
            shown = node.run("lnetctl", "net", "show", "--net", NET, "-v", "4")
            for key, value in (
                ("nid", node.nid), ("status", "up"), ("health value", "1000"), ("peer_timeout", "180"), ("peer_credits", "8"),
                ("credits", "256"), ("conns_per_peer", "1"), ("timeout", str(lustre_tree.SOCK_TIMEOUT_S)),
            ):
                if not re.search(rf"^[\s-]*{key}: {re.escape(value)}$", shown, re.MULTILINE):
                    raise CommandFailed(f"{node.name}: no '{key}: {value}' in\n{shown}")

    def ping(self) -> None:
        """Both ways, with what it takes when there is a connection; and each itself."""
        times = []
        for node, other in self.both():
            await_ping(node, other)
            started = time.monotonic()
            for _ in range(5):
                ping(node, other)
            times.append(f"{(time.monotonic() - started) / 5 * 1000:.0f}")
            ping(node, node)
        self.figures["lnetctl ping, ms"] = " / ".join(times)

    def discover(self) -> None:
        """Each finds out what the other is."""
        for node, other in self.both():
            expect(node, other.nid, "lnetctl", "discover", other.nid)
            shown = node.run("lnetctl", "peer", "show", "--nid", other.nid, "-v", "4")
            for sign in ("Multi-Rail: true", "health value: 1000"):
                if sign.lower() not in shown.lower():
                    raise CommandFailed(f"{node.name}: no '{sign}' in\n{shown}")

    def lists(self) -> None:
        """What the driver tells of its interface, its peers and its connections."""
        for node, other in self.both():
            expect(node, other.addr, "lctl", "--net", NET, "peer_list")
            shown = expect(node, other.addr, "lctl", "--net", NET, "conn_list")
            for kind in ("C", "I", "O"):
                if not re.search(rf"\b{kind}\b", shown):
                    raise CommandFailed(f"{node.name}: conn_list has no connection of type {kind}:\n{shown}")
            expect(node, node.addr, "lctl", "--net", NET, "interface_list")
            node.run("lctl", "--net", NET, "mynid", node.nid)
            # lctl's status tells nothing; what it writes does.
            answer = node.start("lctl", "--net", NET, "mynid", other.nid).result(PATIENCE_S)
            if "Invalid argument" not in answer.stdout + answer.stderr:
                raise CommandFailed(f"{node.name} takes itself for {other.nid}: {answer}")

    # -- traffic ----------------------------------------------------------------------------------

    def load_selftest(self) -> None:
        """The module on both nodes."""
        for node, _ in self.both():
            node.run(MODPROBE, "lnet_selftest")

    def selftest(self, name: str, words: str, loops: int, many: int) -> None:
        """Both ways; all must go well."""
        self.load_selftest()
        rates = []
        for node, other in self.both():
            began = start_load(node, other, words, loops, many)
            seconds = max(end_load(node, "done") - began, 0.01)
            rates.append(f"{loops * many / seconds:.0f}")
        self.figures[f"{name}, RPC/s"] = " / ".join(rates)

    # -- commands ---------------------------------------------------------------------------------

    def net_set(self) -> None:
        """Settings of a living NI."""
        for node, other in self.both():
            node.run("lnetctl", "net", "set", "--net", NET, "--conns-per-peer", "2")
            expect(node, "conns_per_peer: 2", "lnetctl", "net", "show", "--net", NET, "-v", "4")
            node.run("lnetctl", "net", "set", "--net", NET, "--conns-per-peer", "1")
            ping(node, other)

    def peer_commands(self) -> None:
        """What people do to connections by hand; the next message makes new ones."""
        for node, other in self.both():
            ping(node, other)
            node.run("lctl", "--net", NET, "push", other.nid)
            node.run("lctl", "--net", NET, "disconnect", other.nid)
            await_ping(node, other)
            node.run("lctl", "--net", NET, "del_peer", other.nid)
            await_ping(node, other)
            node.run("lctl", "--net", NET, "add_peer", f"10.0.0.77@{NET}", "10.0.0.77", "988")
            expect(node, "10.0.0.77", "lctl", "--net", NET, "peer_list")
            node.run("lctl", "--net", NET, "del_peer", f"10.0.0.77@{NET}")
            if "10.0.0.77" in node.run("lctl", "--net", NET, "peer_list"):
                raise CommandFailed(f"{node.name}: a deleted peer is still there")

    def second_net(self) -> None:
        """Another NI with the same address."""
        for node, _ in self.both():
            node.run("lnetctl", "net", "add", "--net", "tcp1", "--if", "eth0")
        for node, other in self.both():
            await_ping(node, other, f"{other.addr}@tcp1")
            ping(node, other)
        for node, _ in self.both():
            node.run("lnetctl", "net", "del", "--net", "tcp1")
        for node, other in self.both():
            await_ping(node, other)

    def long_nid(self) -> None:
        """An NI with an address of IPv6."""
        for node, _ in self.both():
            node.run("ip", "addr", "add", f"{long_address(node)}/64", "nodad", "dev", "eth0")
            node.run("lnetctl", "net", "add", "--nid", f"{long_address(node)}@tcp6")
        for node, other in self.both():
            await_ping(node, other, f"{long_address(other)}@tcp6")
            ping(node, other)
        for node, _ in self.both():
            node.run("lnetctl", "net", "del", "--net", "tcp6")
            node.run("ip", "addr", "del", f"{long_address(node)}/64", "dev", "eth0")

    def export_import(self) -> None:
        """The configuration goes into a file and comes back from it."""
        for node, other in self.both():
            node.run("sh", "-c", "lnetctl export --backup >/tmp/lnet.yaml")
            started = time.monotonic()
            node.run("lnetctl", "net", "del", "--net", NET)
            self.figures[f"net del on {node.name}, s"] = f"{time.monotonic() - started:.1f}"
            if node.nid in node.run("lctl", "list_nids"):
                raise CommandFailed(f"{node.name}: the net is still there")
            node.run("lnetctl", "import", "/tmp/lnet.yaml")
            expect(node, node.nid, "lctl", "list_nids")
            await_ping(node, other)

    # -- outages ----------------------------------------------------------------------------------

    def drop_rules(self) -> None:
        """LNet loses messages on purpose; without its rules all is well."""
        for node, other in self.both():
            node.run("lctl", "net_drop_add", "-s", f"*@{NET}", "-d", other.nid, "-r", "1", "-e", "network_timeout")
            if node.start("lnetctl", "ping", "--timeout", "3", other.nid).result(PATIENCE_S).status == 0:
                raise CommandFailed(f"{node.name}: a ping got through a rule that drops all")
            node.run("lctl", "net_drop_del", "-a")
            await_ping(node, other)
        self.healthy()

    def short_cut(self) -> None:
        """TCP bridges it: nobody notices but by the clock."""
        self.load_selftest()
        start_load(self.one, self.two, "brw write check=full size=4K", FOR_EVER, 8)
        time.sleep(2)
        cut(self.both())
        time.sleep(SHORT_CUT_S)
        mend(self.both())
        await_traffic(self.one)
        end_load(self.one, "stop")

    def long_cut(self) -> None:
        """Messages fail in bounded time, and go through again afterwards."""
        cut(self.both())
        started = time.monotonic()
        for node, other in self.both():
            if node.start("lnetctl", "ping", "--timeout", "5", other.nid).result(PATIENCE_S).status == 0:
                raise CommandFailed(f"{node.name}: a ping got through a cut cable")
        time.sleep(max(0.0, LONG_CUT_S - (time.monotonic() - started)))
        mend(self.both())
        started = time.monotonic()
        for node, other in self.both():
            await_ping(node, other)
        self.figures["ping after a long cut, s"] = f"{time.monotonic() - started:.1f}"
        self.healthy()

    def device_down(self) -> None:
        """LNet learns that the device is down, and that it is up again."""
        node, other = self.both()[1]
        node.run("ip", "link", "set", "eth0", "down")
        await_that(f"{node.name}: the NI is down", lambda: "status: down" in show_net(node))
        node.run("ip", "link", "set", "eth0", "up")
        await_that(f"{node.name}: the NI is up", lambda: "status: up" in show_net(node) and "status: down" not in show_net(node))
        await_ping(node, other)
        await_ping(other, node)
        self.healthy()

    def killed(self) -> None:
        """Node 2 loses its power under load, and comes back."""
        # Not by lnet_selftest: that of 2.17.57 waits for ever when a node that it tests is lost.
        pings = f"while lnetctl ping --timeout 5 {self.two.nid}; do :; done"
        jobs = [self.one.start("sh", "-c", pings) for _ in range(4)]
        await_traffic(self.one)
        self.two.vm.kill()
        for job in jobs:
            if job.result(PATIENCE_S + 30).status == -1:
                raise CommandFailed("a ping of a dead node does not end")
        self.two = self.pair.boot(2, life=2)
        self.two.await_ready()
        prepare(self.two, self.drivers[1])
        bring_up(self.two)
        started = time.monotonic()
        for node, other in self.both():
            await_ping(node, other)
        self.figures["ping after a kill, s"] = f"{time.monotonic() - started:.1f}"

    def healthy(self) -> None:
        """Every NI, of one's own and of peers, is as healthy as at first."""
        started = time.monotonic()
        for node, other in self.both():
            for words in (("net", "show", "--net", NET), ("peer", "show", "--nid", other.nid)):
                def values(node: Node = node, words: tuple[str, ...] = words) -> list[str]:
                    return re.findall(r"health value: (\d+)", node.run("lnetctl", *words, "-v", "3"))

                await_that(f"{node.name}: {' '.join(words)}: health at 1000", lambda: set(values()) == {"1000"})
        self.figures["health back after, s"] = f"{time.monotonic() - started:.0f}"

    # -- the end ----------------------------------------------------------------------------------

    def end_lnet(self) -> None:
        """Nothing is left."""
        for node, _ in self.both():
            started = time.monotonic()
            node.run(MODPROBE, "-r", "lnet_selftest")
            node.run("lnetctl", "net", "del", "--net", NET)
            node.run("lnetctl", "lnet", "unconfigure")
            unload(node)
            self.figures[f"taking all down on {node.name}, s"] = f"{time.monotonic() - started:.1f}"

    def end(self) -> None:
        """Both machines power off by themselves."""
        at_once(self.one.end, self.two.end)


class Standalone(Scenario):
    """LNet over the tree's driver on node 1; on node 2 the standalone flavour, which is no part of a Lustre."""

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("boot", self.boot),
            ("LNet on node 1", lambda: bring_up(self.one)),
            *((f"version {version}, whoever begins", lambda version=version: self.pings(version)) for version in PROTOCOLS),
            ("lnetctl discover", lambda: self.discover_it()),
            ("unload both", self.unload_both),
            ("power off", self.end),
        ]

    def boot(self) -> None:
        """Both machines come up; node 2 has the module, but no NI."""
        self.one, self.two = self.pair.boot_both()
        prepare(self.one, C)
        self.two.set_up_network()
        self.two.insert_module()

    def pings(self, version: int) -> None:
        """Node 2 begins with this version; then node 1 begins, with its own."""
        self.two.run("sh", "-c", f"echo {version} >/sys/module/ksocklnd/parameters/protocol")
        self.two.socklctl("ni", "add", self.two.nid)
        self.two.socklctl("peer", "add", self.one.nid, self.one.addr)
        times = self.two.socklctl("ping", self.one.nid)["rtt_ns"]["min"] / 1e6
        ping(self.one, self.two)
        spoken = {conn["protocol"] for conn in self.two.socklctl("conn", "list")}
        self.figures[f"version {version}: ping from node 2, ms"] = f"{times:.0f}"
        self.two.socklctl("peer", "del", "any")
        ping(self.one, self.two)
        self.two.socklctl("peer", "del", "any")
        self.two.socklctl("ni", "del", self.two.nid)
        self.one.run("lctl", "--net", NET, "del_peer", self.two.nid)
        if spoken != {version}:
            raise CommandFailed(f"spoken was {spoken}")

    def discover_it(self) -> None:
        """LNet's discovery finds a node with one NID."""
        self.two.socklctl("ni", "add", self.two.nid)
        expect(self.one, self.two.nid, "lnetctl", "discover", self.two.nid)

    def unload_both(self) -> None:
        """Nothing is left."""
        self.one.run("lnetctl", "net", "del", "--net", NET)
        self.one.run("lnetctl", "lnet", "unconfigure")
        unload(self.one)
        self.two.socklctl("peer", "del", "any")
        rest_and_remove(self.two)


def prepare(node: Node, driver: str) -> None:
    """A node that has just booted gets its address, and its driver where modprobe finds it."""
    node.set_up_network()
    release = node.run("uname", "-r").strip()
    node.run("cp", f"/{lustre_tree.DRIVERS}/{driver}.ko", f"/lib/modules/{release}/{lustre_tree.UPDATES}/ksocklnd.ko")


def bring_up(node: Node) -> None:
    """LNet with one net, by lnetctl."""
    node.run(MODPROBE, "lnet")
    node.run("lnetctl", "lnet", "configure")
    node.run("lnetctl", "net", "add", "--net", NET, "--if", "eth0")
    expect(node, node.nid, "lctl", "list_nids")


def unload(node: Node) -> None:
    """The modules go, which they can't while anything is left; and so do the sockets."""
    for module in ("lnet_selftest", "ksocklnd", "lnet", "libcfs"):
        node.run(MODPROBE, "-r", module)
    if "ksocklnd" in node.run("cat", "/proc/modules"):
        raise CommandFailed(f"{node.name}: ksocklnd is still there")
    await_that(f"{node.name}: no sockets left", lambda: "alloc 0 " in node.run("grep", "TCP:", "/proc/net/sockstat") + " ", 90)


def start_load(node: Node, other: Node, words: str, loops: int, many: int) -> float:
    """Starts a test of lnet_selftest from one node to the other; gives the time of the guest's clock."""
    output = node.run(
        "sh", "-c", BEGIN, "lst", node.nid, other.nid, str(loops), str(many), *words.split(),
    )
    return seconds_of("began", output)


def end_load(node: Node, how: str) -> float:
    """Waits until it is done ("done"), or stops it ("stop"). All must have gone well. Gives the time then."""
    output = node.run("sh", "-c", END, "lst", how)
    if len(NO_ERRORS.findall(output)) != 2:
        raise CommandFailed(f"{node.name}: lnet_selftest:\n{output}")
    return seconds_of("ended", output)


def seconds_of(word: str, output: str) -> float:
    """A time that a script has written."""
    found = re.search(rf"^{word} (\S+)$", output, re.MULTILINE)
    if not found:
        raise CommandFailed(f"no '{word}' in\n{output}")
    return float(found.group(1))


def await_traffic(node: Node) -> None:
    """Waits until some more messages have been received."""
    def received() -> int:
        found = re.search(r"recv_count: (\d+)", node.run("lnetctl", "stats", "show"))
        if not found:
            raise CommandFailed(f"{node.name}: no statistics")
        return int(found.group(1))

    goal = received() + 50
    await_that(f"{node.name}: traffic", lambda: received() > goal)


def expect(node: Node, text: str, *argv: str) -> str:
    """Runs a program that must write this text; gives all that it wrote."""
    output = node.run(*argv)
    if text not in output:
        raise CommandFailed(f"{node.name}: {' '.join(argv)}: no '{text}' in\n{output}")
    return output


def ping(node: Node, other: Node) -> None:
    """A ping that must be answered."""
    expect(node, f"nid: {other.nid}", "lnetctl", "ping", other.nid)


def await_ping(node: Node, other: Node, nid: str | None = None) -> None:
    """Pings until there is an answer; by another NID than the usual one, if that is given."""
    def answered() -> bool:
        output = node.start("lnetctl", "ping", "--timeout", "5", nid or other.nid).result(PATIENCE_S)
        return output.status == 0 and f"nid: {nid or other.nid}" in output.stdout

    await_that(f"{node.name} reaches {nid or other.nid}", answered)


def long_address(node: Node) -> str:
    """An address of IPv6."""
    return f"fd00::{node.number}"


def await_that(what: str, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise CommandFailed(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.2)


def show_net(node: Node) -> str:
    """What lnetctl says of the net."""
    return node.run("lnetctl", "net", "show", "--net", NET)


def cut(nodes: list[tuple[Node, Node]]) -> None:
    """Nothing arrives any more, and neither device notices."""
    for node, other in nodes:
        node.run("ip", "neigh", "replace", other.addr, "lladdr", NOWHERE, "nud", "permanent", "dev", "eth0")


def mend(nodes: list[tuple[Node, Node]]) -> None:
    """Undoes `cut`."""
    for node, other in nodes:
        node.run("ip", "neigh", "del", other.addr, "dev", "eth0")


def table(columns: dict[str, dict[str, str]]) -> str:
    """The figures of all combinations, side by side."""
    rows = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    titles = ["from node 1 / from node 2", *columns]
    cells = [titles, *([name, *(figures.get(name, "-") for figures in columns.values())] for name in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


def run(report: Report, pattern: str | None, *, keep: bool = False) -> None:
    """Takes all steps for each combination of drivers, one pair of machines at a time."""
    kernel = paths.kernel("stock")
    tree = lustre_tree.find(kernel)
    report.say(f"Lustre {tree.version}, Linux {kernel.release}")
    if not pattern or re.search(pattern, STANDALONE):
        if kernel.module.exists():
            standalone(report, kernel, tree, keep=keep)
        else:
            report.say(f"skipped: {STANDALONE}: there is no {kernel.module.relative_to(paths.REPO)}: 'make stock' builds it")
    if tree.selftest_crashes():
        report.say("skipped: all that needs lnet_selftest: this tree's crashes in lst_sessions_cmd, where info->attrs may be NULL")
    columns: dict[str, dict[str, str]] = {}
    usual: dict[str, set[str]] | None = None
    for drivers in COMBINATIONS:
        name = "-".join(drivers)
        if pattern and not re.search(pattern, name):
            continue
        if OURS in drivers and not DRIVER.exists():
            report.say(f"skipped: {name}: there is no {DRIVER.relative_to(paths.REPO)}: 'make stock LUSTRE={tree.folder}' builds it")
            continue
        report.say(f"lustre: node 1 runs {drivers[0]}, node 2 runs {drivers[1]}")
        with LustrePair(f"lustre-{name}", kernel, tree, keep=keep) as pair:
            scenario = Scenario(pair, drivers)
            run_steps(report, "lustre", name, scenario.steps(), pair)
            report.result(f"lustre: {name}: kernel logs", pair.trouble() or unusual(scenario, usual))
        columns[name] = scenario.figures
        if drivers == (C, C):
            usual = scenario.complaints
    if columns:
        report.say("what was measured; emulated machines are slow, and only columns of one run can be compared:")
        print(table(columns), flush=True)


def standalone(report: Report, kernel: paths.Kernel, tree: lustre_tree.Tree, *, keep: bool) -> None:
    """The scenario of the standalone flavour."""
    report.say("lustre: node 1 runs LNet over C, node 2 the standalone flavour")
    with LustrePair(f"lustre-{STANDALONE}", kernel, tree, keep=keep) as pair:
        scenario = Standalone(pair, (C, STANDALONE))
        run_steps(report, "lustre", STANDALONE, scenario.steps(), pair)
        report.result(f"lustre: {STANDALONE}: kernel logs", pair.trouble())
    print(table({STANDALONE: scenario.figures}), flush=True)


def unusual(scenario: Scenario, usual: dict[str, set[str]] | None) -> str | None:
    """What LNet complained about although nothing was broken, and did not with the tree's own driver on both sides.

    That is only known if these ran before.
    """
    if usual is None:
        return None
    found = [
        f"{step}: {line}" for step, lines in scenario.complaints.items() for line in sorted(lines - usual.get(step, set()))
    ]
    if not found:
        return None
    return "\n".join(["not said with C on both sides:", *found])
