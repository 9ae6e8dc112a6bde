# SPDX-License-Identifier: GPL-2.0
"""Tests of what also runs outside of the kernel: formats, tools, the test programs themselves."""

from __future__ import annotations

import re
import subprocess
import time

from lib import paths
from lib.report import Report

_COUNT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed", re.MULTILINE)
_FAILURE = re.compile(r"^test (\S+) \.\.\. FAILED$", re.MULTILINE)


def run(report: Report, pattern: str | None, *, keep: bool = False) -> None:
    """Runs the tests of every crate that scripts/build-host knows."""
    started = time.monotonic()
    report.say("host: cargo tests")
    log = paths.LOGS / "host.log"
    command = [paths.REPO / "scripts" / "build-host", "test", *([pattern] if pattern else [])]
    with open(log, "wb") as out:
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(errors="replace")
    passed = sum(int(count) for count, _ in _COUNT.findall(text))
    failed = sum(int(count) for _, count in _COUNT.findall(text))
    report.add(passed, failed)
    report.say(f"{'ok    ' if status == 0 and not failed else 'FAILED'} host: {passed} passed, {failed} failed"
               f" ({time.monotonic() - started:.1f} s)")
    for name in _FAILURE.findall(text):
        report.say(f"       host: {name}")
    if status != 0 and not failed:
        report.result("host: cargo", f"status {status}:\n{text[-3000:]}")
    elif not passed and not pattern:
        report.result("host: cargo", f"no tests were run: see {log}")
