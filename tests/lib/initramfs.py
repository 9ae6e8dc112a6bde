# SPDX-License-Identifier: GPL-2.0
"""Builds what a guest boots into: busybox, network tools, the module and the test programs."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from lib import paths
from lib.cpio import Archive

# Sets of tools for guests. Those that are not here are busybox's.
BARE = ("ip",)
NETWORK = ("ip", "tc", "ss")
ALL_TOOLS = ("ip", "tc", "nft", "ss", "ethtool")
# What a stock kernel has as modules and a guest with a network card needs.
STOCK_MODULES = ("virtio_pci", "virtio_net")


def build(
    kernel: paths.Kernel, to: Path, tools: tuple[str, ...], add: Callable[[Archive], None] | None = None,
) -> Path:
    """Writes the archive for one kind of guest to `to`. Every tool makes it larger and booting slower.

    `add` puts in what else this kind of guest needs.
    """
    archive = Archive()
    _skeleton(archive)
    _busybox(archive)
    for tool in tools:
        _program(archive, tool)
    names = _kernel_modules(archive, kernel)
    archive.data("etc/modules", "".join(f"{name}\n" for name in names).encode())
    archive.data("lib/ksocklnd.ko", stripped(paths.need(kernel.module, f"make {kernel.kind}")))
    archive.file("bin/socklctl", paths.need(paths.SOCKLCTL, "make utils"))
    archive.file("bin/socklnd-guest", paths.need(paths.GUEST_RUNNER, "make utils"))
    archive.file("init", paths.TESTS / "lib" / "init.sh")
    if add:
        add(archive)
    archive.write(to)
    return to


def probe(to: Path) -> Path:
    """Writes an archive that only says on the second serial port that it was reached."""
    archive = Archive()
    _skeleton(archive)
    _busybox(archive)
    script = "#!/bin/sh\nmount -t devtmpfs none /dev\necho reached >/dev/ttyS1\nreboot -f\n"
    archive.data("init", script.encode(), 0o755)
    archive.write(to)
    return to


def _skeleton(archive: Archive) -> None:
    for name in ("dev", "proc", "sys", "run", "tmp", "etc", "bin", "sbin", "lib/modules"):
        archive.directory(name)
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3)
    archive.data("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
    archive.data("etc/group", b"root:x:0:\n")


def _busybox(archive: Archive) -> None:
    path = _which("busybox")
    archive.file("bin/busybox", path)
    applets = subprocess.run([path, "--list"], check=True, capture_output=True, text=True).stdout
    for name in applets.split():
        if name not in (*ALL_TOOLS, "busybox", "init"):
            archive.link(f"bin/{name}", "busybox")


def _which(tool: str) -> Path:
    found = shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not found:
        raise paths.Missing(f"{tool} is not installed: run 'scripts/setup toolchain' first")
    return Path(found)


def _program(archive: Archive, tool: str) -> None:
    """Adds a program and the shared libraries it is linked with."""
    path = _which(tool)
    archive.file(f"bin/{tool}", path)
    listing = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+) \(0x", listing):
        archive.file(library, Path(library))


def stripped(module: Path) -> bytes:
    """The module without debug information, which is most of it."""
    with tempfile.NamedTemporaryFile(suffix=".ko") as out:
        subprocess.run(["strip", "--strip-debug", "-o", out.name, module], check=True)
        return Path(out.name).read_bytes()


def _kernel_modules(archive: Archive, kernel: paths.Kernel) -> list[str]:
    """Adds the kernel's own modules; gives their paths in the guest in the order to insert them."""
    if kernel.modules is None:
        return []
    depends = dependencies(paths.need(kernel.modules / "modules.dep", "scripts/setup stock"))
    wanted = [*STOCK_MODULES, *_depends_of(kernel.module)]
    order: list[str] = []
    for name in wanted:
        for path in _in_order(name.replace("-", "_"), depends):
            if path not in order:
                order.append(path)
    names = []
    for path in order:
        name = "lib/modules/" + Path(path).name.removesuffix(".xz")
        archive.data(name, unpacked(kernel.modules / path))
        names.append("/" + name)
    return names


def dependencies(listing: Path) -> dict[str, list[str]]:
    """modules.dep by module name: its own path, then the paths of those it needs."""
    table = {}
    for line in listing.read_text().splitlines():
        path, _, needs = line.partition(":")
        name = Path(path).name.split(".ko")[0].replace("-", "_")
        table[name] = [path, *needs.split()]
    return table


def _in_order(name: str, depends: dict[str, list[str]]) -> list[str]:
    """Paths to insert for one module, what is needed first. Nothing if the kernel has it built in."""
    return list(reversed(depends.get(name, [])))


def _depends_of(module: Path) -> list[str]:
    listing = subprocess.run(["modinfo", "-F", "depends", module], check=True, capture_output=True, text=True)
    return [name for name in listing.stdout.strip().split(",") if name]


def unpacked(path: Path) -> bytes:
    """A module of the kernel's as the kernel takes it."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
