"""River's change detectors over users, by name, in place of the detector of `pipeline.kernel`.

A detector of numbers needs a number for each event: the log-likelihood of its category under all
that the user has shown before, a Dirichlet-categorical predictive. It falls when interests change.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from pipeline.settings import SettingsError

PREFIX = "river:"
_CLASSES = {"adwin": "ADWIN", "kswin": "KSWIN", "pagehinkley": "PageHinkley"}
_NEWEST = 16
"""Values whose mean tells a fall of the signal from a rise."""


class Detector(Protocol):
    """What river calls a drift detector."""

    drift_detected: bool

    def update(self, x: float) -> None:
        """Take the next value."""


def detector(name: str, **options: Any) -> Detector:
    """Make one of River's detectors.

    Raises:
        SettingsError: There is none of that name.
    """
    kind = _CLASSES.get(name.removeprefix(PREFIX))
    if kind is None or not name.startswith(PREFIX):
        known = ", ".join(PREFIX + known for known in _CLASSES)
        raise SettingsError(f"there is no detector {name!r}: take driftline, {known}")
    made: Detector = getattr(importlib.import_module("river.drift"), kind)(**options)
    return made


class Likelihood:
    """What a user has shown, as the predictive of what comes next."""

    def __init__(self, concentration: float) -> None:
        self._concentration = concentration
        self._counts: Counter[str] = Counter()
        self._total = 0

    def observe(self, category: str, share: float) -> float:
        """Count a category; return its log-likelihood under what came before it.

        `share` is the category's in the population.
        """
        a = self._concentration
        predictive = (a * share + self._counts[category]) / (a + self._total)
        self._counts[category] += 1
        self._total += 1
        return float(np.log(predictive))


def falls(watch: Detector, signal: Sequence[float], *, minimum: int = 0) -> Iterable[int]:
    """Return where a detector finds that a signal has fallen.

    A rise is no change of interests: the predictive of a new user gets better by itself.
    """
    start = minimum
    for place in range(minimum, len(signal)):
        watch.update(signal[place])
        if watch.drift_detected:
            newest = max(place + 1 - _NEWEST, start)
            if np.mean(signal[newest : place + 1]) < np.mean(signal[start : place + 1]):
                yield place
            start = place + 1
