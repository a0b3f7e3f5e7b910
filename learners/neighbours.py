"""Streaming session and user kNN, as decayed item-to-item counts.

V-STAN (Ludewig et al., 2020, "Empirical Analysis of Session-Based Recommendation Algorithms")
sums, over past sessions that share items with the one at hand, weights for recency, for position
and for how rare the shared items are. Without a cap on neighbours that sum is linear in the pairs
of items that occur together, so counts of pairs stand for the sessions themselves: bounded,
incremental, and forgetting by decay. A session is its own nearest neighbour, so its own items
score too: here with the probability, measured by age, that an item comes again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.counts import Counts
from learners.sequences import Batch, Ints, Sequences
from learners.shares import Shares, collect
from pipeline.settings import Learning

_REACH = 20  # events back that a pair may span


class Neighbours:
    """Scores items by what was seen around the items of the input, the newest weighing most."""

    def __init__(self, settings: Learning) -> None:
        self.settings = settings.knn
        self.counts = Counts(settings.neighbours)
        self.seen = np.zeros(0, np.float32)  # (items,)
        self.again = np.zeros((2, _REACH))  # by age: targets equal to the item, and all targets

    def absorb(self, sequences: Sequences) -> None:
        """Count the pairs that end on fresh events; they count at once."""
        seen = sequences.counts(len(self.seen))
        seen[: len(self.seen)] += self.seen
        self.seen = seen
        index = sequences.index
        found = np.zeros(len(index), np.bool_)
        before, after, weights = [], [], []
        for lag in range(1, _REACH + 1):
            later = np.flatnonzero(sequences.fresh & (index >= lag))
            same = sequences.items[later] == sequences.items[later - lag]
            self.again[0, lag - 1] += np.count_nonzero(same & ~found[later])
            self.again[1, lag - 1] += len(later)
            found[later[same]] = True
            later = later[~same]
            before.append(sequences.items[later - lag])
            after.append(sequences.items[later])
            weights.append(np.full(len(later), np.exp(-(lag - 1) / self.settings.span), np.float32))
        rows, columns = np.concatenate(before), np.concatenate(after)
        weight = np.concatenate(weights)
        self.counts.add(
            np.concatenate([rows, columns]),
            np.concatenate([columns, rows]),
            np.concatenate([weight, weight * np.float32(self.settings.backward)]),
        )

    def settle(self, factor: float) -> None:
        """End a window: what it added is from now on the past, which fades by a factor a window."""
        self.counts.settle(factor)
        self.seen *= np.float32(factor)
        self.again *= factor

    def met(self, items: Ints) -> NDArray[np.bool_]:
        """Tell which items (n,) were ever seen."""
        seen = np.append(self.seen, np.float32(0))
        found: NDArray[np.bool_] = seen[np.minimum(items, len(self.seen))] > 0
        return found

    def scores(self, batch: Batch, items: int) -> Shares:
        """Return estimated shares of the first `items` items for b inputs."""
        age = batch.lengths[:, None] - 1 - np.arange(batch.items.shape[1])
        seen = np.append(self.seen, np.float32(0))[np.minimum(batch.items, len(self.seen))]
        weights = np.where(
            age >= 0, np.exp(-age / self.settings.focus) / (seen + 1) ** self.settings.rarity, 0
        )
        around = self.counts.shares(batch.items, weights.astype(np.float32), items).normalised()
        again = self.again[0] / np.maximum(self.again[1], 1)  # (reach,)
        row, place = np.nonzero((age >= 0) & (age < _REACH) & (batch.items < items))
        return collect(
            np.concatenate([around.rows, row]),
            np.concatenate([around.items, batch.items[row, place]]),
            np.concatenate(
                [around.values * (1 - again.sum()), again[age[row, place]] + 1e-9]
            ).astype(np.float32),
            len(batch),
        )
