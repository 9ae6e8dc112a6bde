# SPDX-License-Identifier: GPL-2.0
"""Looks through a kernel's log for anything that says that something is wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

TROUBLE = re.compile(
    r"""
    WARNING: | \bBUG\b | \bBUG: | Oops | kernel\ panic | Kernel\ panic | general\ protection
    | KASAN | KFENCE | KCSAN | KMSAN | UBSAN | kmemleak: .*(new\ suspected|unreferenced|Cannot|disabled)
    | possible\ circular | possible\ recursive | inconsistent\ lock | INFO:\ (task|rcu|possible|trying)
    | rcu.*(stall|detected) | soft\ lockup | hard\ LOCKUP | hung\ task | blocked\ for\ more\ than
    | sleeping\ function | scheduling\ while\ atomic | suspicious\ RCU | bad\ unlock | lock\ held
    | held\ lock\ freed | DEADLOCK | list_(add|del)\ corruption | refcount_t: | underflow | use-after-free
    | double\ free | Out\ of\ memory | page\ allocation\ failure | Call\ Trace | stack\ guard | corrupted
    | rust_kernel:\ panicked | panicked\ at | segfault | traps: | unregister_netdevice:\ waiting
    | ref_?tracker | has\ leaked | invalid\ opcode | unhandled | NETDEV\ WATCHDOG | Bad\ page | bad\ page
    | Modules\ with\ .*unload\ | module\ verification\ failed.*panic | init:\ 
    """,
    re.VERBOSE,
)

# What a healthy kernel says although it looks like trouble: (pattern, why that is so).
HARMLESS = (
    # Only the host knows that guests have no clock of their own: the kernel says so at every boot.
    re.compile(r"clocksource: .*WARNING"),
    # Where allocations fail on purpose, so may the tracker's own: it says once that it knows less from then on.
    re.compile(r"ref_tracker: memory allocation failure"),
)

_MARK = re.compile(r"socklnd-tests: (begin|end) (\S+)")
_SHOWN_AFTER = 40
# Lines shown around the first find, at most.


def trouble(log: str) -> str | None:
    """The first find with what follows it, or None."""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if TROUBLE.search(line) and not any(pattern.search(line) for pattern in HARMLESS):
            return "\n".join(["the kernel's log:", *lines[max(0, number - 3) : number + _SHOWN_AFTER]])
    return None


def section(log: str, name: str) -> str:
    """What was logged while the test of this name ran."""
    begin = log.find(f"socklnd-tests: begin {name}\n")
    end = log.find(f"socklnd-tests: end {name}\n", max(begin, 0))
    if begin < 0:
        return ""
    return log[begin : end if end >= 0 else len(log)]


def outside(log: str) -> str:
    """What was logged while no test ran: booting, ending, in between."""
    kept = []
    inside = False
    for line in log.splitlines():
        mark = _MARK.search(line)
        if mark:
            inside = mark.group(1) == "begin"
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def await_end(read: Callable[[], str], name: str, seconds: float = 10) -> str:
    """The log as soon as it has the mark of a test's end: the console may lag behind the results."""
    deadline = time.monotonic() + seconds
    while True:
        log = read().replace("\r\n", "\n")
        if f"socklnd-tests: end {name}\n" in log or time.monotonic() > deadline:
            return log
        time.sleep(0.02)
