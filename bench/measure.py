# SPDX-License-Identifier: GPL-2.0
"""The two sides, (a) bare TCP and (b) the driver, and how they are compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from host import Others
from lib.nodes import Node

CLIENT, SERVER = "10.9.0.1", "10.9.0.2"
# The longest that one command may take: measurements are sized to take about a second.
LIMIT = 240.0
USER_HZ = 100
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


COMPARISONS = (
    What("bulk", "1 MiB messages, 8 at a time", 1 << 20, 8),
    What("round-trips", "empty messages, one at a time", 0, 1),
    What("rate", "empty messages, 16 at a time", 0, 16),
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
    bare: list[Sample] = field(default_factory=list)
    driver: list[Sample] = field(default_factory=list)
    again: int = 0  # measurements that were taken again because the host was busy

    def disturbed(self) -> int:
        """How many of the measurements that count were disturbed nevertheless."""
        return sum(sample.others > DISTURBED for sample in (*self.bare, *self.driver))


Side = Callable[[What, int], Sample]


class Pair:
    """Two network namespaces with a cable between, and both modules."""

    def __init__(self, node: Node, pid: int, *, apart: bool) -> None:
        self._node = node
        self._others = Others(pid)
        self._spare = 0
        # Where the threads of (a) run: on two processors, as if they were two machines, or anywhere.
        self._processors = " 0 1" if apart else ""
        # Where the kernel does not have it built in.
        node.run("sh", "-c", "[ ! -e /lib/veth.ko ] || insmod /lib/veth.ko")
        for space in "ab":
            node.run("ip", "netns", "add", space)
        node.run("ip", "link", "add", "veth0", "netns", "a", "type", "veth", "peer", "name", "veth0", "netns", "b")
        for space, address in (("a", CLIENT), ("b", SERVER)):
            node.run("ip", "-n", space, "link", "set", "lo", "up")
            node.run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "veth0")
            node.run("ip", "-n", space, "link", "set", "veth0", "up")
        node.insert_module()
        for space, address in (("a", CLIENT), ("b", SERVER)):
            self._within(space, "socklctl", "ni", "add", f"{address}@tcp")
        node.stay("ready", *_enter("b"), "socklctl", "serve")
        node.run("insmod", "/lib/tcpbench.ko")
        self._within("b", "sh", "-c", "echo >/sys/kernel/debug/tcpbench/server")

    def _within(self, space: str, *command: str) -> str:
        return self._node.run(*_enter(space), *command, limit=LIMIT)

    def _measured(self, *command: str) -> tuple[float, float, dict[str, Any]]:
        """Runs a command in namespace a: the processor time that the machine used, the share of the
        host that others did, and the answer.
        """
        script = 'head -n 1 /proc/stat && "$@" && head -n 1 /proc/stat'
        self._others.begin()
        before, *answer, after = self._within("a", "sh", "-c", script, "sh", *command).splitlines()
        return _busy(after) - _busy(before), self._others.share(), json.loads("\n".join(answer))

    def bare(self, what: What, count: int) -> Sample:
        """(a): one TCP connection of the kernel's own."""
        spec = f"{SERVER} {what.size} {count} {what.in_flight}{self._processors}"
        script = 'cd /sys/kernel/debug/tcpbench && echo "$1" >run && cat run'
        cpu, others, raw = self._measured("sh", "-c", script, "sh", spec)
        return Sample(raw["elapsed_ns"] / 1e9, raw["messages"], cpu, others, raw)

    def driver(self, what: What, count: int) -> Sample:
        """(b): the driver. Contents are not compared, as nobody does that for (a)."""
        cpu, others, raw = self._measured(
            "socklctl", "--json", "bench", "--op", "put", "--no-verify", "--size", str(what.size),
            "--count", str(count), "--in-flight", str(what.in_flight), f"{SERVER}@tcp",
        )
        return Sample(raw["elapsed_ns"] / 1e9, raw["messages"], cpu, others, raw)

    def compare(self, what: What, rounds: int, seconds: float) -> Comparison:
        """Measures both sides in turn, changing their order each time."""
        self._spare = spare = 2 * rounds * (ATTEMPTS - 1)
        comparison = Comparison(what, self._calibrate(what, seconds))
        sides: list[tuple[Side, list[Sample]]] = [(self.bare, comparison.bare), (self.driver, comparison.driver)]
        self.driver(what, comparison.count)  # connects, and warms up
        for _ in range(rounds):
            for side, samples in sides:
                samples.append(self._undisturbed(side, what, comparison.count))
            sides.reverse()
        comparison.again = spare - self._spare
        return comparison

    def _undisturbed(self, side: Side, what: What, count: int) -> Sample:
        """Measures; if the host was busy, again, as often as is allowed."""
        while (sample := side(what, count)).others > DISTURBED and self._spare > 0:
            self._spare -= 1
        return sample

    def _calibrate(self, what: What, seconds: float) -> int:
        """How many messages it takes to keep bare TCP busy for as long as a measurement should be."""
        count = 16
        while (sample := self._undisturbed(self.bare, what, count)).seconds < seconds / 2:
            count = max(count * 2, int(count * min(16, 0.8 * seconds / sample.seconds)))
        return max(count, int(count * seconds / sample.seconds))

    def close(self) -> dict[str, Any]:
        """What the driver says in the end; then takes down everything."""
        state = {
            f"{what} {space}": json.loads(self._within(space, "socklctl", "--json", *what.split()))
            for space in "ab" for what in ("conn list", "stats")
        }
        self._node.run("killall", "socklctl")
        self._node.remove_module()
        self._node.run("rmmod", "tcpbench")
        return state


def _enter(space: str) -> tuple[str, str]:
    return "nsenter", f"--net=/run/netns/{space}"


def _busy(line: str) -> float:
    """Seconds that processors have been busy, from the first line of /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq = (int(word) for word in line.split()[1:8])
    return (user + nice + system + irq + softirq) / USER_HZ
