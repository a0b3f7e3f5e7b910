"""From windows of clicks to packed sequences and padded batches."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.catalogue import Renumbering
from pipeline.events import NO_CODE, Clicks

GAPS = 40
"""Buckets of time gaps: 0 where no event comes before, else 1 + log2(1 + seconds)."""

SESSION = "session:"
"""What the name of a user starts with where a session stands in the user's place."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """n sequences of t events in all, packed one after another, each by time.

    `fresh` marks the events of the window at hand; the others are history.
    """

    owners: list[str]  # (n,) whose events they are
    starts: Ints  # (n + 1,) where each begins; the last entry is t
    items: Ints  # (t,)
    types: Ints  # (t,)
    times: Ints  # (t,) milliseconds
    fresh: NDArray[np.bool_]  # (t,)

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def lengths(self) -> Ints:
        """Events in each sequence, (n,)."""
        return np.diff(self.starts)

    @property
    def bytes(self) -> int:
        """Memory taken by the events."""
        columns = (self.starts, self.items, self.types, self.times, self.fresh)
        return sum(column.nbytes for column in columns)

    @property
    def index(self) -> Ints:
        """The place of each event in its sequence, (t,)."""
        return np.arange(len(self.items)) - np.repeat(self.starts[:-1], self.lengths)

    @property
    def gaps(self) -> Ints:
        """The bucket of the time since the event before, (t,)."""
        seconds = np.diff(self.times, prepend=0).clip(0) / 1000
        buckets = 1 + np.log2(1 + seconds).astype(np.int64)
        return np.where(self.index == 0, 0, buckets.clip(1, GAPS - 1))

    def targets(self) -> Ints:
        """Where the fresh events stand that have an event before them, as indices into items."""
        return np.flatnonzero(self.fresh & (self.index > 0))

    def counts(self, items: int) -> NDArray[np.float32]:
        """Count the fresh events by item, (items,)."""
        return np.bincount(self.items[self.fresh], minlength=items).astype(np.float32)

    def select(self, keep: NDArray[np.bool_]) -> Sequences:
        """Return the events where `keep` (t,) is true; sequences left empty are dropped."""
        counts = np.diff(np.concatenate([[0], np.cumsum(keep)])[self.starts])
        kept = np.flatnonzero(counts)
        return Sequences(
            owners=[self.owners[row] for row in kept],
            starts=np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64),
            items=self.items[keep],
            types=self.types[keep],
            times=self.times[keep],
            fresh=self.fresh[keep],
        )

    def take(self, rows: Ints) -> Sequences:
        """Return some of the sequences, in the order given."""
        lengths = self.lengths[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        events = np.repeat(self.starts[rows], lengths) + within
        return Sequences(
            owners=[self.owners[row] for row in rows],
            starts=starts,
            items=self.items[events],
            types=self.types[events],
            times=self.times[events],
            fresh=self.fresh[events],
        )

    def tails(self, length: int) -> Sequences:
        """Return the newest `length` events of each sequence."""
        left = np.repeat(self.starts[1:], self.lengths) - np.arange(len(self.items))
        return self.select(left <= length)

    def without(self, owner: str) -> Sequences:
        """Return the sequences of everyone else."""
        return self.take(np.flatnonzero([name != owner for name in self.owners]))

    def renumbered(self, items: Renumbering) -> Sequences:
        """Return the events of items that stay; sequences left empty are dropped."""
        left = self.select(items.stays[self.items])
        return replace(left, items=items.rows[left.items])


def join(parts: list[Sequences]) -> Sequences:
    """Put the sequences of several packs into one, in the order given."""
    lengths = np.concatenate([part.lengths for part in parts])
    return Sequences(
        owners=[owner for part in parts for owner in part.owners],
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.concatenate([part.items for part in parts]),
        types=np.concatenate([part.types for part in parts]),
        times=np.concatenate([part.times for part in parts]),
        fresh=np.concatenate([part.fresh for part in parts]),
    )


def empty() -> Sequences:
    """Return no sequences at all."""
    none = np.zeros(0, np.int64)
    return Sequences(
        owners=[],
        starts=np.zeros(1, np.int64),
        items=none,
        types=none,
        times=none,
        fresh=np.zeros(0, np.bool_),
    )


def group(clicks: Clicks, items: Ints, types: Ints, by: str) -> tuple[Sequences, NDArray[np.bool_]]:
    """Group a window's events into sequences; tell which of them belong to a user for good.

    `by` is "user", "session" or "auto". "session" takes each user's sessions apart; "auto" takes
    events by user, and those whose user is a session's stand-in as sessions. Sessions are not
    carried over to the next window.
    """
    session = clicks.session.codes if by == "session" else np.full(len(clicks), NO_CODE)
    pairs = clicks.user.codes.astype(np.int64) << 32 | (session.astype(np.int64) + 1)
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    order = np.argsort(first)  # sequences by first sight
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    key = place[inverse]
    events = np.argsort(key, kind="stable")
    owners = [clicks.user.values[code] for code in clicks.user.codes[first[order]]]
    lengths = np.bincount(key, minlength=len(owners))
    sequences = Sequences(
        owners=owners,
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=items[events],
        types=types[events],
        times=clicks.time[events],
        fresh=np.ones(len(clicks), np.bool_),
    )
    lasting = session[first[order]] == NO_CODE
    if by == "auto":
        lasting &= np.array([not owner.startswith(SESSION) for owner in owners], np.bool_)
    return sequences, lasting


class Histories:
    """The newest `length` events of every user, carried over windows.

    In `past` the events are marked as fresh that were lessons: they may be lessons again.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.past = empty()

    def extend(
        self, sequences: Sequences, lasting: NDArray[np.bool_]
    ) -> tuple[Sequences, Sequences]:
        """Put each lasting sequence behind its owner's history; remember the new tails.

        Returns:
            The sequences with their histories; and the same, fresh being all that may be taught.
        """
        place = {owner: row for row, owner in enumerate(self.past.owners)}
        before = np.array(
            [
                place.get(owner, -1) if lasts else -1
                for owner, lasts in zip(sequences.owners, lasting, strict=True)
            ],
            np.int64,
        )
        met = np.flatnonzero(before >= 0)
        past = self.past.take(before[met])
        both = join([past, sequences])
        key = np.concatenate(
            [np.repeat(met, past.lengths), np.repeat(np.arange(len(sequences)), sequences.lengths)]
        )
        events = np.argsort(key, kind="stable")  # history first: it stands first in `both`
        lengths = np.bincount(key, minlength=len(sequences))
        teachable = Sequences(
            owners=sequences.owners,
            starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            items=both.items[events],
            types=both.types[events],
            times=both.times[events],
            fresh=both.fresh[events],
        )
        new = events >= len(past.items)
        absent = np.setdiff1d(np.arange(len(self.past)), before)
        untaught = replace(teachable, fresh=teachable.fresh & ~new)
        tails = untaught.take(np.flatnonzero(lasting)).tails(self.length)
        self.past = join([self.past.take(absent), tails])
        return replace(teachable, fresh=new), teachable

    def mark(self, owners: Collection[str], since: int) -> None:
        """Note that events of owners, from a time on, were lessons."""
        own = np.array([owner in owners for owner in self.past.owners], np.bool_)
        taught = np.repeat(own, self.past.lengths) & (self.past.times >= since)
        self.past = replace(self.past, fresh=self.past.fresh | taught)

    def unmark(self, start: int, end: int) -> None:
        """Let the events of start <= time < end be lessons no more."""
        undone = (self.past.times >= start) & (self.past.times < end)
        self.past = replace(self.past, fresh=self.past.fresh & ~undone)

    def drop(self, before: int) -> None:
        """Drop the users whose newest event is older than `before`."""
        last = self.past.starts[1:] - 1
        self.past = self.past.take(np.flatnonzero(self.past.times[last] >= before))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """b inputs of at most l events, padded on the right, and what follows each event.

    A target of -1 is not asked for. Under causal attention, what is padded on the right is never
    looked at, so no mask is needed beside `targets`.
    """

    items: Ints  # (b, l)
    types: Ints  # (b, l)
    gaps: Ints  # (b, l)
    fresh: NDArray[np.bool_]  # (b, l)
    lengths: Ints  # (b,)
    targets: Ints  # (b, l)
    owners: list[str]  # (b,)

    def __len__(self) -> int:
        return len(self.lengths)

    def repeats(self) -> NDArray[np.bool_]:
        """Tell whether the last event's target occurs in the input itself, (b,)."""
        inside = np.arange(self.items.shape[1]) < self.lengths[:, None]
        target = self.targets[np.arange(len(self)), self.lengths - 1]
        found: NDArray[np.bool_] = ((self.items == target[:, None]) & inside).any(axis=1)
        return found

    def take(self, rows: Ints) -> Batch:
        """Return some of the inputs, in the order given, no wider than the longest of them."""
        width = int(self.lengths[rows].max(initial=1))
        return Batch(
            items=self.items[rows, :width],
            types=self.types[rows, :width],
            gaps=self.gaps[rows, :width],
            fresh=self.fresh[rows, :width],
            lengths=self.lengths[rows],
            targets=self.targets[rows, :width],
            owners=[self.owners[row] for row in rows],
        )


def _gather(sequences: Sequences, begins: Ints, ends: Ints, asked: NDArray[np.bool_]) -> Batch:
    """Cut the inputs begins[i]:ends[i]; `asked` (b, l) says which targets count."""
    width = int((ends - begins).max(initial=1))
    at = begins[:, None] + np.arange(width)
    inside = at < ends[:, None]
    at = np.where(inside, at, 0)
    rows = np.searchsorted(sequences.starts, begins, side="right") - 1
    following = sequences.items[np.minimum(at + 1, len(sequences.items) - 1)]
    return Batch(
        items=np.where(inside, sequences.items[at], 0),
        types=np.where(inside, sequences.types[at], 0),
        gaps=np.where(inside, sequences.gaps[at], 0),
        fresh=inside & sequences.fresh[at],
        lengths=ends - begins,
        targets=np.where(inside & asked[:, :width], following, -1),
        owners=[sequences.owners[row] for row in rows],
    )


def questions(sequences: Sequences, targets: Ints, length: int) -> Batch:
    """Make one input per target: the at most `length` events before it, only the last asked.

    `targets` are indices into `sequences.items`, as `Sequences.targets` returns them.
    """
    begins = np.maximum(targets - length, targets - sequences.index[targets])
    asked = np.arange(length) == (targets - begins - 1)[:, None]
    return _gather(sequences, begins, targets, asked)


def lessons(sequences: Sequences, length: int) -> Batch:
    """Make training inputs of at most `length` events in which every fresh target counts once.

    A sequence longer than that is cut from its end into inputs that overlap by half, so that
    every target but the first ones has at least half a `length` of events before it.
    """
    counts = sequences.lengths
    step = max(1, length // 2)
    pieces = np.where(counts > 1, 1 + -(-np.maximum(0, counts - 1 - length) // step), 0)
    row = np.repeat(np.arange(len(sequences)), pieces)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # 0: the newest
    last = counts[row] - 1 - nth * step  # inputs end before this place in the sequence
    first = np.maximum(0, last - length)
    own = np.where(nth == pieces[row] - 1, 0, last - step)  # targets before are another piece's
    begins, ends = sequences.starts[row] + first, sequences.starts[row] + last
    place = first[:, None] + np.arange(length)
    at = np.minimum(begins[:, None] + np.arange(length) + 1, len(sequences.items) - 1)
    asked = (place >= own[:, None]) & (place < last[:, None]) & sequences.fresh[at]
    useful = asked.any(axis=1)
    return _gather(sequences, begins[useful], ends[useful], asked[useful])


def concatenate(batches: list[Batch]) -> Batch:
    """Stack batches of any widths into one."""
    width = max(batch.items.shape[1] for batch in batches)

    def stack(name: str, fill: int) -> Any:
        arrays = [getattr(batch, name) for batch in batches]
        margins = [((0, 0), (0, width - array.shape[1])) for array in arrays]
        return np.concatenate(
            [
                np.pad(array, margin, constant_values=fill)
                for array, margin in zip(arrays, margins, strict=True)
            ]
        )

    return Batch(
        items=stack("items", 0),
        types=stack("types", 0),
        gaps=stack("gaps", 0),
        fresh=stack("fresh", False),
        lengths=np.concatenate([batch.lengths for batch in batches]),
        targets=stack("targets", -1),
        owners=[owner for batch in batches for owner in batch.owners],
    )
