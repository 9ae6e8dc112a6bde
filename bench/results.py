# SPDX-License-Identifier: GPL-2.0
"""Prints what was measured, and keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from lib import paths
from measure import Comparison, Sample, What

MIB = 1 << 20
SIDES = {
    "a": "bare TCP (a)",
    "b": "ksocklnd (b)",
    "c": "through a gateway (c)",
    "d": "gateway, copying (d)",
}


@dataclass(frozen=True)
class Figure:
    """Something that is computed from each sample."""

    name: str
    of: Callable[[Sample], float]


def figures(comparison: Comparison) -> list[Figure]:
    """What matters of this comparison."""
    size = comparison.what.size
    if size:
        return [
            Figure("MiB/s", lambda sample: sample.messages * size / MIB / sample.seconds),
            Figure("CPU ms per MiB", lambda sample: sample.cpu_seconds * 1e3 / (sample.messages * size / MIB)),
        ]
    return [
        Figure("messages/s", lambda sample: sample.messages / sample.seconds),
        Figure("CPU µs per message", lambda sample: sample.cpu_seconds * 1e6 / sample.messages),
    ]


def heading(facts: dict[str, Any]) -> str:
    """What all figures have in common."""
    return (
        f"Measured in {facts['title']}: Linux {facts['kernel']}, processors: {facts['cpus']},\n"
        f"on {facts['host_cpu']} ({facts['host_cpus']} processors, load {facts['host_load'][0]:.1f} before)"
    )


def columns(what: What) -> str:
    """What the columns of the following comparisons are."""
    first, second = what.sides
    return f"\n{'median (least to most)':32}{SIDES[first]:>26}{SIDES[second]:>26}{f'{second}/{first}':>8}"


def table(comparison: Comparison) -> str:
    """The lines of one comparison."""
    lines = [f"{comparison.what.title}, {comparison.count} of them"]
    for figure in figures(comparison):
        first, second = (_values(figure, samples) for samples in (comparison.first, comparison.second))
        lines.append(f"  {figure.name:30}{_range(first):>26}{_range(second):>26}{_ratio(first, second):8.2f}")
        if comparison.what.sides == ("b", "c") and figure.name.startswith("CPU"):
            # All nodes are in one kernel, so a gateway's part is what there is more than without it.
            own = median(second) - median(first)
            lines.append(f"    of it the gateway's{_short(own):>61}{own / median(first) if median(first) else 0:8.2f}")
    if comparison.copied is not None:
        lines.append(f"  of the messages that the gateway lent, {comparison.copied:.0%} were copied on their way after all")
    if disturbed := comparison.disturbed():
        total = len(comparison.first) + len(comparison.second)
        lines.append(f"  the host was busy with other things during {disturbed} of {total}: don't rely on this")
    return "\n".join(lines)


def _values(figure: Figure, samples: list[Sample]) -> list[float]:
    return [figure.of(sample) for sample in samples]


def _range(values: list[float]) -> str:
    return f"{_short(median(values))} ({_short(min(values))} to {_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(first: list[float], second: list[float]) -> float:
    return median(second) / median(first) if median(first) else float("nan")


def save(facts: dict[str, Any], comparisons: list[Comparison]) -> Path:
    """Writes the raw figures, and what was computed of them; returns the file."""
    now = datetime.now(timezone.utc)
    record = {"date": now.isoformat(timespec="seconds"), **facts, "comparisons": []}
    for comparison in comparisons:
        computed = {}
        for figure in figures(comparison):
            first, second = (_values(figure, samples) for samples in (comparison.first, comparison.second))
            computed[figure.name] = {"first": median(first), "second": median(second), "ratio": _ratio(first, second)}
        record["comparisons"].append({**asdict(comparison), "medians": computed})
    path = paths.BUILD / "bench" / f"{now:%Y-%m-%d-%H%M%S}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path
