# SPDX-License-Identifier: GPL-2.0
"""Where things are: what set-up and the build made, and where logs go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
TESTS = REPO / "tests"
BUILD = REPO / "build"
LOGS = BUILD / "logs"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "socklnd"

GUEST_RUNNER = BUILD / "host" / "socklnd-guest"
SOCKLCTL = BUILD / "host" / "socklctl"


class Missing(Exception):
    """Something that has to be made first is not there."""


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot and the module built for it."""

    kind: str
    image: Path
    release: str
    module: Path
    modules: Path | None  # the folder of the kernel's own modules, if it has any
    source: Path  # the source tree it was built from

    @property
    def lnet(self) -> Path:
        """What plays LNet's part in tests."""
        return BUILD / f"{self.kind}-shim" / "lnet" / "lnet" / "lnet.ko"

    @property
    def lnet_module(self) -> Path:
        """The module for that."""
        return BUILD / f"{self.kind}-lnet" / "ksocklnd.ko"


def need(path: Path, how: str) -> Path:
    """The path, if it is there; else an error that says how to get it."""
    if not path.exists():
        raise Missing(f"{path} is missing: run '{how}' first")
    return path


IMAGES = {"stock": "vmlinuz", "debug": "bzImage", "um": "linux", "um-debug": "linux"}


def kernel(kind: str) -> Kernel:
    """The stock kernel, the debug kernel, or User Mode Linux with (um-debug) or without checkers (um)."""
    base = need(CACHE / kind, f"scripts/setup {kind}")
    image = base / IMAGES[kind]
    release = need(base / "release", f"scripts/setup {kind}").read_text().strip()
    modules = base / "modules" / release if kind == "stock" else None
    return Kernel(
        kind=kind,
        image=need(image, f"scripts/setup {kind}"),
        release=release,
        module=BUILD / kind / "ksocklnd.ko",
        modules=modules,
        source=base / "build" / "source",
    )
