# SPDX-License-Identifier: GPL-2.0
"""Tells what goes on, one line per test, and counts. Several threads may report."""

from __future__ import annotations

import threading
import time

# How many of the tests that took longest are named at the end.
_LONGEST = 15


class Report:
    """The results of one run."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.RLock()
        self._times: list[tuple[float, str, str]] = []
        self.passed = 0
        self.failures: list[tuple[str, str]] = []

    @property
    def failed(self) -> int:
        """How many tests failed."""
        return len(self.failures)

    def say(self, text: str) -> None:
        """A line of progress."""
        with self._lock:
            print(f"[{time.monotonic() - self._started:6.1f} s] {text}", flush=True)

    def result(self, name: str, why: str | None, seconds: float | None = None, parts: str = "") -> None:
        """One test's result: `why` it failed, or None; how long it took, and what of that its `parts` took."""
        with self._lock:
            if why is None:
                self.passed += 1
            else:
                self.failures.append((name, why))
            if seconds is not None:
                self._times.append((seconds, name, parts))
            took = "" if seconds is None else f" ({seconds:.1f} s)"
            self.say(f"{'ok    ' if why is None else 'FAILED'} {name}{took}")
            if why is not None:
                self._explain(why)

    def count(self, passed: int) -> None:
        """Tests that passed, and that no line of their own tells of."""
        with self._lock:
            self.passed += passed

    def took(self, name: str, seconds: float, parts: str = "") -> None:
        """How long something took that has no result of its own."""
        with self._lock:
            self._times.append((seconds, name, parts))

    def finish(self) -> int:
        """What took longest, what failed once more, its names, and the last line; gives the exit status.

        A run that tested nothing has not passed.
        """
        if len(self._times) > 1:
            self.say("what took longest:")
            for seconds, name, parts in sorted(self._times, reverse=True)[:_LONGEST]:
                self._explain(f"{seconds:6.1f} s  {name}{f': {parts}' if parts else ''}")
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
