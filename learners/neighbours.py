"""Streaming session and user kNN, as decayed item-to-item counts.

V-STAN (Ludewig et al., 2020, "Empirical Analysis of Session-Based Recommendation Algorithms")
sums, over past sessions that share items with the one at hand, weights for recency, for position
and for how rare the shared items are. Without a cap on neighbours that sum is linear in the pairs
of items that occur together, so counts of pairs stand for the sessions themselves: bounded,
incremental, and forgetting by decay. A session is its own nearest neighbour, so its own items
score too: with the probability that an item comes again, as it was measured of items that were as
old, as often there, in inputs as long that were going back as much.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from learners.catalogue import Renumbering
from learners.counts import Counts
from learners.sequences import Batch, Ints, Sequences
from learners.shares import Shares, collect
from pipeline.settings import Learning

_REACH = 20  # events back that a pair may span
_TIMES = 3  # that an item was there; more count as these
_LENGTHS = 4  # of an input; a longer one counts as this
_CELLS = _REACH * _TIMES * 2 * _LENGTHS
_DOUBT = 10  # times that an item is taken not to have come again before any was seen


class Neighbours:
    """Scores items by what was seen around the items of the input, the newest weighing most."""

    def __init__(self, settings: Learning) -> None:
        self.settings = settings.knn
        self.counts = Counts(settings.neighbours)
        self.seen = np.zeros(0, np.float32)  # (items,)
        self.again = np.zeros((2, _CELLS))  # targets equal to the item, and all targets

    def absorb(self, sequences: Sequences) -> None:
        """Count the pairs that end on fresh events; they count at once."""
        seen = sequences.counts(len(self.seen))
        seen[: len(self.seen)] += self.seen
        self.seen = seen
        index = sequences.index
        self._compare(sequences)
        before, after, weights = [], [], []
        for lag in range(1, _REACH + 1):
            later = np.flatnonzero(sequences.fresh & (index >= lag))
            same = sequences.items[later] == sequences.items[later - lag]
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

    def _compare(self, sequences: Sequences) -> None:
        """Count which items came again."""
        targets = sequences.targets()
        ages = np.arange(1, _REACH + 1)
        there = ages <= sequences.index[targets][:, None]
        past = np.where(there, sequences.items[np.maximum(targets[:, None] - ages, 0)], -1)
        cells = _cells(past)
        again = past == sequences.items[targets][:, None]
        self.again[0] += np.bincount(cells[again & (cells >= 0)], minlength=_CELLS)
        self.again[1] += np.bincount(cells[cells >= 0], minlength=_CELLS)

    def settle(self, factor: float) -> None:
        """End a window: what it added is from now on the past, which fades by a factor a window."""
        self.counts.settle(factor)
        self.seen *= np.float32(factor)
        self.again *= factor

    def renumber(self, items: Renumbering) -> None:
        """Give items their new rows, and forget those that are gone."""
        self.counts.renumber(items, items)
        self.seen = self.seen[items.stays[: len(self.seen)]]

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
        again = self.returns(batch, items)
        none = np.exp(np.bincount(again.rows, np.log1p(-again.values), len(batch)))  # (b,)
        return collect(
            np.concatenate([around.rows, again.rows]),
            np.concatenate([around.items, again.items]),
            np.concatenate([around.values * none[around.rows], again.values]),
            len(batch),
        )

    def returns(self, batch: Batch, items: int) -> Shares:
        """Return with what probability which of the first `items` items come again in b inputs."""
        age = batch.lengths[:, None] - 1 - np.arange(_REACH)
        past = np.where(age >= 0, np.take_along_axis(batch.items, np.maximum(age, 0), axis=1), -1)
        cells = _cells(past)
        row, place = np.nonzero((cells >= 0) & (past < items))
        again = self.again[0] / (self.again[1] + _DOUBT) + 1e-9
        values = again[cells[row, place]].astype(np.float32)
        return collect(row, past[row, place], values, len(batch))


def _cells(past: Ints) -> Ints:
    """Return where the items of inputs are counted: (n, reach), the newest first, -1 for none.

    By age, times there, whether the newest item was there before, and length; -1 where there is
    no item, or where it came once more later.
    """
    cells = np.full(past.shape, -1, np.int64)
    _place(past, cells)
    return cells


def _place_rows(past: Ints, cells: Ints) -> None:
    for row in range(len(past)):
        length = 0
        while length < past.shape[1] and past[row, length] >= 0:
            length += 1
        back = 0
        for age in range(length):
            times, nearer = 0, False
            for other in range(length):
                if past[row, other] == past[row, age]:
                    times += 1
                    nearer = nearer or other < age
            if age == 0 and times > 1:
                back = 1
            if not nearer:
                cell = age * _TIMES + min(times, _TIMES) - 1
                cells[row, age] = (2 * cell + back) * _LENGTHS + min(length, _LENGTHS) - 1


_place = numba.njit(cache=True)(_place_rows)
