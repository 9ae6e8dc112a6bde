# SPDX-License-Identifier: GPL-2.0
"""The sides: (a) bare TCP, (b) the driver, (c) the driver through a gateway, (d) the same with every send
copied; and how two of them are compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from host import Watch
from lib.nodes import Node

# Namespaces by their letters, and the addresses that they have on each of their devices: a and b are joined by a
# cable; so are c and e, but only through the gateway d.
CLIENT, SERVER = "10.9.0.1", "10.9.0.2"
FAR_CLIENT, FAR_SERVER = "10.8.0.1", "10.7.0.1"
NEAR_SIDE, FAR_SIDE = "10.8.0.254", "10.7.0.254"
CABLES = ((("a", CLIENT, 0), ("b", SERVER, 0)), (("c", FAR_CLIENT, 1), ("d", NEAR_SIDE, 1)),
          (("d", FAR_SIDE, 2), ("e", FAR_SERVER, 2)))
SPACES = "abcde"
# The longest that one command may take, which bounds what hangs: measurements are sized to take about a second, but an
# emulated machine on a busy host may have little of it.
LIMIT = 1800.0
# The smallest payload that is lent to TCP; and more than any message has.
ZERO_COPY = "/sys/module/ksocklnd/parameters/zc_min_payload"
NEVER = (1 << 20) + 1
# A measurement is taken again if other programs of the host got more than this share of its
# processors meanwhile, but no more often than this for each that is wanted.
DISTURBED = 0.05
ATTEMPTS = 4


@dataclass(frozen=True)
class What:
    """One thing to compare. The bytes on the wire are a header each way and the payload one way."""

    name: str
    title: str
    size: int
    in_flight: int
    sides: tuple[str, str] = ("a", "b")


COMPARISONS = (
    What("bulk", "1 MiB messages, 8 at a time", 1 << 20, 8),
    What("round-trips", "empty messages, one at a time", 0, 1),
    What("rate", "empty messages, 16 at a time", 0, 16),
    What("gateway", "1 MiB messages, 8 at a time", 1 << 20, 8, ("b", "c")),
    What("gateway-lent", "1 MiB messages, 8 at a time", 1 << 20, 8, ("d", "c")),
    What("gateway-rate", "empty messages, 16 at a time", 0, 16, ("b", "c")),
)


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    seconds: float
    messages: int
    cpu_seconds: float
    others: float  # the share of the host's processors that went to other programs
    raw: dict[str, Any]


@dataclass
class Comparison:
    """All measurements of one thing: those of the two sides alternate, the bytes are the same."""

    what: What
    count: int
    first: list[Sample] = field(default_factory=list)
    second: list[Sample] = field(default_factory=list)
    again: int = 0  # measurements that were taken again because the host was busy
    # Of the messages that the gateway has lent to TCP, the share that was copied on its way after all.
    copied: float | None = None

    def disturbed(self) -> int:
        """How many of the measurements that count were disturbed nevertheless."""
        return sum(sample.others > DISTURBED for sample in (*self.first, *self.second))


Side = Callable[[What, int], Sample]


class Nodes:
    """Network namespaces with cables between, and both modules."""

    def __init__(self, node: Node, pid: int, *, apart: bool) -> None:
        self._node = node
        self._host = Watch(pid)
        self._spare = 0
        # Where the threads of (a) run: on two processors, as if they were two machines, or anywhere.
        self._processors = " 0 1" if apart else ""
        # Where the kernel does not have it built in.
        node.run("sh", "-c", "[ ! -e /lib/veth.ko ] || insmod /lib/veth.ko")
        for space in SPACES:
            node.run("ip", "netns", "add", space)
            node.run("ip", "-n", space, "link", "set", "lo", "up")
        for ends in CABLES:
            (one, _, network), (two, _, _) = ends
            device = f"veth{network}"
            node.run("ip", "link", "add", device, "netns", one, "type", "veth", "peer", "name", device, "netns", two)
            for space, address, _ in ends:
                node.run("ip", "-n", space, "address", "add", f"{address}/24", "dev", device)
                node.run("ip", "-n", space, "link", "set", device, "up")
        node.insert_module()
        for ends in CABLES:
            for space, address, network in ends:
                self._within(space, "socklctl", "ni", "add", _nid(address, network))
        self._within("c", "socklctl", "route", "add", "tcp2", _nid(NEAR_SIDE, 1))
        self._within("e", "socklctl", "route", "add", "tcp1", _nid(FAR_SIDE, 2))
        self._within("d", "socklctl", "set", "routing", "on")
        for space in "be":
            node.stay("ready", *_enter(space), "socklctl", "serve")
        node.run("insmod", "/lib/tcpbench.ko")
        self._within("b", "sh", "-c", "echo >/sys/kernel/debug/tcpbench/server")
        self._lent = int(node.run("cat", ZERO_COPY))

    def _within(self, space: str, *command: str) -> str:
        return self._node.run(*_enter(space), *command, limit=LIMIT)

    def _measured(self, space: str, *command: str) -> tuple[float, float, dict[str, Any]]:
        """Runs a command in a namespace: the processor time that the machine used, the share of the
        host that others did, and the answer.
        """
        self._host.begin()
        answer = json.loads(self._within(space, *command))
        return self._host.own(), self._host.others(), answer

    def bare(self, what: What, count: int) -> Sample:
        """(a): one TCP connection of the kernel's own."""
        spec = f"{SERVER} {what.size} {count} {what.in_flight}{self._processors}"
        script = 'cd /sys/kernel/debug/tcpbench && echo "$1" >run && cat run'
        cpu, others, raw = self._measured("a", "sh", "-c", script, "sh", spec)
        return Sample(raw["elapsed_ns"] / 1e9, raw["messages"], cpu, others, raw)

    def driver(self, what: What, count: int) -> Sample:
        """(b): the driver."""
        return self._driver("a", _nid(SERVER, 0), what, count)

    def gateway(self, what: What, count: int) -> Sample:
        """(c): the driver, through a gateway."""
        return self._driver("c", _nid(FAR_SERVER, 2), what, count)

    def lend(self, least: int) -> None:
        """From so many bytes on, a payload's pages are lent to TCP."""
        self._node.run("sh", "-c", f"echo {least} >{ZERO_COPY}")

    def copied(self, what: What, count: int) -> Sample:
        """(d): the same, when no node lends its pages to TCP."""
        self.lend(NEVER)
        try:
            return self.gateway(what, count)
        finally:
            self.lend(self._lent)

    def _driver(self, space: str, to: str, what: What, count: int) -> Sample:
        """Contents are not compared, as nobody does that for (a)."""
        cpu, others, raw = self._measured(
            space, "socklctl", "--json", "bench", "--op", "put", "--no-verify", "--size", str(what.size),
            "--count", str(count), "--in-flight", str(what.in_flight), to,
        )
        return Sample(raw["elapsed_ns"] / 1e9, raw["messages"], cpu, others, raw)

    def compare(self, what: What, rounds: int, seconds: float) -> Comparison:
        """Measures both sides in turn, changing their order each time.

        Each round has connections of its own: on which processors they are served is up to chance, and matters.
        """
        self._spare = spare = 2 * rounds * (ATTEMPTS - 1)
        known: dict[str, Side] = {"a": self.bare, "b": self.driver, "c": self.gateway, "d": self.copied}
        first, second = (known[side] for side in what.sides)
        comparison = Comparison(what, self._calibrate(first, what, seconds))
        sides = [(first, comparison.first), (second, comparison.second)]
        before = self._lent_by_gateway()
        for _ in range(rounds):
            self._connect_anew()
            for side, samples in sides:
                side(what, max(16, comparison.count // 16))  # connects, and warms up
                samples.append(self._undisturbed(side, what, comparison.count))
            sides.reverse()
        comparison.again = spare - self._spare
        lent, copied = (now - then for now, then in zip(self._lent_by_gateway(), before))
        comparison.copied = copied / lent if lent else None
        return comparison

    def _connect_anew(self) -> None:
        for space in SPACES:
            self._within(space, "socklctl", "conn", "close", "any")

    def _lent_by_gateway(self) -> tuple[int, int]:
        """Messages that the gateway has lent to TCP, and those of them that were copied after all."""
        stats = [each["zero_copy"] for each in json.loads(self._within("d", "socklctl", "--json", "stats"))]
        return sum(each["msgs"] for each in stats), sum(each["copied"] for each in stats)

    def _undisturbed(self, side: Side, what: What, count: int) -> Sample:
        """Measures; if the host was busy, again, as often as is allowed."""
        while (sample := side(what, count)).others > DISTURBED and self._spare > 0:
            self._spare -= 1
        return sample

    def _calibrate(self, side: Side, what: What, seconds: float) -> int:
        """How many messages it takes to keep a side busy for as long as a measurement should be."""
        count = 16
        while (sample := self._undisturbed(side, what, count)).seconds < seconds / 2:
            count = max(count * 2, int(count * min(16, 0.8 * seconds / sample.seconds)))
        return max(count, int(count * seconds / sample.seconds))

    def close(self) -> dict[str, Any]:
        """What the driver says in the end; then takes down everything."""
        state = {
            f"{what} {space}": json.loads(self._within(space, "socklctl", "--json", *what.split()))
            for space in SPACES for what in ("conn list", "stats")
        }
        self._node.run("killall", "socklctl")
        self._node.remove_module()
        self._node.run("rmmod", "tcpbench")
        return state


def _nid(address: str, network: int) -> str:
    return f"{address}@tcp{network or ''}"


def _enter(space: str) -> tuple[str, str]:
    return "nsenter", f"--net=/run/netns/{space}"
