# SPDX-License-Identifier: GPL-2.0
"""Tests of what also runs outside of the kernel: formats, tools, the tests themselves."""

from __future__ import annotations

import re
import subprocess
import time
import unittest

from lib import coverage, defects, paths
from lib.report import Report

_COUNT = re.compile(r"^test result: \w+\. (\d+) passed; \d+ failed", re.MULTILINE)
_FUZZED = re.compile(r"^fuzz: (\w+): (ok|FAILED): (.*)$", re.MULTILINE)
_FAILURE = re.compile(r"^test (\S+) \.\.\. FAILED$", re.MULTILINE)

# For each fuzz target: enough to see that they work, and to find again what is easy to find.
FUZZ_SECONDS = 10


def run(report: Report, pattern: str | None, *, keep: bool = False) -> None:
    """Runs them all."""
    _python(report)
    report.result("host: tests/COVERAGE.md", coverage.trouble())
    report.result("host: tests/defects", defects.trouble())
    _cargo(report)
    _fuzz(report)


def _python(report: Report) -> None:
    """The tests of this program."""
    started = time.monotonic()
    suite = unittest.defaultTestLoader.loadTestsFromName("lib.selftest")
    outcome = unittest.TestResult()
    suite.run(outcome)
    broken = [*outcome.failures, *outcome.errors]
    # A test may fail several times, once for each of its cases.
    passed = max(outcome.testsRun - len(broken), 0)
    _sum(report, "tests/lib", passed, [(str(test), why) for test, why in broken], started)


def _cargo(report: Report) -> None:
    """The tests of every crate that scripts/build-host knows."""
    started = time.monotonic()
    log = paths.LOGS / "host.log"
    with open(log, "wb") as out:
        command = [paths.REPO / "scripts" / "build-host", "test"]
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(errors="replace")
    counts = _COUNT.findall(text)
    passed = sum(int(count) for count in counts)
    failures = [(name, f"see {log}") for name in _FAILURE.findall(text)]
    _sum(report, "cargo", passed, failures, started)
    if status != 0 and not failures:
        report.result("host: cargo", f"status {status}:\n{text[-3000:]}")
    elif not passed:
        report.result("host: cargo", f"no tests were run: see {log}")


def _fuzz(report: Report) -> None:
    """A short run of each fuzz target."""
    started = time.monotonic()
    command = [paths.REPO / "fuzz" / "run", f"--seconds={FUZZ_SECONDS}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    (paths.LOGS / "fuzz.log").write_text(done.stdout)
    verdicts = _FUZZED.findall(done.stdout)
    failures = [(f"fuzz: {target}", why) for target, verdict, why in verdicts if verdict == "FAILED"]
    _sum(report, "fuzz", len(verdicts) - len(failures), failures, started)
    if not failures and (done.returncode != 0 or not verdicts):
        report.result("host: fuzz", f"status {done.returncode}:\n{done.stdout[-3000:]}")


def _sum(report: Report, what: str, passed: int, failures: list[tuple[str, str]], started: float) -> None:
    report.count(passed)
    verdict = "FAILED" if failures else "ok    "
    took = time.monotonic() - started
    report.say(f"{verdict} host: {what}: {passed} passed, {len(failures)} failed ({took:.1f} s)")
    for name, why in failures:
        report.result(f"host: {name}", why)
