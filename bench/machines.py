# SPDX-License-Identifier: GPL-2.0
"""A gateway in a virtual machine of its own, between two others: what it saves by lending pages to TCP.

Nodes in one kernel can't show that, for what is lent to a receiver on the same machine is copied on the way. The
processor time is that of the gateway's machine alone.
"""

from __future__ import annotations

from host import Watch, go_first
from lib.nodes import Node, at_once
from lib.threenode import add_routes, configure
from lib.twonode import MIB, rest_and_remove, serve
from measure import LIMIT, NEVER, ZERO_COPY, Comparison, Sample, What

WHAT = What("machines", "1 MiB messages, 8 at a time, between machines", MIB, 8, ("d", "c"))
WARM_UP = 16


class Measurement:
    """Three machines that are up and know each other."""

    def __init__(self, client: Node, server: Node, gateway: Node) -> None:
        self._client, self._server, self._gateway = client, server, gateway
        self._host = Watch(gateway.vm.pid)
        for node in (client, server, gateway):
            go_first(node.vm.pid)
        at_once(*(lambda node=node: configure(node) for node in (client, server, gateway)))
        add_routes(client, server, gateway)
        gateway.socklctl("set", "routing", "on")
        serve(server)
        self._lent = int(gateway.run("cat", ZERO_COPY))

    def _sample(self, count: int, least: int) -> Sample:
        """So many messages, while the gateway lends what has at least so many bytes."""
        self._gateway.run("sh", "-c", f"echo {least} >{ZERO_COPY}")
        self._host.begin()
        raw = self._client.socklctl(
            "bench", "--op", "put", "--no-verify", "--size", str(WHAT.size), "--count", str(count),
            "--in-flight", str(WHAT.in_flight), self._server.nid, limit=LIMIT,
        )
        return Sample(raw["elapsed_ns"] / 1e9, raw["messages"], self._host.own(), self._host.others(), raw)

    def compare(self, rounds: int, seconds: float) -> Comparison:
        """Measures copying and lending in turn, changing their order each time."""
        for least in (NEVER, self._lent):
            warm = self._sample(WARM_UP, least)
        comparison = Comparison(WHAT, max(WARM_UP, int(warm.messages * seconds / warm.seconds)))
        sides = [(NEVER, comparison.first), (self._lent, comparison.second)]
        before = self._lent_and_copied()
        for _ in range(rounds):
            for least, samples in sides:
                samples.append(self._sample(comparison.count, least))
            sides.reverse()
        lent, copied = (now - then for now, then in zip(self._lent_and_copied(), before))
        comparison.copied = copied / lent if lent else None
        return comparison

    def _lent_and_copied(self) -> tuple[int, int]:
        stats = [each["zero_copy"] for each in self._gateway.socklctl("stats")]
        return sum(each["msgs"] for each in stats), sum(each["copied"] for each in stats)

    def end(self) -> None:
        """Takes down everything."""
        self._server.run("killall", "socklctl")
        nodes = (self._client, self._server, self._gateway)
        for node in nodes:
            node.socklctl("peer", "del", "any")
        at_once(*(lambda node=node: rest_and_remove(node) for node in nodes))
        at_once(*(node.end for node in nodes))
