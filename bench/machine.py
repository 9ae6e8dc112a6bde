# SPDX-License-Identifier: GPL-2.0
"""The machine that is measured: QEMU with or without KVM, or User Mode Linux."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import accel, paths
from lib.nodes import Node
from lib.vm import Spec, Vm

# More would only leave more of them idle: there is one stream to send and one to receive.
CPUS = min(4, os.cpu_count() or 1)
# MiB. User Mode Linux puts modules behind its memory, and no call reaches further than 2 GiB.
MEMORY = 1024

TITLES = {
    "kvm": "a virtual machine with KVM",
    "um": "User Mode Linux, which runs kernel code at native speed",
    "tcg": "an emulated machine (TCG), slow and not like a real one",
}


@dataclass(frozen=True)
class Platform:
    """Where measurements are made."""

    name: str
    kernel: paths.Kernel

    def facts(self, node: Node) -> dict[str, Any]:
        """What the figures depend on."""
        return {
            "platform": self.name,
            "title": TITLES[self.name],
            "kernel": node.run("uname", "-r").strip(),
            "cpus": CPUS,
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
        base = paths.need(paths.CACHE / "um", "scripts/setup um")
        release = (base / "release").read_text().strip()
        module = paths.BUILD / "um" / "ksocklnd.ko"
        return Platform(name, paths.Kernel("um", base / "linux", release, module, None, base / "build" / "source"))
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
        cpus=CPUS, memory=MEMORY,
    )
    with Uml(spec) if platform.name == "um" else Machine(spec) as vm:
        node = Node(1, vm)
        node.await_ready()
        yield node, vm.pid


class Machine(Vm):
    """A virtual machine of which one knows the process."""

    @property
    def pid(self) -> int:
        """The number of the process on the host."""
        return self._process.pid


class Uml(Machine):
    """A User Mode Linux kernel, handled like a virtual machine."""

    def __init__(self, spec: Spec) -> None:
        # All but the program to start is as in the class above, whose constructor is not called.
        self.name = spec.name
        self.console_log = spec.logs / f"{spec.name}.console"
        spec.logs.mkdir(parents=True, exist_ok=True)
        self._qemu_log = spec.logs / f"{spec.name}.uml"
        self._buffer = b""
        self._folder = tempfile.mkdtemp(prefix="socklnd-uml-")
        self.port, theirs = socket.socketpair()
        with theirs, open(self.console_log, "wb") as console, open(self._qemu_log, "wb") as log:
            self._process = subprocess.Popen(
                _uml_command(spec, theirs.fileno(), self._folder),
                stdin=subprocess.DEVNULL, stdout=console, stderr=log, pass_fds=[theirs.fileno()],
                # Every process of the guest is one of the host, in this group.
                start_new_session=True,
            )

    def kill(self) -> None:
        """Ends the kernel and all its processes."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        super().kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _uml_command(spec: Spec, port: int, folder: str) -> list[str]:
    return [
        str(spec.kernel.image), f"mem={spec.memory}M", f"ncpus={spec.cpus}", "seccomp=on", f"uml_dir={folder}",
        f"initrd={spec.initramfs}", "con=null", "con0=null,fd:1", "ssl=null", f"ssl1=fd:{port}",
        # Without a root and a console it would add them at the end, where init's arguments are.
        "root=none", "console=tty0",
        # A reset ends it, as QEMU is told to.
        "noreboot", "loglevel=5", "panic=-1", "oops=panic", spec.cmdline, "--", *spec.runner,
    ]


def _host_cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
