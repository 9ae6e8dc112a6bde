# SPDX-License-Identifier: GPL-2.0
"""User Mode Linux: a kernel as a process, quick where there is no hardware virtualisation."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile

from lib.vm import Spec, Vm, die_with_parent

# MiB. It puts modules behind its memory, and no call reaches further than 2 GiB.
MOST_MEMORY = 1024


def machine(spec: Spec) -> Vm:
    """Starts the kind of machine that the kernel is for."""
    return Uml(spec) if spec.kernel.kind.startswith("um") else Vm(spec)


class Uml(Vm):
    """A User Mode Linux kernel, handled like a virtual machine."""

    def __init__(self, spec: Spec) -> None:
        # All but the program to start is as in the class above, whose constructor is not called.
        self.name = spec.name
        self.console_log = spec.logs / f"{spec.name}.console"
        spec.logs.mkdir(parents=True, exist_ok=True)
        self._qemu_log = spec.logs / f"{spec.name}.uml"
        self._port_log = spec.logs / f"{spec.name}.results"
        self._port_log.write_bytes(b"")
        self._buffer = b""
        self._folder = tempfile.mkdtemp(prefix="socklnd-uml-")
        self.port, theirs = socket.socketpair()
        with theirs, open(self.console_log, "wb") as console, open(self._qemu_log, "wb") as log:
            self._process = subprocess.Popen(
                _uml_command(spec, theirs.fileno(), self._folder),
                stdin=subprocess.DEVNULL, stdout=console, stderr=log, pass_fds=[theirs.fileno()],
                # Every process of the guest is one of the host, in this group.
                start_new_session=True, preexec_fn=lambda: _settle(spec.nice),
            )

    def line(self, seconds: float) -> str | None:
        """As in the class above, whose QEMU writes down by itself what comes over the port."""
        line = super().line(seconds)
        if line is not None:
            with open(self._port_log, "a", encoding="utf-8") as log:
                log.write(f"{line}\n")
        return line

    def kill(self) -> None:
        """Ends the kernel and all its processes."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        super().kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _settle(nice: int) -> None:
    """Runs in the child before it is the kernel."""
    die_with_parent()
    os.nice(nice)


def _uml_command(spec: Spec, port: int, folder: str) -> list[str]:
    return [
        str(spec.kernel.image), f"mem={min(spec.memory, MOST_MEMORY)}M", f"ncpus={spec.cpus}", "seccomp=on", f"uml_dir={folder}",
        f"initrd={spec.initramfs}", "con=null", "con0=null,fd:1", "ssl=null", f"ssl1=fd:{port}",
        # Without a root and a console it would add them at the end, where init's arguments are.
        "root=none", "console=tty0",
        # A reset ends it, as QEMU is told to.
        "noreboot", "loglevel=5", "panic=-1", "oops=panic", spec.cmdline, "--", *spec.runner,
    ]
