# SPDX-License-Identifier: GPL-2.0
"""Tells what goes on, one line per test, and counts."""

from __future__ import annotations

import time


class Report:
    """The results of one run."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.passed = 0
        self.failed = 0

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"[{time.monotonic() - self._started:6.1f} s] {text}", flush=True)

    def result(self, name: str, why: str | None, seconds: float | None = None) -> None:
        """One test's result: `why` it failed, or None."""
        if why is None:
            self.passed += 1
        else:
            self.failed += 1
        took = "" if seconds is None else f" ({seconds:.1f} s)"
        self.say(f"{'ok    ' if why is None else 'FAILED'} {name}{took}")
        for line in (why or "").splitlines():
            print(f"             {line}", flush=True)

    def add(self, passed: int, failed: int) -> None:
        """Results of tests that were counted elsewhere."""
        self.passed += passed
        self.failed += failed

    def finish(self) -> int:
        """The last line; gives the exit status. A run that tested nothing has not passed."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0
