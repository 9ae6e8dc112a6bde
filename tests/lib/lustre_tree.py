# SPDX-License-Identifier: GPL-2.0
"""A Lustre tree that its user has configured and built for the stock kernel; its modules and tools, put into guests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lib import paths
from lib.cpio import Archive
from lib.initramfs import dependencies, stripped, unpacked

# What LNet alone needs, and what a file system needs besides: the last of each list pull in the others.
LNET_MODULES = ("ksocklnd", "lnet_selftest")
CLIENT_MODULES = ("lustre",)
SERVER_MODULES = ("osd_wbcfs", "mgs", "mdt", "mdd", "lod", "ofd", "osp", "lfsck", "lquota")
LNET_TOOLS = ("lnetctl", "lctl", "lst")
# mount.lustre_tgt is mount.lustre under another name; it loads a library for the kind of target that it mounts.
FILE_SYSTEM_TOOLS = ("mount.lustre", "lfs")
FILE_SYSTEM_LIBRARIES = ("mount_osd_wbcfs.so",)
PLUGINS = "usr/lib/lustre"

# Where the driver lies that `modprobe ksocklnd` finds, and those that `Tree.add` leaves to choose from.
UPDATES = "updates"
DRIVERS = "lib/drivers"
# The same lnet.ko, but it says that it was made of other sources.
OTHER_LNET = "lib/other/lnet.ko"
# So short that outages that are longer than it don't take minutes; both drivers know these parameters.
SOCK_TIMEOUT_S = 30
OPTIONS = f"options ksocklnd sock_timeout={SOCK_TIMEOUT_S}\n"

_LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib")
_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")


class Tree:
    """The tree, found to be configured and built for a kernel."""

    def __init__(self, folder: Path, kernel: paths.Kernel, root: Path | None = None) -> None:
        """`root` is the root folder of the system that the tree was built on, if that is not this one."""
        self.folder = folder
        self._kernel = kernel
        self._roots = [Path("/"), *([root] if root else [])]
        config = folder / "config.h"
        if not config.is_file():
            raise paths.Missing(f"{folder} is not a configured Lustre tree: it has no config.h; run its ./configure first")
        found = re.search(r'^#define VERSION "(.*)"', config.read_text(errors="replace"), re.MULTILINE)
        self.version = found.group(1) if found else "unknown"
        self._modules = {path.stem: path for path in sorted(folder.rglob("*.ko")) if "_lpb" not in path.parts}
        for name in LNET_MODULES:
            self._module(name)
        magic = _modinfo("vermagic", self._module("lnet")).split()
        if not magic or magic[0] != kernel.release:
            raise paths.Missing(
                f"{folder} was built for Linux {magic[0] if magic else '(unknown)'}, and the test machines run {kernel.release}: "
                f"configure it with --with-linux-obj={paths.CACHE / kernel.kind / 'build'}"
            )

    def _module(self, name: str) -> Path:
        path = self._modules.get(name)
        if path is None:
            raise paths.Missing(f"{self.folder} has no {name}.ko: build it first, and not without its modules or tests")
        return path

    def lacks_for_file_system(self) -> str | None:
        """What a file system needs and the tree does not have, if anything."""
        for name in (*CLIENT_MODULES, *SERVER_MODULES):
            if name not in self._modules:
                return f"{name}.ko"
        for name in FILE_SYSTEM_TOOLS:
            if self._find_program(name) is None:
                return name
        return None

    def selftest_crashes(self) -> bool:
        """Whether this tree's lnet_selftest crashes Linux 7.3: it takes it for granted that `info->attrs` is not NULL."""
        source = self.folder / "lnet" / "selftest" / "conctl.c"
        return source.is_file() and "if (info->attrs[" in source.read_text(errors="replace")

    def _find_program(self, name: str) -> Path | None:
        # What libtool leaves under the plain name is a script; the program lies in .libs.
        for folder in ("lnet/utils", "lustre/utils"):
            for path in (self.folder / folder / ".libs" / name, self.folder / folder / name):
                if path.is_file():
                    return path
        return None

    def add(self, archive: Archive, drivers: dict[str, Path], *, file_system: bool) -> None:
        """Adds modules, where modprobe finds them, and tools. `drivers` are modules to choose from, by name."""
        self._add_modules(archive, drivers, file_system)
        tools = [*LNET_TOOLS, *(FILE_SYSTEM_TOOLS if file_system else ())]
        for name in tools:
            path = self._find_program(name)
            if path is None:
                raise paths.Missing(f"{self.folder} has no {name}: build its utils first")
            self._add_program(archive, f"bin/{name}", path)
        if file_system:
            archive.link("sbin/mount.lustre", "/bin/mount.lustre")
            archive.link("bin/mount.lustre_tgt", "mount.lustre")
            for name in FILE_SYSTEM_LIBRARIES:
                for path in self.folder.rglob(name):
                    self._add_program(archive, f"{PLUGINS}/{name}", path)
        kmod = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if not kmod:
            raise paths.Missing("modprobe is not installed")
        self._add_program(archive, "sbin/modprobe", Path(kmod).resolve())
        archive.data("etc/modprobe.d/lustre.conf", OPTIONS.encode())

    def driver(self) -> Path:
        """The tree's own driver."""
        return self._module("ksocklnd")

    def _add_modules(self, archive: Archive, drivers: dict[str, Path], file_system: bool) -> None:
        release = self._kernel.release
        modules = self._kernel.modules
        assert modules is not None
        known = dependencies(paths.need(modules / "modules.dep", "scripts/setup stock"))
        with tempfile.TemporaryDirectory() as name:
            base = Path(name) / "lib" / "modules" / release
            for folder in ("kernel", "extra", UPDATES):
                (base / folder).mkdir(parents=True)
            wanted = [*LNET_MODULES, *((*CLIENT_MODULES, *SERVER_MODULES) if file_system else ())]
            for module in self._with_needed(wanted):
                if path := self._modules.get(module):
                    (base / "extra" / path.name).write_bytes(stripped(path))
                else:
                    for each in known.get(module, ()):
                        (base / "kernel" / Path(each).name.removesuffix(".xz")).write_bytes(unpacked(modules / each))
            for driver, path in drivers.items():
                data = stripped(path)
                archive.data(f"{DRIVERS}/{driver}.ko", data)
                # depmod has to know that there is one; which, and so what it needs, makes no difference: LNet.
                (base / UPDATES / "ksocklnd.ko").write_bytes(data)
            (base / "extra" / "ksocklnd.ko").unlink()
            lnet = (base / "extra" / "lnet.ko").read_bytes()
            archive.data(OTHER_LNET, re.sub(rb"srcversion=.", b"srcversion=x", lnet, count=1))
            for listing in ("modules.builtin", "modules.order"):
                if (modules / listing).exists():
                    shutil.copy(modules / listing, base / listing)
            subprocess.run(["depmod", "-b", name, release], check=True, capture_output=True)
            for path in sorted(base.rglob("*")):
                if path.is_file():
                    archive.file(str(path.relative_to(name)), path, 0o644)

    def _with_needed(self, names: list[str]) -> list[str]:
        found: list[str] = []
        names = list(names)
        while names:
            name = names.pop().replace("-", "_")
            if name and name not in found:
                found.append(name)
                if path := self._modules.get(name):
                    names += _modinfo("depends", path).split(",")
        return found

    def _add_program(self, archive: Archive, to: str, path: Path) -> None:
        """Adds a program or a library and all libraries that it needs."""
        archive.file(to, path)
        done: set[str] = set()
        left = list(_needed(path))
        while left:
            name = left.pop()
            if name in done:
                continue
            done.add(name)
            library = self._library(name)
            loader = name.startswith("ld-linux")
            archive.file(f"lib64/{name}" if loader else f"lib/x86_64-linux-gnu/{name}", library)
            left += _needed(library)
        archive.file("lib64/ld-linux-x86-64.so.2", self._library("ld-linux-x86-64.so.2"))

    def _library(self, name: str) -> Path:
        for folder in self._folders():
            if (path := folder / name).exists():
                return path.resolve()
        raise paths.Missing(
            f"the tools in {self.folder} need {name}, which is not here: LUSTRE_ROOT=/path names the root folder of the "
            "system that they were built on"
        )

    def _folders(self) -> Iterator[Path]:
        for folder in ("lnet/utils/lnetconfig", "lustre/utils", "lnet/utils"):
            yield self.folder / folder / ".libs"
        for root in self._roots:
            for folder in _LIBRARY_FOLDERS:
                yield root / folder


def find(kernel: paths.Kernel) -> Tree:
    """The tree that the user has named."""
    folder = os.environ.get("SOCKLND_LUSTRE")
    if not folder:
        raise paths.Missing("which Lustre? LUSTRE=/path names a tree that you have configured and built")
    root = os.environ.get("SOCKLND_LUSTRE_ROOT")
    return Tree(Path(folder), kernel, Path(root) if root else None)


def _modinfo(field: str, module: Path) -> str:
    return subprocess.run(["modinfo", "-F", field, module], check=True, capture_output=True, text=True).stdout.strip()


def _needed(path: Path) -> list[str]:
    listing = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True)
    return _NEEDED.findall(listing.stdout)
