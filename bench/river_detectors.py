"""River's detectors on the same interest signal: tuned on some users, to be measured on others."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np

from bench.streams import Streams
from pipeline.calibration import Rows
from pipeline.events import NO_CODE, Clicks
from pipeline.prior import Prior
from pipeline.river_drift import Likelihood, detector, falls
from pipeline.settings import Settings
from pipeline.symbols import prefix

GRIDS: dict[str, dict[str, list[Any]]] = {
    "river:adwin": {"delta": [1e-7, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2], "clock": [1]},
    "river:pagehinkley": {
        "threshold": [10, 20, 30, 45, 60, 90, 130, 200],
        "delta": [0.005, 0.5],
        "mode": ["down"],
    },
    "river:kswin": {"alpha": [1e-12, 1e-9, 1e-7, 1e-5], "seed": [7]},
}
MOST_STREAMS = {"river:kswin": 10}
"""Of each kind, where a detector takes near a millisecond an event."""

Signal = list[float]


@dataclass(frozen=True, slots=True)
class Found:
    """At which events of each stream alarms were raised, and what that took."""

    alarms: list[list[int]]
    ns_per_event: float
    bytes_per_user: float


def signals(clicks: Clicks, streams: list[Rows], settings: Settings, prior: Prior) -> list[Signal]:
    """Return the log-likelihood of each event's category under the user's events before it."""
    names = [prefix(name, settings.interests.category_depth) for name in clicks.category.values]
    found = []
    for rows in streams:
        user = Likelihood(prior.process.concentration)
        categories = [
            names[code] if code != NO_CODE else prior.groups.get(item, item)
            for code, item in zip(
                clicks.category.codes[rows].tolist(),
                (clicks.item.values[i] for i in clicks.item.codes[rows].tolist()),
                strict=True,
            )
        ]
        found.append([user.observe(name, prior.share(name)) for name in categories])
    return found


def run(name: str, options: dict[str, Any], made: list[Signal], minimum: int) -> Found:
    """Run a detector of its own over each signal."""
    start = process_time()
    alarms = [falls(detector(name, **options), one, minimum=minimum) for one in made]
    seconds = process_time() - start
    return Found(
        alarms=alarms,
        ns_per_event=1e9 * seconds / sum(len(one) for one in made),
        bytes_per_user=_memory(name, options, made[:20]),
    )


def tune(
    name: str, steady: list[Signal], spliced: list[Signal], changes: Streams, settings: Settings
) -> dict[str, Any]:
    """Choose the options that find most within the promised rate of false alarms.

    Where none keeps the rate, those that break it least are taken.
    """
    ranked = []
    minimum = settings.drift.minimum_events
    for options in _grid(name):
        still = run(name, options, steady, minimum).alarms
        rate = sum(len(events) for events in still) / sum(len(one) for one in steady)
        found = run(name, options, spliced, minimum).alarms
        caught = sum(
            any(event >= change for event in events)
            for events, change in zip(found, changes.change, strict=False)
        )
        kept = rate * settings.drift.events_per_false_alarm <= 1
        ranked.append(((kept, caught if kept else -rate), len(ranked), options))
    return max(ranked)[2]


def _grid(name: str) -> Iterator[dict[str, Any]]:
    grid = GRIDS[name]
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _memory(name: str, options: dict[str, Any], made: list[Signal]) -> float:
    """Return the bytes that Python holds for a detector that has seen a signal."""
    tracemalloc.start()
    kept = []
    for one in made:
        watch = detector(name, **options)
        for value in one[:500]:
            watch.update(value)
        kept.append(watch)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return float(np.ceil(held / len(kept)))
