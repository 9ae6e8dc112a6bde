# SPDX-License-Identifier: GPL-2.0
"""The machine that is measured: QEMU with or without KVM, or User Mode Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host import go_first
from lib import accel, paths
from lib.nodes import Node
from lib.uml import machine
from lib.vm import Spec

# More would only leave more of them idle: there is one stream to send and one to receive.
CPUS = min(4, os.cpu_count() or 1)
MEMORY = 1024  # MiB

TITLES = {
    "kvm": "a virtual machine with KVM",
    "um": "User Mode Linux, which runs kernel code at native speed",
    "tcg": "an emulated machine (TCG), slow and not like a real one",
}


class Unsound(Exception):
    """The kernel's log says that the figures are worth nothing."""


@dataclass(frozen=True)
class Platform:
    """Where measurements are made."""

    name: str
    kernel: paths.Kernel
    cpus: int = CPUS
    accel: list[str] | None = None  # as in Spec

    def facts(self, node: Node) -> dict[str, Any]:
        """What the figures depend on."""
        return {
            "platform": self.name,
            "title": TITLES[self.name],
            "kernel": node.run("uname", "-r").strip(),
            "cpus": self.cpus,
            "host_cpu": _host_cpu(),
            "host_cpus": os.cpu_count(),
            "host_load": os.getloadavg(),
        }


def kvm_works() -> bool:
    """Whether a guest of the stock kernel boots with KVM."""
    return accel.arguments(paths.kernel("stock")) == accel.KVM


def find(name: str) -> Platform:
    """The platform of this name, if it is there."""
    if name == "um":
        return Platform(name, paths.kernel("um"))
    if (name == "kvm") != kvm_works():
        raise paths.Missing(f"{name} is not what virtual machines run on here")
    return Platform(name, paths.kernel("stock"))


@contextmanager
def boot(platform: Platform, archive: Path) -> Iterator[tuple[Node, int]]:
    """A node that does what it is told, until the end of the `with` block; and the number of the
    process that it is.
    """
    spec = Spec(
        name="bench", kernel=platform.kernel, initramfs=archive, logs=paths.LOGS, runner=["agent"],
        cpus=platform.cpus, memory=MEMORY, accel=platform.accel,
    )
    with machine(spec) as vm:
        node = Node(1, vm)
        node.await_ready()
        if platform.accel is None:
            # Where instructions are counted it makes no difference.
            go_first(vm.pid)
        yield node, vm.pid


def _host_cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
