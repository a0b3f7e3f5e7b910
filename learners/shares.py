"""Sparse scores: of each input only the items that a recommender knows something of."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

FLOOR = 1e-4
"""The share that stands for an item a recommender knows nothing of."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Scores of n inputs, e in all; an item that is not among an input's has 0."""

    starts: Ints  # (n + 1,) where each input's begin; the last entry is e
    items: Ints  # (e,) no item twice in an input
    values: Floats  # (e,) above 0

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def rows(self) -> Ints:
        """The input of each score, (e,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def normalised(self) -> Shares:
        """Return the same scores as shares of their input's sum."""
        sums = np.bincount(self.rows, self.values, len(self))
        return Shares(self.starts, self.items, (self.values / sums[self.rows]).astype(np.float32))

    def logs(self) -> Shares:
        """Return log(1 + share / floor) in place of scores: 0 still says that nothing is known."""
        shares = self.normalised()
        return Shares(self.starts, self.items, np.log1p(shares.values / np.float32(FLOOR)))

    def dense(self, items: int) -> Floats:
        """Return the scores of the first `items` items, (n, items)."""
        scores = np.zeros((len(self), items), np.float32)
        known = self.items < items
        scores[self.rows[known], self.items[known]] = self.values[known]
        return scores

    def ranks(self, targets: Ints, items: int) -> Ints:
        """Rank targets (n,) among the first `items` items; ties count against them."""
        rows = self.rows
        own = np.zeros(len(self), np.float32)
        hit = self.items == targets[rows]
        own[rows[hit]] = self.values[hit]
        before = (self.items < items) & (self.values >= own[rows])
        found = np.bincount(rows[before], minlength=len(self))
        return np.where(own > 0, found, items)

    def add_to(self, scores: Floats, weight: float) -> None:
        """Add weight x value to scores (n, items) in place; items beyond are passed over."""
        _add(self.starts, self.items, self.values, np.float32(weight), scores)


def collect(rows: Ints, items: Ints, values: Floats, inputs: int) -> Shares:
    """Sum up values (m,) above 0 by input and item, both (m,)."""
    keys, inverse = np.unique(rows << 32 | items, return_inverse=True)
    sums = np.bincount(inverse, values, len(keys)).astype(np.float32)
    starts = np.searchsorted(keys, np.arange(inputs + 1) << 32).astype(np.int64)
    return Shares(starts, keys & 0xFFFFFFFF, sums)


def _add_rows(
    starts: Ints, items: Ints, values: Floats, weight: np.float32, scores: Floats
) -> None:
    for row in range(scores.shape[0]):
        for entry in range(starts[row], starts[row + 1]):
            if items[entry] < scores.shape[1]:
                scores[row, items[entry]] += weight * values[entry]


_add = numba.njit(cache=True)(_add_rows)
