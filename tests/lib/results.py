# SPDX-License-Identifier: GPL-2.0
"""Follows a guest that reports in KTAP while it runs, and judges each of its tests."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lib import klog
from lib.report import Report
from lib.vm import GuestDied, Vm

# How long a guest may take to boot, and how much later than it said a test may end.
BOOT_SECONDS = 300.0
# How often it may fail to. The module is not there before a guest's runner is, so that is the emulator's fault: beside other
# work a processor sometimes misses the timer's interrupt that it waits for before the first program is started.
BOOTS = 3
GRACE_SECONDS = 60.0
EXIT_SECONDS = 30.0

_BEGIN = re.compile(r"# begin (\S+) (\d+)$")
_RESULT = re.compile(r"(not ok|ok) \d+ (\S+)")
_TIMES = re.compile(r"# times: (.+)$")
# A guest says that it does not go on after a test that failed.
_RETIRES = "# retires"


@dataclass
class Outcome:
    """What came of one guest."""

    booted: bool = False  # whether its runner said anything
    finished: set[str] = field(default_factory=set)
    current: str | None = None  # the test that ran when the guest was lost
    lost: str | None = None  # why the guest did not come to its end
    retired: bool = False  # whether it ended early because a test failed


def follow(vm: Vm, group: str, report: Report, *, supply: Callable[[], str | None] = lambda: None) -> Outcome:
    """Reads results until the guest ends; reports each as it comes.

    A guest that asks for a test is given the next one that `supply` names, or told that there is none left.
    """
    outcome = Outcome()
    try:
        outcome.lost = _read(vm, group, report, outcome, supply)
    except GuestDied as died:
        outcome.lost = str(died)
    if outcome.lost is None and not vm.wait(EXIT_SECONDS):
        outcome.lost = f"{vm.name} did not power off"
    return outcome


def _read(vm: Vm, group: str, report: Report, outcome: Outcome, supply: Callable[[], str | None]) -> str | None:
    """Returns why the guest was lost, None when it came to the end of its tests."""
    limit = BOOT_SECONDS
    started = time.monotonic()
    notes: list[str] = []
    parts = ""
    while True:
        line = vm.line(limit)
        if line is None:
            return f"{vm.name} ended early. {vm.why_qemu_failed()}".strip()
        outcome.booted = True
        if begin := _BEGIN.match(line):
            outcome.current = begin.group(1)
            limit = float(begin.group(2)) + GRACE_SECONDS
            started = time.monotonic()
            parts = ""
            notes.clear()
        elif result := _RESULT.match(line):
            name = result.group(2)
            why = None if result.group(1) == "ok" else "\n".join(notes) or "no reason given"
            report.result(f"{group}: {name}", judge(vm, name, why), time.monotonic() - started, parts)
            outcome.finished.add(name)
            outcome.current = None
            notes.clear()
        elif line == "ready":
            outcome.current = supply()
            vm.say(outcome.current or "")
        elif line.startswith("Bail out!"):
            return line
        elif line == _RETIRES:
            outcome.retired = True
        elif line == "# end":
            return None
        elif times := _TIMES.match(line):
            parts = times.group(1)
        elif line.startswith("# "):
            notes.append(line[2:])


def judge(vm: Vm, name: str, why: str | None) -> str | None:
    """Adds to a test's own verdict what the kernel logged meanwhile."""
    log = klog.await_end(vm.console, name)
    if f"socklnd-tests: end {name}\n" not in log:
        return _both(why, f"the end of the test is not in the log {vm.console_log}")
    return _both(why, klog.trouble(klog.section(log, name)))


def judge_rest(vm: Vm) -> str | None:
    """What the kernel logged outside of all tests."""
    return klog.trouble(klog.outside(vm.console().replace("\r\n", "\n")))


def _both(one: str | None, other: str | None) -> str | None:
    return "\n".join(text for text in (one, other) if text) or None
