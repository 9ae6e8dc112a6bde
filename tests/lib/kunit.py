# SPDX-License-Identifier: GPL-2.0
"""The module's own unit tests: run on the debug kernel, read by the kernel's own parser."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

from lib import initramfs, klog, paths, results
from lib.report import Report
from lib.uml import machine
from lib.vm import Spec

LIST = paths.TESTS / "kunit-suites"
_SUITE = re.compile(r"\bkunit_tests\((\w+)\)")
# The first line of a run; those of suites within it are indented.
_RUN = re.compile(r"^(?=(?:\[[^\]]*\])* ?KTAP version 1$)", re.MULTILINE)
_NOT_OURS = {"build", "tests", "utils", "fuzz", "bench"}


def in_sources() -> set[str]:
    """The suites that the module's sources define."""
    found: set[str] = set()
    for top in paths.REPO.iterdir():
        if top.name not in _NOT_OURS:
            for path in [top] if top.suffix == ".rs" else top.rglob("*.rs"):
                found.update(_SUITE.findall(path.read_text()))
    # And the one that each build makes.
    found.update(_SUITE.findall((paths.REPO / "scripts" / "gen-examples").read_text()))
    return found


def listed() -> set[str]:
    """The suites that the repository says there are."""
    lines = (line.partition("#")[0].strip() for line in LIST.read_text().splitlines())
    return {line for line in lines if line}


def run(report: Report, pattern: str | None, *, keep: bool = False, on: str | None = None) -> None:
    """Inserts the module into the debug kernel, or into the one named, and checks what its suites said."""
    kernel = paths.kernel(on or "debug")
    archive = initramfs.build(kernel, paths.BUILD / "tests" / f"kunit-{kernel.kind}.initramfs", initramfs.BARE)
    spec = Spec(
        name="kunit", kernel=kernel, initramfs=archive, logs=paths.LOGS, runner=["kunit"], memory=1536,
        cmdline="kunit.enable=1 kunit.autorun=1 kmemleak=on",
    )
    report.say(f"kunit: Linux {kernel.release}")
    for _ in range(results.BOOTS):
        with machine(spec) as vm:
            outcome = results.follow(vm, "kunit", report)
            log = vm.console().replace("\r\n", "\n")
        if outcome.booted:
            break
        report.say(f"kunit: {spec.name} did not boot: {outcome.lost}")
    if outcome.lost is not None:
        report.result("kunit: the guest", f"{outcome.lost}\n{klog.trouble(log) or log[-3000:]}")
    suites = _parse(kernel, log)
    wanted, there = listed(), in_sources()
    for name in sorted(wanted | there):
        if pattern and not re.search(pattern, name):
            continue
        if name not in wanted:
            report.result(f"kunit: {name}", f"the suite is not in {LIST.relative_to(paths.REPO)}")
        elif name not in there:
            report.result(f"kunit: {name}", "the suite is listed, but no source has it")
        elif name not in suites:
            report.result(f"kunit: {name}", "the suite did not run")
        else:
            _judge_cases(report, name, suites[name])
    if not keep:
        archive.unlink()


def _parse(kernel: paths.Kernel, log: str) -> dict[str, Any]:
    """The suites in the log by name, as the kernel's parser understands them."""
    sys.path.insert(0, str(kernel.source / "tools" / "testing" / "kunit"))
    parser = importlib.import_module("kunit_parser")
    silent = importlib.import_module("kunit_printer").null_printer
    suites: dict[str, Any] = {}
    # A log may hold several runs: the kernel's own suites, of which there are none, come first.
    for part in _RUN.split(log):
        if "KTAP version 1" in part:
            for suite in parser.parse_run_tests(part.splitlines(), silent).subtests:
                suites[suite.name] = suite
    return suites


def _judge_cases(report: Report, name: str, suite: Any) -> None:
    """Each case counts; those that passed share a line."""
    failures = [case for case in suite.subtests if case.status.name != "SUCCESS" or case.counts.errors]
    for case in failures:
        report.result(f"kunit: {name}.{case.name}", "\n".join([case.status.name, *case.log]))
    passed = len(suite.subtests) - len(failures)
    if passed:
        report.count(passed)
        report.say(f"ok     kunit: {name}: {passed} cases")
    elif not failures:
        report.result(f"kunit: {name}", "the suite has no cases")
    if suite.counts.errors and not failures:
        report.result(f"kunit: {name}", "its results can't be understood: see the console's log")
