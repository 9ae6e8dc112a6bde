# SPDX-License-Identifier: GPL-2.0
"""Defects that are kept: patches that put an old bug back, each with the test that must find it.

What comes before the first diff tells the bug's story, the entries of tests/COVERAGE.md that it stands for,
each as `Entry: ITEM`, and the test, as `Test: NAME`, with a name as in that table.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lib import paths

FOLDER = paths.TESTS / "defects"
# KUnit suites of files that are built in user space as well, where their tests run in seconds.
USER_SPACE = 'cfg(any(test, CONFIG_KUNIT = "y"))'
USER_SPACE_CRATE = "wire"

_DIFF = re.compile(r"^--- ", re.MULTILINE)
_FILE = re.compile(r"^\+\+\+ b/(\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Defect:
    """A patch and what must come of it."""

    name: str
    path: Path
    entries: tuple[str, ...]
    test: str
    story: str
    files: tuple[str, ...]


def parse(path: Path) -> Defect:
    """Reads a patch. Without an entry, one test, a story and a file it is an error."""
    text = path.read_text()
    start = _DIFF.search(text)
    head = text[: start.start() if start else len(text)].splitlines()
    fields: dict[str, list[str]] = {"Entry": [], "Test": []}
    story = []
    for line in head:
        name, colon, value = line.partition(": ")
        if colon and name in fields:
            fields[name].append(value)
        elif line:
            story.append(line)
    files = tuple(_FILE.findall(text))
    if not (fields["Entry"] and len(fields["Test"]) == 1 and story and files):
        raise ValueError(f"{path.name}: needs a story, entries, one test, and a change of some file")
    return Defect(path.stem, path, tuple(fields["Entry"]), fields["Test"][0], " ".join(story), files)


def all_of_them(folder: Path = FOLDER) -> list[Defect]:
    """All that are kept, by name."""
    return [parse(path) for path in sorted(folder.glob("*.patch"))]


def apply(defect: Defect, tree: Path, *, check: bool = False) -> str | None:
    """Changes the tree as the patch says, or only says why that can't be done."""
    command = ["git", "apply", *(["--check"] if check else []), str(defect.path.resolve())]
    # The tree may be in a repository that knows nothing of it; then git would change nothing and say nothing.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no git, which applies patches"
    return None if done.returncode == 0 else f"{defect.path.name} does not apply: {done.stderr.strip()}"


def trouble() -> str | None:
    """Which patches don't apply to the repository any more."""
    wrong = [apply(defect, paths.REPO, check=True) for defect in all_of_them()]
    return "\n".join(why for why in wrong if why) or None
