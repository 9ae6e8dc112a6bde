# SPDX-License-Identifier: GPL-2.0
"""Checks tests/COVERAGE.md: what it names is there, nothing is listed twice, and its counts are right.

It can't tell whether a test shows what the table says; who changes a row looks.
"""

from __future__ import annotations

import os
import re
import string
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from lib import defects, paths
from lib.defects import Defect

TABLE = paths.TESTS / "COVERAGE.md"

# The tables by their headings; first those of the header.
HEADER = ("Constants and tunables", "Structures", "Functions and globals")
HISTORY = "Past defects"
OF_2005 = "Defects of 2005"
FIELD = "Faults from the field"
TRAPS = "Traps of LNet"
COUNTS = "Counts"
# Each entry of the history once.
ENTRIES = [*(str(number) for number in range(1, 77)), *string.ascii_lowercase[:22]]

COLUMNS = ["item", "here", "shown by"]
KINDS = ("shown", "in part", "by reason", "not shown yet", "not there yet")
NOT_YET = ("not shown yet", "not there yet")
REASONS = ("cannot occur: ", "not needed: ")

# The crates whose tests are named as `cargo: crate::module::test`.
CRATES = {"wire": "tests/wire", "model": "tests/model", "socklctl": "utils/socklctl", "fuzz": "fuzz"}

# Where the scenarios of several machines are.
MACHINES = {"two-node": "tests/lib/twonode.py", "three-node": "tests/lib/threenode.py"}

_QUOTED = re.compile(r"`([^`]*)`")
_NAME = re.compile(r"\w+")
_REFERENCE = re.compile(r"([\w./-]+): (\w+(?:::\w+)*)")
_TESTS = re.compile(r"(`[^`]*`(?:, `[^`]*`)*)(?:; (.+))?")
_TEST_FN = re.compile(r"#\[test\]\s+(?:#\[.*\]\s+)*fn (\w+)")
# An item; or, at the start of a line, a field, a variant, a parameter or an import, and no call.
_DEFINED = r"\b(?:fn|struct|enum|const|static|trait|type) {0}\b|^\s*(?:pub(?:\(\w+\))? )?{0}(?:[:,{{]| \{{|\(\w+\),)"
_SUITE = re.compile(r"kunit_tests\((\w+)\)")


@dataclass
class Row:
    """A line of a table."""

    heading: str
    item: str
    here: str
    shown: str

    def __str__(self) -> str:
        return f"{self.heading}: | {self.item} |"


@dataclass
class Tests:
    """The tests that there are."""

    scenarios: set[str] = field(default_factory=set)
    suites: dict[str, set[str]] = field(default_factory=dict)
    # Scenarios of several machines, by how many these are.
    machines: dict[str, set[str]] = field(default_factory=dict)
    cargo: dict[str, set[str]] = field(default_factory=dict)
    targets: set[str] = field(default_factory=set)
    # Patches with defects; and variants of the models' files, which their crate makes and tries itself.
    defects: dict[str, Defect] = field(default_factory=dict)
    variants: set[str] = field(default_factory=set)

    def has(self, name: str) -> bool:
        """Whether this is one of them."""
        kind, _, which = name.partition(": ")
        if kind == "netns":
            # Over IPv6 it has a longer name.
            return which.removesuffix("_ipv6") in self.scenarios
        if kind == "kunit":
            suite, _, case = which.partition(".")
            return suite in self.suites and (not case or case in self.suites[suite])
        if kind in MACHINES:
            return which in self.machines.get(kind, ())
        if kind == "cargo":
            crate, _, path = which.partition("::")
            return path.rpartition("::")[2] in self.cargo.get(crate, ())
        if kind == "defect":
            return which in self.defects or which in self.variants
        return kind == "fuzz" and which in self.targets


def sources(folder: Path, *, outside: tuple[str, ...] = ()) -> list[Path]:
    """The Rust files under a folder, without what was built."""
    ignored = {"build", "target", ".git", *outside}
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in ignored]
        found += [Path(place, name) for name in names if name.endswith(".rs")]
    return found


def tests(repo: Path = paths.REPO) -> Tests:
    """Reads the names of all tests from their sources."""
    found = Tests()
    listing = (repo / "tests/guest/src/scenarios.rs").read_text()
    found.scenarios.update(re.findall(r'\bscenario\(\s*"(\w+)"', listing))
    for file in sources(repo, outside=("tests", "utils", "fuzz", "bench")):
        text = file.read_text()
        if suite := _SUITE.search(text):
            found.suites[suite.group(1)] = set(_TEST_FN.findall(text, suite.end()))
    if (script := repo / "scripts/gen-examples").exists():
        text = subprocess.run([script, repo], check=True, capture_output=True, text=True).stdout
        found.suites.update({suite: set(_TEST_FN.findall(text)) for suite in _SUITE.findall(text)})
    for kind, file in MACHINES.items():
        found.machines[kind] = set(re.findall(r'\("([\w-]+)", [A-Z]\w+\)', (repo / file).read_text()))
    for crate, folder in CRATES.items():
        names = found.cargo.setdefault(crate, set())
        for file in sources(repo / folder):
            names.update(_TEST_FN.findall(file.read_text()))
    model = repo / CRATES["model"]
    # Scenarios of the models become tests by a macro, and so do the files with a defect put in.
    found.cargo["model"].update(re.findall(r"^ +\w+::\w+ as (\w+),$", (model / "src/lib.rs").read_text(), re.MULTILINE))
    found.variants.update(re.findall(r'^    \(\n +"(\w+)",$', (model / "build.rs").read_text(), re.MULTILINE))
    found.cargo["model"].update(found.variants)
    found.defects.update((defect.name, defect) for defect in defects.all_of_them(repo / "tests/defects"))
    found.targets.update(file.stem for file in (repo / "fuzz/fuzz_targets").glob("*.rs"))
    return found


def rows(text: str) -> list[Row]:
    """The rows of all tables but the last, which counts. What is no row of three cells is an error."""
    heading = ""
    found = []
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:].strip()
        if not line.startswith("|") or heading == COUNTS:
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells == COLUMNS or all(set(cell) <= set("-: ") for cell in cells):
            continue
        if len(cells) != len(COLUMNS) or not all(cells):
            raise ValueError(f"{heading}: not three cells: {line}")
        found.append(Row(heading, *cells))
    return found


def kind_of(row: Row) -> str:
    """What the row's last cell says; an error if it has another form."""
    if match := _TESTS.fullmatch(row.shown):
        rest = match.group(2)
        if rest is None:
            return "shown"
        if rest.startswith(tuple(f"{word}: " for word in NOT_YET)):
            return "in part"
    for word in NOT_YET:
        if row.shown == word or row.shown.startswith(f"{word}: "):
            return word
    if row.shown.startswith(REASONS):
        return "by reason"
    raise ValueError(f"neither tests, nor a reason, nor '{NOT_YET[0]}' or '{NOT_YET[1]}': {row.shown}")


def _check_here(row: Row, repo: Path) -> list[str]:
    """Files and symbols."""
    wrong = []
    references = _QUOTED.findall(row.here)
    if not references and not row.here.startswith(("nothing", "not there yet")):
        wrong.append(f"it names nothing, and does not say 'nothing' or 'not there yet': {row.here}")
    if row.here == "not there yet" and not row.shown.startswith(("not there yet", *REASONS)):
        wrong.append("what is not there can't be shown")
    for reference in references:
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            wrong.append(f"not 'file: symbol': {reference}")
        elif not (repo / match.group(1)).is_file():
            wrong.append(f"there is no file {match.group(1)}")
        else:
            text = (repo / match.group(1)).read_text()
            *owners, last = match.group(2).split("::")
            words = set(_NAME.findall(text))
            wrong += [f"no {part} in {match.group(1)}" for part in owners if part not in words]
            if not re.search(_DEFINED.format(last), text, re.MULTILINE):
                wrong.append(f"{last} is not in {match.group(1)}, or only used there")
    return wrong


def _check_items(table: list[Row]) -> list[str]:
    """Nothing twice, and all entries of the history."""
    wrong = []
    seen: set[str] = set()
    entries = []
    for row in table:
        if row.heading in HEADER:
            names = _QUOTED.findall(row.item)
            if not names or _QUOTED.sub("", row.item).strip(", "):
                wrong.append(f"{row}: names in backquotes expected")
        elif row.heading == HISTORY:
            number, dot, _ = row.item.partition(". ")
            entries.append(number if dot else row.item)
            names = []
        elif row.heading in (OF_2005, FIELD, TRAPS):
            names = [row.item]
        else:
            wrong.append(f"{row}: a table that nobody knows")
            continue
        wrong += [f"{row}: {name} is listed twice" for name in names if name in seen]
        seen.update(names)
    if entries != ENTRIES:
        at = next((pair for pair in zip(entries, ENTRIES) if pair[0] != pair[1]), None)
        place = f"; {at[0]} in place of {at[1]}" if at else ""
        wrong.append(f"{HISTORY}: {len(entries)} entries of {len(ENTRIES)}{place}")
    return wrong


def counts(table: list[Row]) -> list[str]:
    """The lines of the table of counts."""
    lines = [f"| table | {' | '.join(KINDS)} | with a defect |", "|---" * (len(KINDS) + 2) + "|"]
    kinds = [(row.heading, kind_of(row)) for row in table]
    for heading in (*HEADER, HISTORY, OF_2005, FIELD, TRAPS):
        numbers = [str(kinds.count((heading, kind))) for kind in KINDS]
        numbers.append(str(sum(row.heading == heading and "`defect: " in row.shown for row in table)))
        lines.append(f"| {heading} | {' | '.join(numbers)} |")
    return lines


def _check_defects(table: list[Row], known: Tests) -> list[str]:
    """A row names the defects whose patches name it, each with the test that must find it."""
    wrong = []
    named = set()
    for row in table:
        names = [name for name in _QUOTED.findall(row.shown) if row.shown.startswith("`")]
        put_in = [name.removeprefix("defect: ") for name in names if name.startswith("defect: ")]
        if len(put_in) == len(names) and names:
            wrong.append(f"{row} a defect is no test")
        for defect in (known.defects[name] for name in put_in if name in known.defects):
            named.add((defect.name, row.item))
            if row.item not in defect.entries:
                wrong.append(f"{row} {defect.path.name} does not say that it is about this")
            if defect.test not in names:
                wrong.append(f"{row} {defect.name} is found by '{defect.test}', which is not named")
    for defect in known.defects.values():
        wrong += [f"{defect.path.name}: no row '{entry}' names it" for entry in defect.entries
                  if (defect.name, entry) not in named]
        if not known.has(defect.test):
            wrong.append(f"{defect.path.name}: there is no test '{defect.test}'")
    return wrong


def check(text: str, known: Tests, repo: Path = paths.REPO) -> list[str]:
    """All that is wrong with the table, each with the row that it is in."""
    try:
        table = rows(text)
    except ValueError as why:
        return [str(why)]
    wrong = _check_items(table)
    for row in table:
        try:
            kind_of(row)
        except ValueError as why:
            wrong.append(f"{row} {why}")
        wrong += [f"{row} {why}" for why in _check_here(row, repo)]
        named = _QUOTED.findall(row.shown) if row.shown.startswith("`") else []
        wrong += [f"{row} there is no test '{name}'" for name in named if not known.has(name)]
    wrong += _check_defects(table, known)
    if not wrong:
        said = [line for line in text.partition(f"\n## {COUNTS}\n")[2].splitlines() if line.startswith("|")]
        if said != counts(table):
            wrong.append("\n".join(["the counts have to be:", *counts(table)]))
    return wrong


def trouble() -> str | None:
    """What is wrong with the repository's own table."""
    return "\n".join(check(paths.need(TABLE, "git checkout").read_text(), tests())) or None
