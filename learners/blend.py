"""The blend: the model's probabilities and the counts' shares, multiplied.

A log-linear pool (Genest and Zidek, 1986, "Combining Probability Distributions", section 3.2):
score = sum over experts of weight x log(share), the model's logits standing for its own. The
weights maximise the likelihood of the targets, which is concave in them, by a bounded Newton step
a slice of questions, with the curvature of all slices so far. Those of past windows are used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.shares import Floats, Shares

Weights = NDArray[np.float64]

_FADE = 0.8  # of the curvature, a window
_PRIOR = 10.0  # curvature before any window
_STEP = 0.1  # that a slice may move a weight by, at most


class Blend:
    """Weights of a log-linear pool of k experts."""

    def __init__(self, start: Weights) -> None:
        self.weights = start.copy()  # (k,)
        self.learnt = start.copy()  # (k,) with what was observed since
        self.curvature = _PRIOR * np.eye(len(start))  # (k, k)

    def mix(self, logits: Floats, others: list[Shares]) -> Floats:
        """Weigh the model's logits (n, items), and add the others' log shares, in place."""
        logits *= np.float32(self.weights[0])
        for weight, expert in zip(self.weights[1:], others, strict=True):
            expert.add_to(logits, weight)
        return logits

    def observe(self, experts: list[Floats], targets: NDArray[np.int64]) -> None:
        """Learn from the targets (n,) of a slice; what the experts say of them is (n, items) each.

        The weights in use stay as they are until `learn`.
        """
        scores = sum(np.float32(w) * x for w, x in zip(self.learnt, experts, strict=True))
        likely = np.exp(scores - np.max(scores, axis=1, keepdims=True))  # (n, items)
        likely /= likely.sum(axis=1, keepdims=True)
        rows = np.arange(len(targets))
        weighted = [likely * expert for expert in experts]
        means = np.stack([part.sum(axis=1) for part in weighted])  # (k, n)
        own = np.stack([expert[rows, targets] for expert in experts])  # (k, n)
        for i, part in enumerate(weighted):
            for j in range(i, len(experts)):
                second = np.vdot(part, experts[j]) - means[i] @ means[j]
                self.curvature[i, j] += second
                self.curvature[j, i] = self.curvature[i, j]
        step = np.linalg.solve(self.curvature, (own - means).sum(axis=1))
        self.learnt = self.learnt + step * min(1.0, _STEP / max(1e-9, float(np.abs(step).max())))

    def learn(self) -> None:
        """End a window: what was learnt from it is used from now on, and fades."""
        self.weights = self.learnt.copy()
        self.curvature = self.curvature * _FADE + (1 - _FADE) * _PRIOR * np.eye(len(self.weights))
