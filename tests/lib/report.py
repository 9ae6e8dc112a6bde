# SPDX-License-Identifier: GPL-2.0
"""Tells what goes on, one line per test, and counts."""

from __future__ import annotations

import time


class Report:
    """The results of one run."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.passed = 0
        self.failures: list[tuple[str, str]] = []

    @property
    def failed(self) -> int:
        """How many tests failed."""
        return len(self.failures)

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"[{time.monotonic() - self._started:6.1f} s] {text}", flush=True)

    def result(self, name: str, why: str | None, seconds: float | None = None) -> None:
        """One test's result: `why` it failed, or None."""
        if why is None:
            self.passed += 1
        else:
            self.failures.append((name, why))
        took = "" if seconds is None else f" ({seconds:.1f} s)"
        self.say(f"{'ok    ' if why is None else 'FAILED'} {name}{took}")
        if why is not None:
            self._explain(why)

    def count(self, passed: int) -> None:
        """Tests that passed, and that no line of their own tells of."""
        self.passed += passed

    def finish(self) -> int:
        """What failed once more, its names, and the last line; gives the exit status. A run that tested nothing has not passed."""
        for name, why in self.failures:
            self.say(f"FAILED {name}")
            self._explain(why)
        if self.failures:
            print(f"failed: {', '.join(name for name, _ in self.failures)}", flush=True)
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0

    @staticmethod
    def _explain(why: str) -> None:
        for line in why.splitlines():
            print(f"             {line}", flush=True)
