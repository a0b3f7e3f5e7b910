"""The blend: the model's probabilities and the counts' shares, multiplied.

A log-linear pool (Genest and Zidek, 1986, "Combining Probability Distributions", section 3.2):
score = sum over experts of weight x log(share), the model's logits standing for its own. The
weights maximise the likelihood of the targets of past windows, by one Newton step a window with
the curvature of all windows so far.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from learners.counts import Floats

Weights = NDArray[np.float64]

_FLOOR = 1e-4  # the share that stands for an item an expert knows nothing of
_FADE = 0.8  # of the curvature, a window
_PRIOR = 10.0  # curvature before any window


def log_shares(scores: Floats) -> Floats:
    """Return log(1 + share / floor) in place of scores that are not negative: (n, items).

    It is 0 where an expert knows nothing, which is nearly everywhere.
    """
    _log_shares(scores, np.float32(_FLOOR))
    return scores


def _log_shares_of_rows(scores: Floats, floor: np.float32) -> None:
    for row in scores:
        total = row.sum() * floor
        for item in range(len(row)):
            if row[item] > 0:
                row[item] = np.log1p(row[item] / total)


_log_shares = numba.njit(cache=True)(_log_shares_of_rows)


class Blend:
    """Weights of a log-linear pool of k experts."""

    def __init__(self, start: Weights) -> None:
        self.weights = start.copy()  # (k,)
        self.curvature = _PRIOR * np.eye(len(start))  # (k, k)
        self.slope = np.zeros(len(start))

    def scores(self, experts: list[Floats]) -> Floats:
        """Add up the experts, each (n, items), by weight."""
        total = np.float32(self.weights[0]) * experts[0]
        for weight, expert in zip(self.weights[1:], experts[1:], strict=True):
            total += np.float32(weight) * expert
        return total

    def observe(self, experts: list[Floats], scores: Floats, targets: NDArray[np.int64]) -> None:
        """Add up slope and curvature of the log-likelihood of the targets (n,)."""
        likely = np.exp(scores - scores.max(axis=1, keepdims=True))  # (n, items)
        likely /= likely.sum(axis=1, keepdims=True)
        rows = np.arange(len(targets))
        weighted = [likely * expert for expert in experts]
        means = np.stack([part.sum(axis=1) for part in weighted])  # (k, n)
        own = np.stack([expert[rows, targets] for expert in experts])  # (k, n)
        self.slope += (own - means).sum(axis=1)
        for i, part in enumerate(weighted):
            for j in range(i, len(experts)):
                second = np.vdot(part, experts[j]) - means[i] @ means[j]
                self.curvature[i, j] += second
                self.curvature[j, i] = self.curvature[i, j]

    def learn(self) -> None:
        """Move the weights by what was observed since the last time."""
        self.weights = self.weights + np.linalg.solve(self.curvature, self.slope)
        self.slope = np.zeros_like(self.slope)
        self.curvature = self.curvature * _FADE + (1 - _FADE) * _PRIOR * np.eye(len(self.weights))
