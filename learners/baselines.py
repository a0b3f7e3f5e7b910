"""What every model has to beat: popularity, the last item's followers, one's own favourites."""

from __future__ import annotations

import numpy as np

from learners.counts import Counts, Floats
from learners.sequences import SESSION, Batch, Sequences, Vocabulary
from pipeline.settings import Learning

_FADE = 10.0  # events over which the weight of a recent one falls by e


class Popularity:
    """Scores items by their decayed count, the same for every input."""

    def __init__(self) -> None:
        self.counts = np.zeros(0, np.float32)  # (items,)

    def learn(self, sequences: Sequences, factor: float) -> None:
        """Fade the counts by a factor, then count the fresh events."""
        counts = sequences.counts(len(self.counts))
        counts[: len(self.counts)] += np.float32(factor) * self.counts
        self.counts = counts

    def upto(self, items: int) -> Floats:
        """Return the counts of the first `items` items, (items,)."""
        counts = self.counts[:items]
        return np.pad(counts, (0, items - len(counts)))

    def scores(self, batch: Batch, items: int) -> Floats:
        """Score the first `items` items: (b inputs) -> (b, items)."""
        return np.broadcast_to(self.upto(items), (len(batch), items))


class Markov:
    """Scores items by how often they came right after the last one."""

    def __init__(self, settings: Learning) -> None:
        self.counts = Counts(settings.neighbours)

    def learn(self, sequences: Sequences, factor: float) -> None:
        """Fade the counts by a factor, then count the pairs that end on fresh events."""
        later = sequences.targets()
        self.counts.decay(factor)
        self.counts.add(
            sequences.items[later - 1], sequences.items[later], np.ones(len(later), np.float32)
        )

    def scores(self, batch: Batch, items: int) -> Floats:
        """Score the first `items` items: (b inputs) -> (b, items)."""
        last = batch.items[np.arange(len(batch)), batch.lengths - 1][:, None]
        return self.counts.scores(last, np.ones(last.shape, np.float32), items)


class Personal:
    """Scores items by how often the same user took them; a session knows only itself."""

    def __init__(self, settings: Learning) -> None:
        self.users = Vocabulary()
        self.counts = Counts(settings.neighbours)

    def learn(self, sequences: Sequences, factor: float) -> None:
        """Fade the counts by a factor, then count each user's fresh events."""
        rows = np.array(
            [
                -1 if owner.startswith(SESSION) else self.users.row(owner)
                for owner in sequences.owners
            ],
            np.int64,
        )
        rows = np.repeat(rows, sequences.lengths)
        counted = sequences.fresh & (rows >= 0)
        self.counts.decay(factor)
        self.counts.add(
            rows[counted], sequences.items[counted], np.ones(int(counted.sum()), np.float32)
        )

    def scores(self, batch: Batch, items: int) -> Floats:
        """Score the first `items` items: (b inputs) -> (b, items)."""
        rows = np.array([self.users.get(owner) for owner in batch.owners], np.int64)[:, None]
        scores = self.counts.scores(rows, np.ones(rows.shape, np.float32), items)
        row, place = np.nonzero(batch.fresh & (batch.items < items))
        np.add.at(scores, (row, batch.items[row, place]), np.float32(1))
        return scores

    def forget(self, user: str) -> None:
        """Erase a user."""
        row = self.users.forget(user)
        if row >= 0:
            self.counts.drop(row)


def recent(batch: Batch, items: int) -> Floats:
    """Score the input's own items, the newest most: (b inputs) -> (b, items)."""
    age = batch.lengths[:, None] - 1 - np.arange(batch.items.shape[1])
    row, place = np.nonzero((age >= 0) & (batch.items < items))
    scores = np.zeros((len(batch), items), np.float32)
    np.add.at(
        scores, (row, batch.items[row, place]), np.exp(-age[row, place] / _FADE).astype(np.float32)
    )
    return scores
