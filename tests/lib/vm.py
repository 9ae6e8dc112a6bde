# SPDX-License-Identifier: GPL-2.0
"""Virtual machines: started, watched and ended, with their console in a log of its own."""

from __future__ import annotations

import ctypes
import selectors
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from lib import accel, paths

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class GuestDied(Exception):
    """The virtual machine ended, or said nothing for too long."""


@dataclass
class Spec:
    """What one virtual machine is made of."""

    name: str
    kernel: paths.Kernel
    initramfs: Path
    logs: Path
    runner: list[str]  # arguments for the runner in the guest
    cpus: int = 2
    memory: int = 1024  # MiB
    devices: list[str] = field(default_factory=list)
    cmdline: str = ""
    nice: int = 0  # how far it stands back behind other processes, for User Mode Linux
    console: list[str] | None = None  # QEMU's arguments for a console elsewhere than in a log
    accel: list[str] | None = None  # QEMU's arguments for the accelerator, if it is not to be the fastest


class Vm:
    """A running virtual machine. Use it in a `with` block: its end is the machine's end."""

    def __init__(self, spec: Spec) -> None:
        self.name = spec.name
        self.console_log = spec.logs / f"{spec.name}.console"
        spec.logs.mkdir(parents=True, exist_ok=True)
        self.console_log.write_bytes(b"")
        self._qemu_log = spec.logs / f"{spec.name}.qemu"
        self._port_log = spec.logs / f"{spec.name}.results"
        self._buffer = b""
        self.port, theirs = socket.socketpair()
        with theirs, open(self._qemu_log, "wb") as log:
            self._process = subprocess.Popen(
                _command(spec, self.console_log, theirs.fileno(), self._port_log),
                stdin=None if spec.console else subprocess.DEVNULL,
                stdout=None if spec.console else log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                # Its priority is its own. But one that has a terminal for its console stays in that terminal's session.
                start_new_session=spec.console is None,
                preexec_fn=die_with_parent,
            )

    def __enter__(self) -> Vm:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Ends the machine as a power cut would. Harmless when it has ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self.port.close()

    @property
    def pid(self) -> int:
        """The number of the machine's process on this host."""
        return self._process.pid

    def running(self) -> bool:
        """Whether the machine still runs."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Waits until the machine ends by itself; says whether it did."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def console(self) -> str:
        """All that the kernel wrote to its console so far."""
        return self.console_log.read_text(errors="replace")

    def why_qemu_failed(self) -> str:
        """How QEMU ended, and what it complained about."""
        status = self._process.poll()
        how = "" if status is None else f"QEMU was killed by signal {-status}" if status < 0 else f"QEMU's status: {status}"
        return f"{how}\n{self._qemu_log.read_text(errors='replace')}".strip()

    def line(self, seconds: float) -> str | None:
        """The next line from the results port, None when the machine has ended."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.port, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise GuestDied(f"{self.name} said nothing for {seconds:.0f} s")
                if not selector.select(left):
                    continue
                try:
                    data = self.port.recv(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    return None
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    def say(self, line: str) -> None:
        """Sends one line to the guest's runner."""
        self.port.sendall(line.encode() + b"\n")


def die_with_parent() -> None:
    """Runs in the child: no machine or command may outlive a run that was killed, nor the thread that started it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _command(spec: Spec, console: Path, port: int, port_log: Path) -> list[str]:
    append = f"console=ttyS0 loglevel=5 no_timer_check panic=-1 oops=panic {spec.cmdline} -- {' '.join(spec.runner)}"
    return [
        "qemu-system-x86_64", *(spec.accel or accel.arguments(spec.kernel)),
        "-name", spec.name, "-machine", "q35", "-smp", str(spec.cpus), "-m", str(spec.memory),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-kernel", str(spec.kernel.image), "-initrd", str(spec.initramfs), "-append", append,
        *(spec.console or ["-serial", f"file:{console}"]),
        "-chardev", f"socket,id=port,fd={port},logfile={port_log}", "-serial", "chardev:port",
        *spec.devices,
    ]
