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
from measure import Comparison, Sample

MIB = 1 << 20


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
        f"Measured in {facts['title']}: Linux {facts['kernel']}, {facts['cpus']} processors,\n"
        f"on {facts['host_cpu']} ({facts['host_cpus']} processors, load {facts['host_load'][0]:.1f} before)\n\n"
        f"{'median (least to most)':32}{'bare TCP (a)':>26}{'ksocklnd (b)':>26}{'b/a':>8}"
    )


def table(comparison: Comparison) -> str:
    """The lines of one comparison."""
    lines = [f"{comparison.what.title}, {comparison.count} of them"]
    for figure in figures(comparison):
        bare, driver = (_values(figure, samples) for samples in (comparison.bare, comparison.driver))
        lines.append(f"  {figure.name:30}{_range(bare):>26}{_range(driver):>26}{_ratio(bare, driver):8.2f}")
    if disturbed := comparison.disturbed():
        total = len(comparison.bare) + len(comparison.driver)
        lines.append(f"  the host was busy with other things during {disturbed} of {total}: don't rely on this")
    return "\n".join(lines)


def _values(figure: Figure, samples: list[Sample]) -> list[float]:
    return [figure.of(sample) for sample in samples]


def _range(values: list[float]) -> str:
    return f"{_short(median(values))} ({_short(min(values))} to {_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(bare: list[float], driver: list[float]) -> float:
    return median(driver) / median(bare) if median(bare) else float("nan")


def save(facts: dict[str, Any], comparisons: list[Comparison]) -> Path:
    """Writes the raw figures, and what was computed of them; returns the file."""
    now = datetime.now(timezone.utc)
    record = {"date": now.isoformat(timespec="seconds"), **facts, "comparisons": []}
    for comparison in comparisons:
        computed = {}
        for figure in figures(comparison):
            bare, driver = (_values(figure, samples) for samples in (comparison.bare, comparison.driver))
            computed[figure.name] = {"bare": median(bare), "driver": median(driver), "ratio": _ratio(bare, driver)}
        record["comparisons"].append({**asdict(comparison), "medians": computed})
    path = paths.BUILD / "bench" / f"{now:%Y-%m-%d-%H%M%S}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path
