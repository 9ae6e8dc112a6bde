# SPDX-License-Identifier: GPL-2.0
"""Two machines with the module, to play with: one on this terminal, one on another."""

from __future__ import annotations

import os
import select
import shutil
import socket
import sys
import tempfile
import termios
import time
import tty
from pathlib import Path

from lib import initramfs, paths
from lib.nodes import Cable
from lib.vm import Spec, Vm

DOOR = paths.BUILD / "node2.console"  # a link to the socket of the second machine's console
ESCAPE = b"\x1d"  # Ctrl-]

HELP = """\
Two machines with ksocklnd.ko inserted: node 1 (10.0.0.1) is on this terminal, node 2 (10.0.0.2) on
another one, where you run:   tests/run attach
Both run Linux {release}. 'exit' ends a machine; when node 1 ends, so does node 2.
To begin with, on node 1:                       and on node 2:
  socklctl ni add 10.0.0.1@tcp                    socklctl ni add 10.0.0.2@tcp
  socklctl peer add 10.0.0.2@tcp                  socklctl peer add 10.0.0.1@tcp
  socklctl ping 10.0.0.2@tcp                      socklctl serve
  socklctl bench 10.0.0.2@tcp
"""


def run(*, keep: bool = False) -> int:
    """Boots both and waits until the first one ends."""
    kernel = paths.kernel("stock")
    archive = initramfs.build(kernel, paths.BUILD / "tests" / "shell.initramfs", initramfs.ALL_TOOLS)
    cable = Cable()
    folder = Path(tempfile.mkdtemp(prefix="socklnd-"))
    try:
        print(HELP.format(release=kernel.release), flush=True)
        stdio = ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
        door = ["-chardev", f"socket,id=console,path={folder / 'node2'},server=on,wait=off", "-serial", "chardev:console"]
        with Vm(_spec(kernel, archive, cable, 1, stdio)) as one, Vm(_spec(kernel, archive, cable, 2, door)):
            DOOR.unlink(missing_ok=True)
            DOOR.symlink_to(folder / "node2")
            while not one.wait(3600):
                pass
    finally:
        DOOR.unlink(missing_ok=True)
        cable.close()
        shutil.rmtree(folder, ignore_errors=True)
        if not keep:
            archive.unlink()
    return 0


def _spec(kernel: paths.Kernel, archive: Path, cable: Cable, number: int, console: list[str]) -> Spec:
    return Spec(
        name=f"shell-{number}", kernel=kernel, initramfs=archive, logs=paths.LOGS, runner=["shell", str(number)],
        cpus=1, memory=512, devices=cable.devices(number), console=console,
    )


def attach() -> int:
    """Joins this terminal to the second machine's console."""
    if not DOOR.exists():
        print("there is no second machine: run 'make shell' first", file=sys.stderr)
        return 1
    print("node 2; Ctrl-] leaves", flush=True)
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(os.readlink(DOOR))
        # Without a line of input the shell there shows nothing.
        console.sendall(b"\n")
        modes = termios.tcgetattr(0) if sys.stdin.isatty() else None
        try:
            if modes:
                tty.setraw(0)
            _pass_on(console)
        finally:
            if modes:
                termios.tcsetattr(0, termios.TCSADRAIN, modes)
    print()
    return 0


def _pass_on(console: socket.socket) -> None:
    inputs: list[object] = [console, 0]
    while True:
        ready, _, _ = select.select(inputs, [], [])
        if console in ready:
            data = console.recv(4096)
            if not data:
                return
            os.write(1, data)
        if 0 in ready:
            data = os.read(0, 4096)
            if ESCAPE in data:
                return
            if not data:
                # The input is not a terminal and has ended: show what still comes.
                inputs.remove(0)
                time.sleep(0.1)
            console.sendall(data)
