"""The replay buffer: a bounded memory of past sequences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learners.catalogue import Renumbering
from learners.herding import places
from learners.sequences import Ints, Sequences, empty, join
from learners.shares import Floats

POLICIES = ("reservoir", "recency", "frequency", "fading", "herding", "loss")
SEEING = ("herding", "loss")
"""The policies that need to know what the model makes of a sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a model makes of n sequences."""

    states: Floats  # (n, d) what it knows before the last event
    losses: Floats  # (n,) minus the log-likelihood of the last event's item


class Buffer:
    """At most `capacity` sequences, those with the highest priority.

    The policy says what the priority is, so that one rule keeps them all:
    "reservoir" a random number, which makes every sequence seen equally likely to be kept;
    "recency" the time of the last event;
    "frequency" a random number u as log(u) / frequency of the last item, which keeps items in
    proportion to their frequency (Efraimidis and Spirakis, 2006, "Weighted Random Sampling with
    a Reservoir");
    "fading" a reservoir in which a sequence counts half as much after each `half_life`;
    "herding" how late the sequence comes in the herding order of its window's sequences that end
    on the same item, as a share of them: each item of each window keeps the same share;
    "loss" as "frequency", in proportion to the loss on the last item: what the model finds hard.
    """

    def __init__(
        self,
        capacity: int,
        policy: str,
        half_life: int = 1,
    ) -> None:
        self.capacity = capacity
        self.policy = policy
        self.half_life = half_life  # milliseconds
        self.sequences = empty()
        self.priority: NDArray[np.float64] = np.zeros(0)  # (n,)

    def __len__(self) -> int:
        return len(self.sequences)

    def add(
        self,
        sequences: Sequences,
        frequency: NDArray[np.float32],
        random: np.random.Generator,
        seen: Seen | None = None,
    ) -> None:
        """Offer sequences.

        Args:
            sequences: n, none of them empty.
            frequency: (items,) how often items occur.
            random: of the priorities.
            seen: what the model makes of the sequences; "herding" and "loss" need it.

        Raises:
            ValueError: there is no such policy, or it lacks what it needs.
        """
        draws = 1 - random.random(len(sequences))  # (0, 1]
        last = sequences.starts[1:] - 1
        match self.policy:
            case "reservoir":
                fresh = draws
            case "recency":
                fresh = sequences.times[last].astype(np.float64)
            case "frequency":
                fresh = np.log(draws) / np.maximum(frequency[sequences.items[last]], 1e-9)
            case "fading":  # the same draw with weight 2^(time / half life), on a log scale
                grown = math.log(2) * sequences.times[last] / self.half_life
                fresh = grown + random.gumbel(size=len(sequences))
            case "herding" if seen is not None:
                behind = places(seen.states, sequences.items[last])
                fresh = -behind - (1 - draws) / len(sequences)  # ties by lot
            case "loss" if seen is not None:
                fresh = np.log(draws) / np.maximum(seen.losses, 1e-9)
            case "herding" | "loss":
                raise ValueError(f"{self.policy} needs what the model makes of the sequences")
            case unknown:
                raise ValueError(f"{unknown!r} is not a replay policy: take {', '.join(POLICIES)}")
        both = join([self.sequences, sequences])
        priority = np.concatenate([self.priority, fresh])
        kept = np.sort(np.argsort(-priority, kind="stable")[: self.capacity])
        self.sequences, self.priority = both.take(kept), priority[kept]

    def draw(self, count: int, random: np.random.Generator) -> Sequences:
        """Return at most `count` sequences, no one twice."""
        rows: Ints = random.permutation(len(self))[:count]
        return self.sequences.take(np.sort(rows))

    def forget(self, owner: str) -> None:
        """Erase an owner's sequences."""
        self._keep(np.flatnonzero([name != owner for name in self.sequences.owners]))

    def forget_window(self, start: int, end: int) -> None:
        """Erase the sequences whose last event lies in start <= time < end."""
        last = self.sequences.times[self.sequences.starts[1:] - 1]
        self._keep(np.flatnonzero((last < start) | (last >= end)))

    def renumber(self, items: Renumbering) -> None:
        """Give items their new rows; sequences left with less than two events are dropped."""
        stays = items.stays[self.sequences.items].astype(np.int64)
        left = np.add.reduceat(stays, self.sequences.starts[:-1])
        self._keep(np.flatnonzero(left > 1))
        self.sequences = self.sequences.renumbered(items)

    def _keep(self, rows: Ints) -> None:
        self.sequences, self.priority = self.sequences.take(rows), self.priority[rows]
