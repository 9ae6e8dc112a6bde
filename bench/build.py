# SPDX-License-Identifier: GPL-2.0
"""Builds what only measurements need: the bare TCP module, and the guest's file system with it."""

from __future__ import annotations

import lzma
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from lib import initramfs, paths
from lib.cpio import Archive

SOURCE = paths.REPO / "bench" / "tcp"


def _output(kernel: paths.Kernel) -> Path:
    return paths.BUILD / kernel.kind / "bench"


def tcpbench(kernel: paths.Kernel) -> None:
    """Builds tcpbench.ko for this kernel, with the bindings of the driver's own build."""
    tree = paths.CACHE / kernel.kind / "build"
    out = _output(kernel)
    out.mkdir(parents=True, exist_ok=True)
    check = paths.REPO / "scripts" / "check-kdir"
    variables = subprocess.run([check, tree], check=True, capture_output=True, text=True).stdout
    command = [
        "make", "-C", tree, f"M={SOURCE}", f"MO={out}", f"SOCKLND_OBJ={kernel.module.parent}",
        *shlex.split(variables),
    ]
    # The options of a make that may have started us are not for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    log = out / "build.log"
    with open(log, "wb") as to:
        status = subprocess.run(command, stdout=to, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if status != 0:
        raise paths.Missing(f"tcpbench.ko can't be built:\n{log.read_text(errors='replace')[-3000:]}")


def archive(kernel: paths.Kernel, to: Path) -> Path:
    """Writes the guest's file system: that of the tests, followed by what is added to it here."""
    initramfs.build(kernel, to, tools=("ip",))
    more = Archive()
    more.data("lib/tcpbench.ko", _without_debug(_output(kernel) / "tcpbench.ko"))
    if kernel.modules is not None:
        more.data("lib/veth.ko", lzma.decompress((kernel.modules / "kernel/drivers/net/veth.ko.xz").read_bytes()))
    addition = to.with_suffix(".more")
    more.write(addition)
    # The kernel unpacks archives one after the other.
    with open(to, "ab") as out, open(addition, "rb") as source:
        shutil.copyfileobj(source, out)
    addition.unlink()
    return to


def _without_debug(module: Path) -> bytes:
    stripped = module.with_suffix(".stripped")
    subprocess.run(["strip", "--strip-debug", "-o", stripped, module], check=True)
    return stripped.read_bytes()
