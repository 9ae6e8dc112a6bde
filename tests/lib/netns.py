# SPDX-License-Identifier: GPL-2.0
"""Scenarios of several nodes in one virtual machine on the debug kernel."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

from lib import initramfs, klog, paths, results
from lib.report import Report
from lib.uml import machine
from lib.vm import Spec, Vm

CPUS = 2
MEMORY = 2048
# No KUnit while scenarios run: each inserts the module anew.
CMDLINE = "kunit.enable=0 kmemleak=on"


# Scenarios that take long.
SOAK = paths.TESTS / "soak-scenarios"
# Those in which the address family can make a difference to the driver: with all, `make test` takes too long.
IPV6_SCENARIOS = paths.TESTS / "ipv6-scenarios"
# Over IPv6 a scenario has its name with this ending.
IPV6 = "_ipv6"

# What User Mode Linux can't do: it is built without user namespaces, faults on demand and tracing.
DEBUG_ONLY = (
    "no_capability", "no_memory_inserting", "no_memory_connecting", "no_memory_in_transfer", "no_memory_once",
    "no_memory_once_at_gateway", "tracepoints",
)


def names(pattern: str | None) -> list[str]:
    """The scenarios that are to be run, in their order.

    Without a pattern, those of `make test`; "soak" and "ipv6" are those of `make soak` and of `make test-ipv6`;
    others are regular expressions.
    """
    runner = paths.need(paths.GUEST_RUNNER, "make host")
    listing = subprocess.run([runner, "list"], check=True, capture_output=True, text=True).stdout
    there = listing.split()
    soak = SOAK.read_text().split()
    ipv6 = [f"{name}{IPV6}" for name in IPV6_SCENARIOS.read_text().split()]
    if unknown := {*soak, *ipv6, *DEBUG_ONLY}.difference(there):
        raise paths.Missing(f"there are no scenarios {', '.join(sorted(unknown))}, but they are listed")
    if pattern not in (None, "soak", "ipv6"):
        return [name for name in there if re.search(pattern, name)]
    wanted: dict[str | None, Callable[[str], bool]] = {
        None: lambda name: name not in soak and (not name.endswith(IPV6) or name in ipv6),
        "soak": lambda name: name in soak,
        "ipv6": lambda name: name.endswith(IPV6) and name.removesuffix(IPV6) not in soak,
    }
    return [name for name in there if wanted[pattern](name)]


def run(report: Report, pattern: str | None, *, keep: bool = False, on: str = "debug") -> None:
    """Runs them in one guest. If that is lost, another one goes on with those that are left."""
    pending = names(pattern)
    if on != "debug":
        pending = [name for name in pending if name.removesuffix(IPV6) not in DEBUG_ONLY]
    if not pending:
        return
    kernel = paths.kernel(on)
    archive = initramfs.build(kernel, paths.BUILD / "tests" / f"netns-{on}.initramfs", initramfs.NETWORK)
    round_number = 0
    while pending:
        round_number += 1
        spec = Spec(
            name="netns" if round_number == 1 else f"netns-{round_number}",
            kernel=kernel,
            initramfs=archive,
            logs=paths.LOGS,
            runner=["netns"],
            cpus=CPUS,
            memory=MEMORY,
            cmdline=CMDLINE,
        )
        report.say(f"netns: {len(pending)} scenarios on Linux {kernel.release}")
        with machine(spec) as vm:
            pending = _one_guest(vm, report, pending)
    if not keep:
        archive.unlink()


def _one_guest(vm: Vm, report: Report, pending: list[str]) -> list[str]:
    """Runs one guest; returns the scenarios that it did not come to."""
    outcome = results.follow(vm, "netns", report, wanted=" ".join(pending))
    rest = [name for name in pending if name not in outcome.finished]
    if outcome.lost is not None:
        lost = outcome.current or "the guest"
        log = klog.section(vm.console(), lost) or vm.console()[-3000:]
        report.result(f"netns: {lost}", f"{outcome.lost}\n{klog.trouble(log) or log[-3000:]}")
        return [name for name in rest if name != lost] if outcome.current else []
    for name in rest:
        report.result(f"netns: {name}", "the guest did not run it")
    report.result("netns: kernel log outside of scenarios", results.judge_rest(vm))
    return []
