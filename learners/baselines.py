"""What every model has to beat: popularity, the last item's followers, one's own favourites."""

from __future__ import annotations

from itertools import compress

import numpy as np

from learners.catalogue import Renumbering, Vocabulary
from learners.counts import Counts, Floats
from learners.sequences import SESSION, Batch, Ints, Sequences
from learners.shares import Shares, collect
from pipeline.settings import Learning


class Popularity:
    """Scores items by their decayed count, the same for every input."""

    def __init__(self) -> None:
        self.counts = np.zeros(0, np.float32)  # (items,)

    def learn(self, sequences: Sequences, factor: float) -> None:
        """Fade the counts by a factor, then count the fresh events."""
        counts = sequences.counts(len(self.counts))
        counts[: len(self.counts)] += np.float32(factor) * self.counts
        self.counts = counts

    def renumber(self, items: Renumbering) -> None:
        """Give items their new rows, and forget those that are gone."""
        self.counts = self.counts[items.stays[: len(self.counts)]]

    def upto(self, items: int) -> Floats:
        """Return the counts of the first `items` items, (items,)."""
        counts = self.counts[:items]
        return np.pad(counts, (0, items - len(counts)))

    def ranks(self, targets: Ints, items: int) -> Ints:
        """Rank targets (n,) among the first `items` items; ties count against them."""
        counts = np.sort(self.upto(items))
        return items - np.searchsorted(counts, self.upto(int(targets.max(initial=0)) + 1)[targets])


class Markov:
    """Scores items by how often they came right after the last one."""

    def __init__(self, settings: Learning) -> None:
        self.counts = Counts(settings.neighbours)

    def learn(self, sequences: Sequences, factor: float) -> None:
        """Fade the counts by a factor, then count the pairs that end on fresh events."""
        later = sequences.targets()
        self.counts.add(
            sequences.items[later - 1], sequences.items[later], np.ones(len(later), np.float32)
        )
        self.counts.settle(factor)

    def scores(self, batch: Batch, items: int) -> Shares:
        """Score the first `items` items for b inputs."""
        last = batch.items[np.arange(len(batch)), batch.lengths - 1][:, None]
        return self.counts.shares(last, np.ones(last.shape, np.float32), items)

    def renumber(self, items: Renumbering) -> None:
        """Give items their new rows, and forget those that are gone."""
        self.counts.renumber(items, items)


class Personal:
    """Scores items by how often the same user took them; a session knows only itself."""

    def __init__(self, settings: Learning) -> None:
        self.users = Vocabulary()
        self.counts = Counts(settings.neighbours)

    def learn(self, sequences: Sequences, factor: float) -> None:
        """Fade the counts by a factor, then count each user's fresh events.

        A user of whom nothing is left is forgotten.
        """
        rows = np.array(
            [
                -1 if owner.startswith(SESSION) else self.users.row(owner)
                for owner in sequences.owners
            ],
            np.int64,
        )
        rows = np.repeat(rows, sequences.lengths)
        counted = sequences.fresh & (rows >= 0)
        self.counts.add(
            rows[counted], sequences.items[counted], np.ones(int(counted.sum()), np.float32)
        )
        self.counts.settle(factor)
        left = self.counts.close_up(len(self.users))
        if not left.stays.all():
            self.users = Vocabulary(compress(self.users.names, left.stays))

    def scores(self, batch: Batch, items: int) -> Shares:
        """Score the first `items` items for b inputs."""
        rows = np.array([self.users.get(owner) for owner in batch.owners], np.int64)[:, None]
        past = self.counts.shares(rows, np.ones(rows.shape, np.float32), items)
        row, place = np.nonzero(batch.fresh & (batch.items < items))
        return collect(
            np.concatenate([past.rows, row]),
            np.concatenate([past.items, batch.items[row, place]]),
            np.concatenate([past.values, np.ones(len(row), np.float32)]),
            len(batch),
        )

    def renumber(self, items: Renumbering) -> None:
        """Give items their new rows, and forget those that are gone."""
        self.counts.renumber(Renumbering(np.ones(len(self.users), np.bool_)), items)

    def forget(self, user: str) -> None:
        """Erase a user."""
        row = self.users.forget(user)
        if row >= 0:
            self.counts.drop(row)
