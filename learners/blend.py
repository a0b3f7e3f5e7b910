"""The blend: the model's probabilities and the counts' shares, multiplied.

A log-linear pool (Genest and Zidek, 1986, "Combining Probability Distributions", section 3.2):
score = sum over experts of weight x log(share), the model's logits standing for its own. What
counts is the order of what is shown, so the weights maximise the likelihood of what was taken
among the best candidates alone; over all items, most of it lies in the order of what nobody would
see. It is concave in the weights. What past windows say of them is kept as its curvature, the
precision of a normal prior on those of the next (Spiegelhalter and Lauritzen, 1990, "Sequential
Updating of Conditional Probabilities on Directed Graphical Structures").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from learners.shares import Floats, Shares

Weights = NDArray[np.float64]

_FADE = 0.5  # of the curvature, a window
_PRIOR = 10.0  # curvature before any window


class Blend:
    """Weights of a log-linear pool of k experts."""

    def __init__(self, start: Weights) -> None:
        self.weights = start.copy()  # (k,)
        self.curvature = _PRIOR * np.eye(len(start))  # (k, k)
        self.shown: list[Floats] = []  # (n, c, k) each, what was taken first

    def mix(self, logits: Floats, others: list[Shares]) -> Floats:
        """Weigh the model's logits (n, items), and add the others' log shares, in place."""
        logits *= np.float32(self.weights[0])
        for weight, expert in zip(self.weights[1:], others, strict=True):
            expert.add_to(logits, weight)
        return logits

    def observe(self, shown: Floats, taken: NDArray[np.bool_]) -> None:
        """Take note of what the experts say of candidates (n, c, k), and which was taken (n, c).

        Where none was, or a score is no number, nothing is learnt. The weights stay as they are
        until `learn`.
        """
        hit = taken.any(axis=1) & np.isfinite(shown).all(axis=(1, 2))
        order = np.argsort(~taken[hit], axis=1, kind="stable")
        self.shown.append(np.take_along_axis(shown[hit], order[:, :, None], axis=1))

    def learn(self) -> None:
        """End a window: what was observed in it decides on the weights from now on."""
        if self.shown:
            seen = np.concatenate(self.shown).astype(np.float64)
            self.weights, self.curvature = _fit(seen - seen[:, :1], self.weights, self.curvature)
        self.curvature = _FADE * self.curvature + (1 - _FADE) * _PRIOR * np.eye(len(self.weights))
        self.shown = []


def _fit(seen: Weights, start: Weights, prior: Weights) -> tuple[Weights, Weights]:
    """Return the likeliest weights (k,) and the curvature there (k, k).

    Args:
        seen: (n, c, k) less what is said of what was taken, which stands first.
        start: (k,) the prior's mean.
        prior: (k, k) its precision.
    """

    def loss(weights: Weights) -> tuple[float, Weights]:
        scores, away = seen @ weights, weights - start  # (n, c), (k,)
        value = logsumexp(scores, axis=1).sum() + away @ prior @ away / 2
        return value, np.einsum("nc,nck->k", softmax(scores, axis=1), seen) + prior @ away

    def curvature(weights: Weights) -> Weights:
        likely = softmax(seen @ weights, axis=1)
        means = np.einsum("nc,nck->nk", likely, seen)
        squares = np.einsum("nc,nci,ncj->ij", likely, seen, seen)
        return np.asarray(squares - means.T @ means + prior)

    found: Weights = minimize(loss, start, jac=True, hess=curvature, method="trust-exact").x
    return found, curvature(found)
