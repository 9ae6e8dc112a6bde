# SPDX-License-Identifier: GPL-2.0
"""Scenarios of several nodes in one virtual machine: several such machines, on two kernels, side by side."""

from __future__ import annotations

import collections
import os
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from lib import initramfs, klog, paths, results
from lib.cpio import Archive
from lib.report import Report
from lib.uml import machine
from lib.vm import Spec, Vm

CPUS = 2
# MiB: what a machine has, and what it takes of the host beside that.
MEMORY = 2048
HOST_MEMORY = 256
# An emulated machine needs all of a processor that it can get, and its scenarios are what a run waits for in the end. User
# Mode Linux takes what that leaves: most of its time it waits.
NICE = {"debug": 0, "um-debug": 10}
# No KUnit while scenarios run: each inserts the module anew.
CMDLINE = "kunit.enable=0"
# User Mode Linux keeps pointers where kmemleak does not look: it would suspect much that is no leak.
KMEMLEAK = {"debug": "kmemleak=on", "um-debug": "kmemleak=off"}


# Scenarios that take long.
SOAK = paths.TESTS / "soak-scenarios"
# Those in which the address family can make a difference to the driver: with all, `make test` takes too long.
IPV6_SCENARIOS = paths.TESTS / "ipv6-scenarios"
# What the names of scenarios begin with that are for the module under LNet, whose part the shim plays.
LNET = "lnet_"
# Over IPv6 a scenario has its name with this ending.
IPV6 = "_ipv6"

# Those that run on the emulated debug kernel, which has checkers that User Mode Linux has not.
DEBUG = paths.TESTS / "debug-scenarios"

# What User Mode Linux can't do: faults aimed at one module's code, tracing, and taking a processor away.
DEBUG_ONLY = ("no_memory_inserting", "no_memory_in_transfer", "tracepoints", "processors")


def listed(path: Path) -> list[str]:
    """The scenarios that a file names, one a line; what follows a # says why."""
    return [name for line in path.read_text().splitlines() if (name := line.partition("#")[0].strip())]


def names(pattern: str | None) -> list[str]:
    """The scenarios that are to be run, in the order in which they begin.

    Without a pattern, those of `make test`; "soak" and "ipv6" are those of `make soak` and of `make test-ipv6`;
    others are regular expressions.
    """
    runner = paths.need(paths.GUEST_RUNNER, "make host")
    listing = subprocess.run([runner, "list"], check=True, capture_output=True, text=True).stdout
    # Those that may take longest go first: then no machine is left with a long one while others have nothing to do.
    limits = {name: int(seconds) for name, seconds in (line.split() for line in listing.splitlines())}
    there = sorted(limits, key=lambda name: -limits[name])
    soak = listed(SOAK)
    ipv6 = [f"{name}{IPV6}" for name in listed(IPV6_SCENARIOS)]
    if unknown := {*soak, *ipv6, *listed(DEBUG), *DEBUG_ONLY}.difference(there):
        raise paths.Missing(f"there are no scenarios {', '.join(sorted(unknown))}, but they are listed")
    if pattern not in (None, "soak", "ipv6"):
        return [name for name in there if re.search(pattern, name)]
    wanted: dict[str | None, Callable[[str], bool]] = {
        None: lambda name: name not in soak and (not name.endswith(IPV6) or name in ipv6),
        "soak": lambda name: name in soak,
        "ipv6": lambda name: name.endswith(IPV6) and name.removesuffix(IPV6) not in soak,
    }
    return [name for name in there if wanted[pattern](name)]


class Share:
    """The scenarios that run on one kernel, given out one at a time to its machines, which boot into `archive`."""

    def __init__(self, kernel: paths.Kernel, archive: Path, scenarios: list[str]) -> None:
        self.kernel = kernel
        self.archive = archive
        self._lock = threading.Lock()
        self._left = collections.deque(scenarios)

    def take(self) -> str | None:
        """The next one, None when all are given out."""
        with self._lock:
            return self._left.popleft() if self._left else None

    def left(self) -> list[str]:
        """Those that no machine has taken."""
        with self._lock:
            return list(self._left)

    def machines(self) -> int:
        """How many machines of this kernel run side by side.

        Scenarios wait most of the time, and User Mode Linux uses a processor only while it has work. An emulated machine
        with two processors keeps one of the host's busy for each of them.
        """
        processors = os.cpu_count() or 1
        wanted = processors + 1 if self.kernel.kind.startswith("um") else processors // 2
        return max(1, min(wanted, len(self._left), _free_memory() // (MEMORY + HOST_MEMORY)))


def run(report: Report, pattern: str | None, *, keep: bool = False, on: str | None = None) -> None:
    """Runs each scenario on the kernel that it is listed for, or all `on` one kernel, in several machines side by side."""
    chosen = names(pattern)
    shares = []
    for kind, scenarios in by_kernel(chosen, on).items():
        if scenarios:
            kernel = paths.kernel(kind)
            archive = initramfs.build(
                kernel, paths.BUILD / "tests" / f"netns-{kind}.initramfs", initramfs.NETWORK,
                _lnet(kernel) if any(name.startswith(LNET) for name in scenarios) else None,
            )
            shares.append(Share(kernel, archive, scenarios))
    threads = []
    for share in shares:
        count = share.machines()
        report.say(f"netns: {len(share.left())} scenarios on Linux {share.kernel.release}, machines: {count}")
        threads += [threading.Thread(target=run_machines, args=(share, number, report), daemon=True) for number in range(1, count + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for share in shares:
        for name in share.left():
            report.result(f"netns: {name}", "no guest ran it")
        if not keep:
            share.archive.unlink()


def _lnet(kernel: paths.Kernel) -> Callable[[Archive], None]:
    """What scenarios under LNet need: the module for that, and what plays LNet's part."""
    modules = {"lnet.ko": kernel.lnet, "ksocklnd-lnet.ko": kernel.lnet_module}

    def add(archive: Archive) -> None:
        for name, module in modules.items():
            archive.data(f"lib/{name}", initramfs.stripped(paths.need(module, f"make {kernel.kind}-lnet")))

    return add


def by_kernel(chosen: list[str], on: str | None) -> dict[str, list[str]]:
    """Which of these scenarios run on which kernel; `on` names one for all of them."""
    if on == "debug":
        return {"debug": chosen}
    if on is not None:
        return {on: [name for name in chosen if name.removesuffix(IPV6) not in DEBUG_ONLY]}
    emulated = listed(DEBUG)
    on_debug = [name for name in chosen if name in emulated or name.removesuffix(IPV6) in DEBUG_ONLY]
    return {"debug": on_debug, "um-debug": [name for name in chosen if name not in on_debug]}


def run_machines(share: Share, number: int, report: Report) -> None:
    """Runs scenarios in one machine. If that is lost, or a scenario fails in it, another one goes on in its place."""
    started = lost = 0
    while share.left():
        started += 1
        name = f"netns-{share.kernel.kind}-{number}"
        spec = Spec(
            name=name if started == 1 else f"{name}-{started}",
            kernel=share.kernel,
            initramfs=share.archive,
            logs=paths.LOGS,
            runner=["netns"],
            cpus=CPUS,
            memory=MEMORY,
            cmdline=f"{CMDLINE} {KMEMLEAK[share.kernel.kind]}",
            nice=NICE[share.kernel.kind],
        )
        try:
            with machine(spec) as vm:
                outcome = _one_machine(vm, share, report)
        except Exception as why:  # noqa: BLE001  (the others go on, and the run has failed)
            report.result(f"netns: {spec.name}", f"{type(why).__name__}: {why}")
            return
        lost = 0 if outcome.finished or outcome.current else lost + 1
        if lost == results.BOOTS:
            report.result(f"netns: {spec.name}", f"no machine comes to any scenario: {outcome.lost}")
            return


def _one_machine(vm: Vm, share: Share, report: Report) -> results.Outcome:
    """Runs scenarios until none is left or the machine ends."""
    outcome = results.follow(vm, "netns", report, supply=share.take)
    if not outcome.booted:
        report.say(f"netns: {vm.name} did not boot: {outcome.lost}")
    elif outcome.lost is not None:
        log = klog.section(vm.console(), outcome.current or "") or vm.console()[-3000:]
        report.result(f"netns: {outcome.current or vm.name}", f"{outcome.lost}\n{klog.trouble(log) or log[-3000:]}")
    else:
        report.result(f"netns: kernel log of {vm.name} outside of scenarios", results.judge_rest(vm))
    return outcome


def _free_memory() -> int:
    """What the host has to give away, in MiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) // 1024
