# SPDX-License-Identifier: GPL-2.0
"""Writes the "newc" archives that the kernel unpacks as its first root file system."""

from __future__ import annotations

import stat
from pathlib import Path


class Archive:
    """An archive in memory: paths without a leading slash, owned by root."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes, tuple[int, int]]] = {}

    def _parents(self, path: str) -> None:
        parent = str(Path(path).parent)
        if parent not in (".", "/"):
            self.directory(parent)

    def _add(self, path: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        path = path.strip("/")
        self._parents(path)
        self._entries.setdefault(path, (mode, data, device))

    def directory(self, path: str) -> None:
        """Adds a folder and those above it."""
        self._add(path, stat.S_IFDIR | 0o755)

    def data(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Adds a file with this content."""
        self._add(path, stat.S_IFREG | mode, data)

    def file(self, path: str, source: Path, mode: int = 0o755) -> None:
        """Adds a copy of a file."""
        self.data(path, source.read_bytes(), mode)

    def link(self, path: str, target: str) -> None:
        """Adds a symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        """Adds a character device."""
        self._add(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def write(self, path: Path) -> None:
        """Writes the archive, uncompressed: the guest is slower at unpacking than we at copying."""
        with open(path, "wb") as out:
            for number, (name, entry) in enumerate(self._entries.items(), start=1):
                out.write(_record(number, name, *entry))
            out.write(_record(0, "TRAILER!!!", 0, b"", (0, 0)))


def _record(number: int, name: str, mode: int, data: bytes, device: tuple[int, int]) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + encoded) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
