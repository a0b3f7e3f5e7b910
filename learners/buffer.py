"""The replay buffer: a bounded memory of past sequences."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from learners.sequences import Ints, Sequences, empty, join


class Buffer:
    """At most `capacity` sequences, those with the highest priority.

    The policy says what the priority is, so that one rule keeps them all:
    "reservoir" a random number, which makes every sequence seen equally likely to be kept;
    "recency" the time of the last event;
    "frequency" a random number u as log(u) / frequency of the last item, which keeps items in
    proportion to their frequency (Efraimidis and Spirakis, 2006, "Weighted Random Sampling with
    a Reservoir");
    "fading" a reservoir in which a sequence counts half as much after each `half_life`.
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
        self, sequences: Sequences, frequency: NDArray[np.float32], random: np.random.Generator
    ) -> None:
        """Offer sequences, none of them empty; `frequency` (items,) is how often items occur."""
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
            case unknown:
                raise ValueError(
                    f"{unknown!r} is not a replay policy: "
                    "take reservoir, recency, frequency or fading"
                )
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

    def _keep(self, rows: Ints) -> None:
        self.sequences, self.priority = self.sequences.take(rows), self.priority[rows]
