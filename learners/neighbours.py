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

from learners.counts import Counts, Floats
from learners.sequences import Batch, Sequences
from pipeline.settings import Learning

_REACH = 20  # events back that a pair may span
_SPAN = 3.0  # events over which a pair's weight falls by e
_FOCUS = 3.0  # events over which an input event's weight falls by e
_BACKWARD = 0.2  # of a pair taken against its order
_RARITY = 0.5  # an input event weighs its item's count to the power of minus this


class Neighbours:
    """Scores items by what was seen around the items of the input, the newest weighing most."""

    def __init__(self, settings: Learning) -> None:
        self.counts = Counts(settings.neighbours)
        self.seen = np.zeros(0, np.float32)  # (items,)
        self.again = np.zeros((2, _REACH))  # by age: targets equal to the item, and all targets

    def learn(self, sequences: Sequences, factor: float) -> None:
        """Fade what was learnt by a factor, then count the pairs that end on fresh events."""
        seen = sequences.counts(len(self.seen))
        seen[: len(self.seen)] += np.float32(factor) * self.seen
        self.seen = seen
        self.again *= factor
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
            weights.append(np.full(len(later), np.exp(-(lag - 1) / _SPAN), np.float32))
        rows, columns = np.concatenate(before), np.concatenate(after)
        weight = np.concatenate(weights)
        self.counts.decay(factor)
        self.counts.add(
            np.concatenate([rows, columns]),
            np.concatenate([columns, rows]),
            np.concatenate([weight, weight * np.float32(_BACKWARD)]),
        )

    def scores(self, batch: Batch, items: int) -> Floats:
        """Return estimated shares of the first `items` items: (b inputs) -> (b, items)."""
        age = batch.lengths[:, None] - 1 - np.arange(batch.items.shape[1])
        seen = np.append(self.seen, np.float32(0))[np.minimum(batch.items, len(self.seen))]
        weights = np.where(age >= 0, np.exp(-age / _FOCUS) / (seen + 1) ** _RARITY, 0)
        scores = self.counts.scores(batch.items, weights.astype(np.float32), items)
        again = self.again[0] / np.maximum(self.again[1], 1)  # (reach,)
        other = (1 - again.sum()) / np.maximum(scores.sum(axis=1, keepdims=True), 1e-9)
        scores *= other.astype(np.float32)
        row, place = np.nonzero((age >= 0) & (age < _REACH) & (batch.items < items))
        shares = again[age[row, place]].astype(np.float32)
        np.add.at(scores, (row, batch.items[row, place]), shares)
        return scores
