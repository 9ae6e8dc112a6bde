# SPDX-License-Identifier: GPL-2.0
"""Finds out whether hardware virtualisation works here: only a guest that boots proves it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from pathlib import Path

from lib import initramfs, paths

KVM = ["-accel", "kvm", "-cpu", "host"]
# Five levels of page tables cost an emulated machine a lot, and nothing here needs them.
TCG = ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]
PROBE_SECONDS = 10
# Machines are started by several threads; one of them asks.
_ASKING = threading.Lock()


def arguments(kernel: paths.Kernel) -> list[str]:
    """QEMU's arguments for the fastest accelerator that works. Asked once per boot of this machine."""
    with _ASKING:
        return KVM if _kvm_works(kernel) else TCG


def _kvm_works(kernel: paths.Kernel) -> bool:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    cache = paths.BUILD / "accel"
    if cache.exists():
        known = cache.read_text().split()
        if len(known) == 2 and known[0] == boot:
            return known[1] == "kvm"
    works = _kvm_boots(kernel)
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(f"{boot} {'kvm' if works else 'tcg'}\n")
    return works


def _kvm_boots(kernel: paths.Kernel) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with tempfile.TemporaryDirectory(prefix="socklnd-probe-") as folder:
        archive = initramfs.probe(Path(folder) / "initramfs")
        answer = Path(folder) / "answer"
        command = [
            "qemu-system-x86_64", *KVM, "-machine", "q35", "-m", "512", "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot", "-action", "panic=exit-failure",
            "-kernel", str(kernel.image), "-initrd", str(archive), "-append", "quiet panic=-1",
            "-serial", "null", "-serial", f"file:{answer}",
        ]
        try:
            subprocess.run(command, timeout=PROBE_SECONDS, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except subprocess.TimeoutExpired:
            pass
        return answer.exists() and b"reached" in answer.read_bytes()
