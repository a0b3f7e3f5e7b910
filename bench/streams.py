"""Streams whose truth is known, made of real histories.

- spliced: one user's visits go on with another's; the change is at a known event
- gradual: the visits of the other come in little by little, over `MIXED` events
- permuted: a user's events in random order; nothing to find
- visits: a user's visits in random order, so that bursts remain; nothing to find either
- untouched: users as they are; what is true of them is not known

Visits are shuffled before they are spliced, so that the splice is the only change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.calibration import (
    MOST_AFTER,
    MOST_BEFORE,
    MOST_EVENTS,
    SIDE,
    Rows,
    shuffle_visits,
    visit_codes,
)
from pipeline.events import Clicks

MIXED = 100
"""Events over which a gradual change takes place."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Made histories: rows of the real events, and the event at which each begins to change.

    `unlike` holds how far the two users of each are from each other: the total variation between
    their shares of categories, 0 to 1. Both are empty where nothing changes.
    """

    rows: list[Rows]
    change: NDArray[np.int64]  # (n,)
    unlike: NDArray[np.float64]  # (n,)


def make(clicks: Clicks, users: list[Rows], random: np.random.Generator) -> dict[str, Streams]:
    """Make all kinds of streams of some users, each with 2 * `SIDE` events or more."""
    pairs = list(zip(users[::2], users[1::2], strict=False))
    change = np.array([random.integers(SIDE, min(len(a), MOST_BEFORE) + 1) for a, _ in pairs])
    mixed = np.minimum(change, [max(len(a) - MIXED // 2, SIDE) for a, _ in pairs])
    unlike = np.array([distance(clicks, *pair) for pair in pairs])
    spliced = [
        np.concatenate(
            [
                shuffle_visits(clicks, one, random)[:at],
                shuffle_visits(clicks, other, random)[:MOST_AFTER],
            ]
        )
        for (one, other), at in zip(pairs, change, strict=True)
    ]
    gradual = [
        mix(clicks, one, other, int(at), random)
        for (one, other), at in zip(pairs, mixed, strict=True)
    ]
    return {
        "spliced": Streams(spliced, change, unlike),
        "gradual": Streams(gradual, mixed, unlike),
        "permuted": unchanged([random.permutation(rows[:MOST_EVENTS]) for rows in users]),
        "visits": unchanged([shuffle_visits(clicks, rows[:MOST_EVENTS], random) for rows in users]),
        "untouched": unchanged([rows[:MOST_EVENTS] for rows in users]),
    }


def unchanged(rows: list[Rows]) -> Streams:
    """Return streams in which nothing changes."""
    return Streams(rows, np.zeros(0, np.int64), np.zeros(0))


def mix(clicks: Clicks, one: Rows, other: Rows, change: int, random: np.random.Generator) -> Rows:
    """Let one user's visits give way to another's: the other's share rises to 1 over `MIXED`."""
    own = shuffle_visits(clicks, one, random)
    before, rest = own[:change], own[change:]
    waiting = [_visits(clicks, rest), _visits(clicks, shuffle_visits(clicks, other, random))]
    made, since = [before], 0
    while since < MIXED + MOST_AFTER and waiting[1]:
        new = not waiting[0] or random.random() < since / MIXED
        visit = waiting[int(new)].pop(0)
        made.append(visit)
        since += len(visit)
    return np.concatenate(made)[: change + MIXED + MOST_AFTER]


def _visits(clicks: Clicks, rows: Rows) -> list[Rows]:
    edges = np.flatnonzero(np.diff(visit_codes(clicks, rows))) + 1
    return list(np.split(rows, edges))


def distance(clicks: Clicks, one: Rows, other: Rows) -> float:
    """Return the total variation between two users' shares of categories, or of items."""
    codes = clicks.category.codes + 1 if len(clicks.category.values) else clicks.item.codes
    size = int(codes.max()) + 1
    shares = [np.bincount(codes[rows], minlength=size) / len(rows) for rows in (one, other)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
