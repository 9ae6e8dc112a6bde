# SPDX-License-Identifier: GPL-2.0
"""Shows the module at work: two machines, pings, half a gibibyte of verified data, what it took."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from lib import accel, paths
from lib.nodes import CommandFailed, Node, Pair, at_once
from lib.twonode import MIB, bench_command, configure, rest_and_remove, serve
from lib.vm import GuestDied

COUNT = 128  # MiB, each way, by PUT and again by GET
TRANSFER_SECONDS = 60.0
BAR = 30


class Stage:
    """What is shown, with the time that has passed."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._live = sys.stdout.isatty()

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """A line."""
        end = "\033[K\n" if self._live else "\n"
        print(f"{self._stamp()} {text}", end=end, flush=True)

    def show(self, text: str) -> None:
        """A line that the next one replaces; only for who looks on."""
        if self._live:
            print(f"{self._stamp()} {text}\033[K", end="\r", flush=True)

    def block(self, text: str) -> None:
        """Several lines as they are."""
        for line in text.rstrip().splitlines():
            print(f"           {line}", flush=True)

    def _stamp(self) -> str:
        return f"[{self.seconds():6.1f} s]"


def run(*, keep: bool = False) -> int:
    """The whole show; gives the exit status."""
    stage = Stage()
    kernel = paths.kernel("stock")
    with Pair("demo", kernel, keep=keep) as pair:
        try:
            _show(stage, kernel, pair)
        except (CommandFailed, GuestDied, OSError, ValueError, TimeoutError) as error:
            stage.say(f"FAILED: {error or type(error).__name__}")
            if trouble := pair.trouble():
                stage.block(trouble)
            return 1
        if trouble := pair.trouble():
            stage.say("FAILED: a kernel complains")
            stage.block(trouble)
            return 1
    stage.say("all data verified, no warning in either kernel's log: it works")
    return 0


def _show(stage: Stage, kernel: paths.Kernel, pair: Pair) -> None:
    stage.say(f"starting two machines ({how(kernel)}), Linux {kernel.release} as Debian ships it")
    one, two = pair.boot_both()
    nodes = [(one, two), (two, one)]
    stage.say("both are up; inserting ksocklnd.ko, adding interfaces and peers")
    at_once(*(lambda node=node, other=other: configure(node, other) for node, other in nodes))
    for node, other in nodes:
        ping(stage, node, other)
    for node, _ in nodes:
        serve(node)
    stage.say(f"moving {2 * COUNT} MiB each way in messages of 1 MiB, half by PUT, half by GET, all verified")
    rows = [transfer(stage, node, other, op) for op in ("put", "get") for node, other in nodes]
    stage.say("connections of node 1:")
    stage.block(one.run("socklctl", "conn", "list"))
    stage.say("figures:")
    stage.block(table(rows))
    for node, _ in nodes:
        node.run("killall", "socklctl")
        node.socklctl("peer", "del", "any")
    at_once(*(lambda node=node: rest_and_remove(node) for node, _ in nodes))
    stage.say("interfaces and module removed; nothing was left behind")
    at_once(one.end, two.end)


def how(kernel: paths.Kernel) -> str:
    """How machines run here."""
    return "emulated" if accel.arguments(kernel) is accel.TCG else "virtualised"


def ping(stage: Stage, node: Node, other: Node) -> None:
    """Two pings that must be answered."""
    times = []
    for _ in range(2):
        answer = node.socklctl("ping", other.nid)
        times.append(answer["rtt_ns"]["min"] / 1e6)
    stage.say(f"{node.name} pings {other.nid}: {times[0]:.1f} ms with connecting, {times[1]:.1f} ms without")


def transfer(stage: Stage, node: Node, other: Node, op: str, count: int = COUNT) -> list[str]:
    """So many MiB, verified, with a bar while they move; gives a row for the table of figures."""
    sender, receiver = (node, other) if op == "put" else (other, node)
    what = f"{op.upper()} {sender.name} -> {receiver.name}"
    job = node.start(*bench_command(other, op, MIB, count, TRANSFER_SECONDS), limit=TRANSFER_SECONDS + 20)
    before = _received(receiver)
    while not job.done():
        done = min((_received(receiver) - before) // MIB, count)
        bar = "#" * (BAR * done // count)
        stage.show(f"{what} [{bar:<{BAR}}] {done:4} of {count} MiB")
        time.sleep(0.3)
    result: dict[str, Any] = json.loads(node.finish(job, what))
    wanted = {"messages": count, "bytes": count * MIB, "errors": 0, "verify_failures": 0, "verify": True}
    if any(result[name] != value for name, value in wanted.items()):
        raise CommandFailed(f"{what}: {result}")
    seconds = result["elapsed_ns"] / 1e9
    stage.say(f"{what}: {count} MiB in {seconds:.1f} s, verified")
    latency = result["latency_ns"]
    return [
        what, str(result["messages"]), str(result["bytes"] // MIB), f"{seconds:.2f}", f"{count / seconds:.1f}",
        f"{latency['mean'] / 1e6:.1f}", f"{latency['max'] / 1e6:.1f}", str(result["verify_failures"]),
    ]


def _received(node: Node) -> int:
    return int(node.socklctl("stats")[0]["rx"]["bytes"])


def table(rows: list[list[str]]) -> str:
    """What transfers took."""
    titles = ["transfer", "messages", "MiB", "s", "MiB/s", "mean ms", "max ms", "wrong"]
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    lines = []
    for row in [titles, *rows]:
        first, rest = row[0].ljust(widths[0]), [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join([first, *rest]))
    return "\n".join(lines)
