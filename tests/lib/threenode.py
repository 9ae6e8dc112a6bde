# SPDX-License-Identifier: GPL-2.0
"""A scenario of three virtual machines on the stock kernel: a client, a gateway, a server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from lib import paths
from lib.nodes import CommandFailed, Crossing, Node, at_once
from lib.report import Report
from lib.twonode import MIB, await_traffic, bench_command, rest_and_remove, run_steps, serve, transfer

# Each size so many times, four ways.
SIZES = ((0, 200), (1, 200), (4096, 200), (4097, 200), (65537, 100), (MIB, 50))
COUNT_AGAIN = 20
# How long a transfer may go on whose gateway is dead, and a ping that nobody passes on.
DEAD_SECONDS = 20
LOST_SECONDS = 5
# Seconds without progress until an end gives the gateway up; while it is expected to live, and when it is killed.
PATIENT, IMPATIENT = 50, 10
# Longer than the time between two attempts to find a gateway again grows to.
WAIT_SECONDS = 120.0


class Gateway:
    """Steps that build on each other; each is a test of its own."""

    def __init__(self, machines: Crossing) -> None:
        self._machines = machines
        self.client: Node
        self.server: Node
        self.gateway: Node

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """All of them in order."""
        return [
            ("boot", self.boot),
            ("configure", self.configure),
            ("without routes", self.no_routes),
            ("routes, but forwarding is off", self.off),
            ("forwarding on: ping both ways", self.on),
            *((f"{count} times {size} bytes, four ways", lambda size=size, count=count: self.four_ways(size, count))
              for size, count in SIZES),
            ("both sides only know the gateway", self.only_neighbours),
            ("gateway's power cut in mid-transfer", self.power_cut),
            ("the gateway comes back", self.come_back),
            ("transfers as before", lambda: self.four_ways(MIB, COUNT_AGAIN)),
            ("unload", self.unload),
            ("power off", self.end),
        ]

    def boot(self) -> None:
        """Three machines come up."""
        self.client, self.server, self.gateway = self._machines.boot_all(3)

    def ends(self) -> list[tuple[Node, Node]]:
        """Each end with the other."""
        return [(self.client, self.server), (self.server, self.client)]

    def configure(self) -> None:
        """The module is inserted; nobody forwards yet, and IP does nowhere."""
        at_once(*(lambda node=node: configure(node) for node in (self.client, self.server, self.gateway)))
        for node, other in self.ends():
            # No packet finds its way across: there is no route, and nobody would pass it on.
            if node.start("ip", "route", "get", other.addr).result().status == 0:
                raise CommandFailed(f"{node.name}: there is an IP route to {other.addr}")
        if int(self.gateway.run("sysctl", "-n", "net.ipv4.ip_forward")):
            raise CommandFailed("the gateway forwards IP packets")

    def no_routes(self) -> None:
        """A network that nothing leads to is an error at once."""
        for node, other in self.ends():
            must_fail(node, other, "ENETUNREACH")

    def off(self) -> None:
        """What a node that does not forward is given for others is lost, and counted."""
        add_routes(self.client, self.server, self.gateway)
        for node, other in self.ends():
            expected = forwarded(self.gateway)
            expected["off"] += 1
            must_fail(node, other, "ETIMEDOUT")
            await_counts(self.gateway, lambda now, expected=expected: now == expected)

    def on(self) -> None:
        """With forwarding on, each end reaches the other."""
        self.gateway.socklctl("set", "routing", "on")
        for node, other in self.ends():
            node.socklctl("ping", other.nid)
        # Two pings and their answers.
        await_counts(self.gateway, lambda now: now["msgs"] == 4)
        for node, _ in self.ends():
            serve(node)

    def four_ways(self, size: int, count: int) -> None:
        """PUT and GET from both at the same time, verified; all of it through the gateway."""
        before = forwarded(self.gateway)
        at_once(*(
            lambda node=node, other=other, op=op: transfer(node, other, op, size, count)
            for node, other in self.ends() for op in ("put", "get")
        ))
        # Each message and its answer.
        msgs, nob = before["msgs"] + 8 * count, before["bytes"] + 4 * count * size
        await_counts(self.gateway, lambda now: now["msgs"] >= msgs and now["bytes"] >= nob)
        now = forwarded(self.gateway)
        if lost := {cause: now[cause] for cause in set(now) - {"msgs", "bytes"} if now[cause] != before[cause]}:
            raise CommandFailed(f"the gateway did not pass on: {lost}, before it was {before}")

    def only_neighbours(self) -> None:
        """No end has a connection to the other."""
        for node, _ in self.ends():
            peers = {conn["nid"] for conn in node.socklctl("conn", "list")}
            if len(peers) != 1 or not peers.issubset(self.gateway.nids):
                raise CommandFailed(f"the {node.name} is connected to {sorted(peers)}")

    def power_cut(self) -> None:
        """Transfers fail in bounded time, the routes go down, and then sending fails at once."""
        for node, _ in self.ends():
            be_patient(node, IMPATIENT)
        jobs = [
            self.client.start(*bench_command(self.server, op, MIB, 100_000, DEAD_SECONDS), limit=DEAD_SECONDS + 60)
            for op in ("put", "get")
        ]
        await_traffic(self.client, 20 * MIB)
        self.gateway.vm.kill()
        for job in jobs:
            output = job.result(DEAD_SECONDS + 90)
            if output.status == 0:
                raise CommandFailed(f"the transfer claims success: {output.stdout}")
        for node, other in self.ends():
            await_route(node, "down")
            must_fail(node, other, "EHOSTUNREACH")
            be_patient(node, PATIENT)

    def come_back(self) -> None:
        """It boots again and is set up as before; the ends find it by themselves."""
        self.gateway = self._machines.boot(Crossing.GATEWAY, life=2)
        self.gateway.await_ready()
        configure(self.gateway)
        self.gateway.socklctl("set", "routing", "on")
        for node, _ in self.ends():
            await_route(node, "up")
        for node, other in self.ends():
            node.socklctl("ping", other.nid)

    def unload(self) -> None:
        """Interfaces, buffers and module go; nothing is left."""
        for node, _ in self.ends():
            node.run("killall", "socklctl")
        await_idle_buffers(self.gateway)
        for node in (self.client, self.server, self.gateway):
            node.socklctl("peer", "del", "any")
        at_once(*(lambda node=node: rest_and_remove(node) for node in (self.client, self.server, self.gateway)))

    def end(self) -> None:
        """The machines power off by themselves."""
        at_once(self.client.end, self.server.end, self.gateway.end)


def configure(node: Node) -> None:
    """Makes a machine a node on each of its networks."""
    node.set_up_network()
    node.insert_module()
    for nid in node.nids:
        node.socklctl("ni", "add", nid)


def add_routes(client: Node, server: Node, gateway: Node) -> None:
    """Tells both ends about the gateway."""
    on_tcp, on_tcp1 = gateway.nids
    client.socklctl("route", "add", "tcp1", on_tcp)
    server.socklctl("route", "add", "tcp", on_tcp1)


def must_fail(node: Node, other: Node, errno: str) -> str:
    """A ping that ends with this error; gives what is said about it."""
    answer = node.start("socklctl", "--json", "ping", "-W", str(LOST_SECONDS), other.nid).result(WAIT_SECONDS)
    if answer.status == 0:
        raise CommandFailed(f"{node.name} reaches {other.nid}: {answer.stdout}")
    error: dict[str, str] = json.loads(answer.stderr)
    if error["errno"] != errno:
        raise CommandFailed(f"{node.name}: {error} instead of {errno}")
    return error["error"]


def forwarded(gateway: Node) -> dict[str, int]:
    """What a gateway has passed on and what not, of all its interfaces."""
    counts: dict[str, int] = {}
    for stats in gateway.socklctl("stats"):
        for name, count in stats["forwarding"].items():
            counts[name] = counts.get(name, 0) + int(count)
    return counts


def await_counts(gateway: Node, enough: Callable[[dict[str, int]], bool]) -> None:
    """Waits until a gateway has counted what it did: that is a moment later than when others feel it."""
    _await(lambda: enough(forwarded(gateway)), lambda: f"the gateway counts {forwarded(gateway)}")


def be_patient(node: Node, seconds: int) -> None:
    """Sets how long a node waits for progress."""
    node.run("sh", "-c", f"echo {seconds} >/sys/module/ksocklnd/parameters/sock_timeout")


def await_route(node: Node, state: str) -> None:
    """Waits until a node's only route is in this state."""
    def now() -> Any:
        routes = node.socklctl("route", "list")
        return routes[0]["state"] if len(routes) == 1 else routes

    _await(lambda: now() == state, lambda: f"{node.name}: its route is {now()}, not {state}")


def await_idle_buffers(gateway: Node) -> None:
    """Waits until a gateway has nothing of anybody's."""
    def busy() -> int:
        routing = gateway.socklctl("show", "routing")
        return int(routing["small"]["busy"] + routing["large"]["busy"])

    _await(lambda: busy() == 0, lambda: f"{busy()} of the gateway's buffers are in use")


def _await(reached: Callable[[], bool], why_not: Callable[[], str]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise CommandFailed(why_not())
        time.sleep(0.1)


def run(report: Report, pattern: str | None, *, keep: bool = False) -> None:
    """Runs the scenarios, three machines at a time."""
    kernel = paths.kernel("stock")
    for name, kind in (("gateway", Gateway),):
        if not pattern or re.search(pattern, name):
            report.say(f"three-node: {name} on Linux {kernel.release}")
            with Crossing(f"three-node-{name}", kernel, keep=keep) as machines:
                run_steps(report, "three-node", name, kind(machines).steps(), machines)
                report.result(f"three-node: {name}: kernel logs", machines.trouble())
