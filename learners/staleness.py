"""Model staleness: a change detector over the hits of the model, in order."""

from __future__ import annotations

import importlib
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.002  # ADWIN's delta, river's default


class Stale(msgspec.Struct, frozen=True, kw_only=True):
    """The model hits less often than it did.

    `score` is by how much the hit rate fell, `threshold` the least fall that ADWIN's bound calls
    a change between so many hits before and after.
    """

    detector: str
    score: float
    threshold: float
    before: float
    after: float
    hits: int
    """How many targets the rate after the change is taken over."""


def judge(hits: NDArray[np.bool_], detector: str) -> tuple[Stale | None, int]:
    """Look for a fall in the hits remembered, oldest first.

    The detector starts anew over all of them, so nothing of it has to be stored.

    Args:
        hits: (n,) whether each target was hit.
        detector: the name of a detector in river.drift.

    Returns:
        The last change, if it is a fall, and how many hits there are since the last change of
        either direction; older ones need not be remembered.

    Raises:
        ValueError: river.drift has no such detector.
    """
    kind = getattr(importlib.import_module("river.drift"), detector, None)
    if kind is None:
        raise ValueError(f"river.drift has no detector {detector!r}: take ADWIN or PageHinkley")
    watch = kind()
    last, since = None, 0
    for place, hit in enumerate(hits.tolist(), start=1):
        watch.update(hit)
        if watch.drift_detected and place - since > 1:
            last, length = _split(hits[since:place], detector)
            since += length
    return (last if last is not None and last.score > 0 else None), len(hits) - since


def _split(hits: NDArray[np.bool_], detector: str) -> tuple[Stale, int]:
    """Cut the hits where the rates before and after differ most, beyond ADWIN's bound.

    Bifet and Gavalda, 2007, "Learning from Time-Changing Data with Adaptive Windowing",
    equation 3.1, with delta = `CONFIDENCE`. Returns the change and the hits before it.
    """
    n = np.arange(1, len(hits))
    sums = np.cumsum(hits)
    before, after = sums[:-1] / n, (sums[-1] - sums[:-1]) / (len(hits) - n)
    share = 1 / n + 1 / (len(hits) - n)
    log = math.log(2 * max(1.0, math.log(len(hits))) / CONFIDENCE)
    bound = np.sqrt(2 * share * hits.var() * log) + 2 / 3 * share * log
    at = int(np.argmax(np.abs(before - after) - bound))
    found = Stale(
        detector=detector,
        score=float(before[at] - after[at]),
        threshold=float(bound[at]),
        before=float(before[at]),
        after=float(after[at]),
        hits=len(hits) - at - 1,
    )
    return found, at + 1
