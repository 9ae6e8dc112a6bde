# SPDX-License-Identifier: GPL-2.0
"""Shows a gateway at work: three machines, verified data across, and what happens when the gateway dies."""

from __future__ import annotations

from lib import paths
from lib.demo import Stage, how, ping, table, transfer
from lib.nodes import CommandFailed, Crossing, at_once
from lib.threenode import (
    IMPATIENT, PATIENT, add_routes, await_idle_buffers, await_route, be_patient, configure, forwarded, must_fail,
)
from lib.twonode import MIB, rest_and_remove, serve
from lib.vm import GuestDied

COUNT = 64  # MiB, each way, by PUT and again by GET

PLAN = """\
client                      gateway                       server
10.0.0.1@tcp ──── 10.0.0.254@tcp │ 10.1.0.254@tcp1 ──── 10.1.0.1@tcp1
"""

NEXT = """\
docs/gateways.md       the same with your own machines, from nothing to a ping across
make shell             two machines to play with; 'socklctl route --help' on one of them
make bench             what a gateway costs: ARGS='--only gateway'
build/logs             what the three kernels said: demo-gateway-*.console
"""


def run(*, keep: bool = False) -> int:
    """The whole show; gives the exit status."""
    stage = Stage()
    kernel = paths.kernel("stock")
    with Crossing("demo-gateway", kernel, keep=keep) as machines:
        try:
            _show(stage, kernel, machines)
        except (CommandFailed, GuestDied, OSError, ValueError, TimeoutError) as error:
            stage.say(f"FAILED: {error or type(error).__name__}")
            if trouble := machines.trouble():
                stage.block(trouble)
            return 1
        if trouble := machines.trouble():
            stage.say("FAILED: a kernel complains")
            stage.block(trouble)
            return 1
    stage.say("all data verified, no warning in any kernel's log: it works. To try next:")
    stage.block(NEXT)
    return 0


def _show(stage: Stage, kernel: paths.Kernel, machines: Crossing) -> None:
    stage.say(f"starting three machines ({how(kernel)}), Linux {kernel.release} as Debian ships it")
    stage.block(PLAN)
    client, server, gateway = machines.boot_all(3)
    ends = [(client, server), (server, client)]
    stage.say("all are up; inserting ksocklnd.ko, adding interfaces: two on the gateway, which forwards no IP packets")
    at_once(*(lambda node=node: configure(node) for node in (client, server, gateway)))

    stage.say(f"without a route: {must_fail(client, server, 'ENETUNREACH')}")
    add_routes(client, server, gateway)
    on_tcp, on_tcp1 = gateway.nids
    stage.say(f"client: socklctl route add tcp1 {on_tcp}; server: socklctl route add tcp {on_tcp1}")
    stage.say(f"but the gateway does not forward yet: {must_fail(client, server, 'ETIMEDOUT')}")
    stage.say(f"the gateway has dropped {forwarded(gateway)['off']} message for others, and says why in its log")
    gateway.socklctl("set", "routing", "on")
    stage.say("gateway: socklctl set routing on")
    for node, other in ends:
        ping(stage, node, other)

    for node, _ in ends:
        serve(node)
    stage.say(f"moving {2 * COUNT} MiB each way in messages of 1 MiB, half by PUT, half by GET, all verified")
    rows = [transfer(stage, node, other, op, COUNT) for op in ("put", "get") for node, other in ends]
    counts = forwarded(gateway)
    stage.say(f"the gateway has passed on {counts['msgs']} messages, {counts['bytes'] // MIB} MiB; its buffers:")
    stage.block(gateway.run("socklctl", "show", "routing"))
    stage.say("figures:")
    stage.block(table(rows))

    be_patient(client, IMPATIENT)
    gateway.vm.kill()
    stage.say("the gateway's power is cut")
    must_fail(client, server, "ETIMEDOUT")
    since = stage.seconds()
    await_route(client, "down")
    stage.say(f"the client has given it up {stage.seconds() - since:.1f} s after a message that was lost; from then on:")
    stage.say(must_fail(client, server, "EHOSTUNREACH"))
    be_patient(client, PATIENT)
    stage.say("starting the gateway again")
    gateway = machines.boot(Crossing.GATEWAY, life=2)
    gateway.await_ready()
    configure(gateway)
    gateway.socklctl("set", "routing", "on")
    since = stage.seconds()
    await_route(client, "up")
    stage.say(f"it is back, and the client has found it within {stage.seconds() - since:.1f} s")
    ping(stage, client, server)
    transfer(stage, client, server, "put", COUNT)

    for node, _ in ends:
        node.run("killall", "socklctl")
    await_idle_buffers(gateway)
    for node in (client, server, gateway):
        node.socklctl("peer", "del", "any")
    at_once(*(lambda node=node: rest_and_remove(node) for node in (client, server, gateway)))
    stage.say("interfaces and modules removed; nothing was left behind")
    at_once(client.end, server.end, gateway.end)
