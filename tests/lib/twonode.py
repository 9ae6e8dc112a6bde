# SPDX-License-Identifier: GPL-2.0
"""Scenarios of two virtual machines on the stock kernel."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from lib import paths
from lib.nodes import CommandFailed, Machines, Node, Pair, PairIpv6, at_once
from lib.report import Report
from lib.vm import GuestDied

MIB = 1 << 20
# Every size that matters, both ways at once, so many times: an emulated machine takes long for many bytes.
SMALL_SIZES = (0, 1, 72, 952, 1023, 1024, 1025, 4095, 4096, 4097)
MEDIUM_SIZES = (65535, 65536, 65537)
LARGE_SIZES = (MIB - 1, MIB)
COUNTS = ((1000, SMALL_SIZES), (200, MEDIUM_SIZES), (50, LARGE_SIZES))
# PUTs of one node and GETs of the other make a thousand of the large ones each way, too.
SOAK_COUNTS = ((1000, SMALL_SIZES), (1000, MEDIUM_SIZES), (500, LARGE_SIZES))
SIZES_IPV6 = (0, 1, 903, 904, 905, 4096, 65536)
COUNTS_IPV6 = ((200, SIZES_IPV6), (50, LARGE_SIZES))
TRANSFER_SECONDS = 400.0
# How long a transfer may go on whose partner is dead: its own time limit and some more.
DEAD_SECONDS = 20
BACK_SECONDS = 60.0


class Scenario:
    """Steps that build on each other; each is a test of its own."""

    machines: type[Pair] = Pair

    def __init__(self, name: str, pair: Pair) -> None:
        self.name = name
        self.pair = pair
        self.one: Node
        self.two: Node

    def boot(self) -> None:
        """Both machines come up."""
        self.one, self.two = self.pair.boot_both()

    def configure(self) -> None:
        """The module is inserted, and each node learns where the other is."""
        at_once(*(lambda node=node, other=other: configure(node, other) for node, other in self.both()))

    def both(self) -> list[tuple[Node, Node]]:
        """Each node with the other."""
        return [(self.one, self.two), (self.two, self.one)]

    def ping(self) -> None:
        """Each node reaches the other."""
        for node, other in self.both():
            node.socklctl("ping", other.nid)

    def serve(self) -> None:
        """Both offer the service that transfers go to."""
        for node, _ in self.both():
            serve(node)

    def unload(self) -> None:
        """Interfaces and module go; nothing is left."""
        for node, _ in self.both():
            node.run("killall", "socklctl")
        for node, _ in self.both():
            node.socklctl("peer", "del", "any")
        at_once(*(lambda node=node: rest_and_remove(node) for node, _ in self.both()))

    def end(self) -> None:
        """Both machines power off by themselves."""
        at_once(self.one.end, self.two.end)

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """All of them in order."""
        raise NotImplementedError


def configure(node: Node, other: Node) -> None:
    """Makes a machine a node that knows the other one."""
    node.set_up_network()
    node.insert_module()
    node.socklctl("ni", "add", node.nid)
    node.socklctl("peer", "add", other.nid, other.addr)


def serve(node: Node) -> None:
    """Starts the service that transfers go to."""
    node.stay("ready", "socklctl", "serve")


def rest_and_remove(node: Node) -> None:
    """Waits until a node's counters are at rest; then its interfaces and the module go."""
    deadline = time.monotonic() + 20
    while any(any((live := stats["live"]).values()) for stats in node.socklctl("stats")):
        if time.monotonic() > deadline:
            raise CommandFailed(f"{node.name}: not at rest: {live}")
        time.sleep(0.1)
    for nid in node.nids:
        node.socklctl("ni", "del", nid)
    node.remove_module()
    deadline = time.monotonic() + 20
    while "alloc 0 " not in (sockets := node.run("grep", "TCP:", "/proc/net/sockstat")) + " ":
        if time.monotonic() > deadline:
            raise CommandFailed(f"{node.name}: sockets are left: {sockets.strip()}")
        time.sleep(0.1)


def bench_command(other: Node, op: str, size: int, count: int, seconds: float) -> list[str]:
    """A transfer's command line."""
    options = ["--op", op, "--size", str(size), "--count", str(count), "--in-flight", "8", "--timeout", f"{seconds:.0f}"]
    return ["socklctl", "--json", "bench", *options, other.nid]


def transfer(node: Node, other: Node, op: str, size: int, count: int) -> dict[str, Any]:
    """A transfer in which all must go well."""
    command = bench_command(other, op, size, count, TRANSFER_SECONDS)
    result: dict[str, Any] = json.loads(node.run(*command, limit=TRANSFER_SECONDS + 20))
    wanted = {"messages": count, "bytes": count * size, "errors": 0, "verify_failures": 0, "verify": True}
    if any(result[name] != value for name, value in wanted.items()):
        raise CommandFailed(f"{node.name}: {op} of {size} bytes: {result}")
    return result


class Traffic(Scenario):
    """All sizes, all ways."""

    counts: tuple[tuple[int, tuple[int, ...]], ...] = COUNTS

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("boot", self.boot),
            ("configure", self.configure),
            ("ping both ways", self.ping),
            ("serve", self.serve),
            *((f"{count} times {size} bytes, four ways", lambda size=size, count=count: self.four_ways(size, count))
              for count, sizes in self.counts for size in sizes),
            ("unload", self.unload),
            ("power off", self.end),
        ]

    def four_ways(self, size: int, count: int) -> None:
        """PUT and GET from both at the same time."""
        at_once(*(
            lambda node=node, other=other, op=op: transfer(node, other, op, size, count)
            for node, other in self.both() for op in ("put", "get")
        ))


class TrafficIpv6(Traffic):
    """The same over IPv6, with the sizes at which its longer headers could make a difference."""

    machines = PairIpv6
    counts = COUNTS_IPV6


class Soak(Traffic):
    """A thousand times each size each way."""

    counts = SOAK_COUNTS


class Killed(Scenario):
    """One machine loses its power in mid-transfer and comes back."""

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("boot", self.boot),
            ("configure", self.configure),
            ("serve", self.serve),
            ("power cut in mid-transfer", self.power_cut),
            ("the other one comes back", self.come_back),
            ("transfers as before", self.transfer_again),
            ("unload", self.unload),
            ("power off", self.end),
        ]

    def power_cut(self) -> None:
        """The survivor's transfers fail in bounded time."""
        jobs = [
            self.one.start(*bench_command(self.two, op, MIB, 100_000, DEAD_SECONDS), limit=DEAD_SECONDS + 60)
            for op in ("put", "get")
        ]
        await_traffic(self.one, 30 * MIB)
        self.two.vm.kill()
        for job in jobs:
            output = job.result(DEAD_SECONDS + 30)
            if output.status == 0:
                raise CommandFailed(f"the transfer claims success: {output.stdout}")

    def come_back(self) -> None:
        """The same machine boots again; whoever begins, they find each other."""
        self.two = self.pair.boot(2, life=2)
        self.two.await_ready()
        configure(self.two, self.one)
        deadline = time.monotonic() + BACK_SECONDS
        for node, other in self.both():
            while True:
                try:
                    node.socklctl("ping", "-W", "5", other.nid)
                    break
                except CommandFailed:
                    if time.monotonic() > deadline:
                        raise
        serve(self.two)

    def transfer_again(self) -> None:
        """Both ways."""
        for node, other in self.both():
            for op in ("put", "get"):
                transfer(node, other, op, MIB, 50)


def await_traffic(node: Node, count: int) -> None:
    """Waits until a node has sent and received so many bytes since now, in sum."""
    def moved() -> int:
        stats = node.socklctl("stats")[0]
        return int(stats["tx"]["bytes"]) + int(stats["rx"]["bytes"])

    deadline = time.monotonic() + 60
    goal = moved() + count
    while moved() < goal:
        if time.monotonic() > deadline:
            raise CommandFailed(f"{node.name}: no traffic")
        time.sleep(0.05)


def run(report: Report, pattern: str | None, *, keep: bool = False) -> None:
    """Runs the scenarios, one pair of machines at a time; "soak" only if it is asked for."""
    kernel = paths.kernel("stock")
    kinds: tuple[tuple[str, type[Scenario]], ...] = (
        ("traffic", Traffic), ("traffic-ipv6", TrafficIpv6), ("peer-killed", Killed), ("soak", Soak),
    )
    for name, kind in kinds:
        if re.search(pattern, name) if pattern else kind is not Soak:
            report.say(f"two-node: {name} on Linux {kernel.release}")
            with kind.machines(f"two-node-{name}", kernel, keep=keep) as pair:
                run_steps(report, "two-node", name, kind(name, pair).steps(), pair)
                report.result(f"two-node: {name}: kernel logs", pair.trouble())


def run_steps(
    report: Report, suite: str, scenario: str, steps: list[tuple[str, Callable[[], None]]], machines: Machines,
) -> None:
    """Takes the steps of a scenario, each of them a test, up to the first that fails."""
    broken: str | None = None
    for what, step in steps:
        started = time.monotonic()
        why = broken
        if why is None:
            try:
                step()
            except (CommandFailed, GuestDied, OSError, ValueError, TimeoutError) as error:
                why = f"{error or type(error).__name__}\n{machines.trouble() or ''}".strip()
                broken = f"not tried: '{what}' failed"
        report.result(f"{suite}: {scenario}: {what}", why, time.monotonic() - started)
