# SPDX-License-Identifier: GPL-2.0
"""Counts instructions, in an emulated machine whose clock is its instruction counter: the time that a guest measures
is the number of instructions that were executed, by all of its processors. That is exact to half a percent, however
busy the host is; but it is no time: nothing is seen of cache misses, contention, or what waits for what.

A message is a PUT and its ACK, with both nodes in one kernel. Every figure is taken twice, as the processor announces
fast string instructions or does not: with them each byte that is copied or cleared counts as one instruction, without
them eight are one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import machine
from lib import klog, paths
from measure import LIMIT, NEVER, Nodes, What

FILE = paths.BUILD / "bench" / "instructions.tsv"
# One processor's turn after the other's, and no time goes by while none has anything to do.
ACCEL = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu"]
MODELS = {"fast": "max,la57=off", "slow": "max,la57=off,erms=off,fsrm=off"}
# What a guest still does after it has booted would be counted too. Seconds of the guest.
REST_S = 30
# Instructions that a measurement should take, which hides what a command takes to start; and messages.
WANTED = 100_000_000
LEAST, MOST = 24, 20_000
# A payload's byte costs an instruction or more; a message without any this many.
ROUGHLY = 20_000

KIB, MIB = 1 << 10, 1 << 20
SMALL = ((0, 1), (0, 4), (0, 16), (0, 64), (KIB, 1), (KIB, 16), (4 * KIB, 1), (4 * KIB, 16))
LARGE = ((64 * KIB, 8), (MIB, 8))


@dataclass(frozen=True)
class Case:
    """Something to measure: messages with a payload of so many bytes, so many of them under way at a time."""

    what: str
    payload: int
    in_flight: int
    processors: int

    def messages(self) -> int:
        """How many to measure."""
        return max(LEAST, self.in_flight * 4, min(MOST, WANTED // (ROUGHLY + 3 * self.payload)))


# put: the payload is copied into TCP's memory; put-lent: its pages are lent; gateway: through a third node, without a payload.
CASES = [
    *(Case("put", *each, 1) for each in (*SMALL, *LARGE)),
    *(Case("put-lent", *each, 1) for each in ((4 * KIB, 16), *LARGE)),
    *(Case("gateway", 0, in_flight, 1) for in_flight in (1, 16)),
    *(Case("put", 0, in_flight, 2) for in_flight in (1, 16)),
]


@dataclass(frozen=True)
class Row:
    """Instructions per message: of bare TCP where that can do the same, and of the driver; with fast string
    instructions, and without.
    """

    what: str
    payload: int
    in_flight: int
    processors: int
    bare: int | None
    driver: int
    bare_slow: int | None
    driver_slow: int

    def key(self) -> tuple[str, int, int, int]:
        """What was measured."""
        return self.what, self.payload, self.in_flight, self.processors


def _messages(nodes: Nodes, case: Case) -> tuple[int | None, int]:
    """Instructions per message, of bare TCP and of the driver."""
    what = What(case.what, "", case.payload, case.in_flight)
    sides = [nodes.gateway] if case.what == "gateway" else [nodes.bare, nodes.driver]
    figures: list[int] = []
    for side in sides:
        side(what, max(16, case.messages() // 8))  # connects, and warms up
        sample = side(what, case.messages())
        figures.append(round(sample.seconds * 1e9 / sample.messages))
    return (figures[0] if len(figures) > 1 else None), figures[-1]


def _measure(where: machine.Platform, archive: Path, model: str, cases: list[Case]) -> dict[Case, tuple[int | None, int]]:
    """Measures cases that need the same number of processors, in one machine."""
    platform = replace(where, cpus=cases[0].processors, accel=[*ACCEL, MODELS[model]])
    found = {}
    with machine.boot(platform, archive) as (node, pid):
        nodes = Nodes(node, pid, apart=False)
        node.run("sleep", str(REST_S), limit=LIMIT)
        for case in cases:
            nodes.lend(1 if case.what == "put-lent" else NEVER)
            found[case] = _messages(nodes, case)
        nodes.close()
        node.end()
        if trouble := klog.trouble(node.vm.console()):
            raise machine.Unsound(trouble)
    return found


def count(where: machine.Platform, archive: Path) -> Iterator[Row]:
    """Measures everything; gives each figure as soon as it is complete."""
    for processors in sorted({case.processors for case in CASES}):
        cases = [case for case in CASES if case.processors == processors]
        fast, slow = (_measure(where, archive, model, cases) for model in MODELS)
        for case in cases:
            (bare, driver), (bare_slow, driver_slow) = fast[case], slow[case]
            yield Row(case.what, case.payload, case.in_flight, processors, bare, driver, bare_slow, driver_slow)


def heading(earlier: dict[tuple[str, int, int, int], Row]) -> str:
    """What the columns of the rows are."""
    return (
        "Instructions per message, a PUT and its ACK; in brackets without fast string instructions\n"
        f"{'':10}{'bytes':>9}{'in flight':>11}{'processors':>12}{'bare TCP':>22}{'ksocklnd':>22}"
        + f"{'before':>11}{'change':>9}" * bool(earlier)
    )


def line(row: Row, earlier: dict[tuple[str, int, int, int], Row]) -> str:
    """A row of the table, with what was measured earlier if that is known."""
    text = f"{row.what:10}{row.payload:9}{row.in_flight:11}{row.processors:12}"
    text += f"{_both(row.bare, row.bare_slow):>22}{_both(row.driver, row.driver_slow):>22}"
    if before := earlier.get(row.key()):
        text += f"{before.driver:11}{row.driver / before.driver - 1:9.1%}"
    return text


def _both(fast: int | None, slow: int | None) -> str:
    return "-" if fast is None else f"{fast} ({slow})"


def save(rows: list[Row], to: Path = FILE) -> None:
    """Writes all rows, and a line with the names of the columns before them."""
    with open(to, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, delimiter="\t", lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(["-" if value is None else value for value in astuple(row)] for row in rows)


def load(source: Path) -> dict[tuple[str, int, int, int], Row]:
    """The rows of an earlier measurement."""
    with open(source, encoding="utf-8", newline="") as lines:
        found = [
            Row(each["what"], *(None if each[field.name] == "-" else int(each[field.name]) for field in fields(Row)[1:]))
            for each in csv.DictReader(lines, delimiter="\t")
        ]
    return {row.key(): row for row in found}
