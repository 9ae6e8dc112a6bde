# SPDX-License-Identifier: GPL-2.0
"""Watches the host: what the machine that is being measured takes of it, and what others do meanwhile.

The machine itself can't tell: what others take from it looks to it like its own work.
"""

from __future__ import annotations

import os
from pathlib import Path

USER_HZ = os.sysconf("SC_CLK_TCK")


def go_first(pid: int) -> None:
    """Has the processes of a machine go before others. Without the right to that, all stays as it is.

    On a busy host the figures would tell of the others else: whoever waits for a lock spins until its holder has
    a processor again. A machine has a session of its own, so nobody else is raised, and nothing has to be undone.
    """
    try:
        if os.getsid(pid) != pid:
            raise ValueError(f"process {pid} shares its session with others")
        os.setpriority(os.PRIO_PGRP, pid, -20)
        # Where each session is a group of its own, priorities count within it only.
        Path(f"/proc/{pid}/autogroup").write_text("-20")
    except OSError:
        pass


class Watch:
    """The host's processor time, and that of the machine whose first process has this number."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.begin()

    def begin(self) -> None:
        """Starts anew."""
        self._busy, self._all = _host()
        self._own = _own(self._pid)

    def own(self) -> float:
        """Seconds of processors that the machine has used since then."""
        return (_own(self._pid) - self._own) / USER_HZ

    def others(self) -> float:
        """The share of all the host's processors that went to others since then."""
        busy, whole = _host()
        own = _own(self._pid)
        return max(0.0, (busy - self._busy - (own - self._own)) / max(1, whole - self._all))


def _host() -> tuple[int, int]:
    """Ticks that the host's processors were busy, steal included, and all ticks."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()
    ticks = [int(word) for word in words[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _own(leader: int) -> int:
    """Ticks of a process, its children that have ended, and the other processes of its session."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue  # it has ended
        fields = text[text.rindex(")") + 2 :].split()
        if int(path.parent.name) == leader:
            total += sum(int(word) for word in fields[11:15])
        elif int(fields[3]) == leader:
            total += sum(int(word) for word in fields[11:13])
    return total
