"""Herding: the order in which examples together stay nearest to the mean of their group.

Welling, 2009, "Herding Dynamical Weights to Learn"; as a choice of exemplars: Rebuffi et al., 2017,
"iCaRL: Incremental Classifier and Representation Learning", algorithm 4, and ADER, per item.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.sequences import Ints
from learners.shares import Floats


def order(states: Floats) -> Ints:
    """Return the rows of one group, (m, d), in herding order, (m,)."""
    mean = states.mean(axis=0)
    total = np.zeros_like(mean)
    left = np.arange(len(states))
    chosen = np.empty(len(states), np.int64)
    for nth in range(len(states)):
        means = (total + states[left]) / (nth + 1)
        best = int(np.argmin(np.square(means - mean).sum(axis=1)))
        chosen[nth] = left[best]
        total += states[left[best]]
        left = np.delete(left, best)
    return chosen


def places(states: Floats, groups: Ints) -> NDArray[np.float64]:
    """Return how many of each example's group come before it, as a share of the group, (n,).

    Args:
        states: (n, d).
        groups: (n,) which of them belong together.
    """
    found = np.empty(len(states))
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(sizes)[:-1])
    for rows in members if len(states) else []:
        found[rows[order(states[rows])]] = np.arange(len(rows)) / len(rows)
    return found
