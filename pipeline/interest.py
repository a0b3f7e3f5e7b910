"""A user's interest state: its layout, and how it is read.

The state is one fixed record. How an event changes it stands in `pipeline.kernel`, the bytes in
which it is stored and sent in `pipeline.packing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.events import Interest, InterestProfile
from pipeline.symbols import Names

LAYOUT_VERSION = 3

SLOTS = 128
"""Categories remembered for a user; the one with the least long-term weight makes room."""
RING = 192
"""Newest detector observations remembered: how far back a change can be placed."""
MARK = 8
"""Every how many observations the time is remembered: how exactly a change can be dated."""
OWN_SETS, OWN_WAYS = 64, 4
"""Items remembered as the user's own, in sets by their hash."""
RECENT = 16
"""Newest events remembered, for profiles and for the evidence of an alert."""
LEFT = 8
"""Interests remembered as left by the last change, to know it when they come back."""
EVENT_IDS = 16
"""Newest event ids remembered, to know a duplicate."""
NO_SLOT = 255
"""What the ring holds for an observation whose category has made room for another."""

OBSERVATION = np.dtype(
    [
        ("item", "<u2"),  # a hash
        ("before", "<i2"),  # log of its probability under what came before; see `kernel`
        ("slot", "u1"),  # of its category
        ("rarity", "u1"),  # -log of the item's share in its category
        ("flags", "u1"),  # FIRST: of its category in the visit; OPENS: of the visit
    ]
)

SLOT = np.dtype(
    [
        ("category", "<u8"),
        ("short", "<f4"),  # decayed weights as of `time`
        ("long", "<f4"),
        (
            "count",
            "<f4",
        ),  # visits since the last change in which it brought an item new to the user
        ("seen", "<u2"),  # visits with it since the last change
        ("prior", "<f4"),  # the category's share in the population
    ]
)

STATE = np.dtype(
    [
        ("layout", "<u2"),
        ("used", "<u2"),  # slots in use, the first ones
        ("total", "<f4"),  # detector observations since the last change
        ("distinct", "<f4"),  # items among them
        ("counted", "<f4"),  # sum of `count`, evicted slots too
        ("kinds", "<f4"),  # categories among them
        ("raised", "<i8"),  # the event that tipped the alert of the last change; 0: none
        ("raised_kind", "u1"),  # of that alert
        ("alerted", "<i8"),  # `observed` at the last alert
        ("left", "u1", (LEFT,)),  # slots of the interests that the user left then; NO_SLOT: none
        ("left_share", "<f4"),  # what they had been of the whole
        ("events", "<i8"),  # events applied: the ordinal of the newest
        ("position", "<i8"),  # of the newest event met in its log: the exactly-once stamp
        ("late", "<u4"),
        ("duplicates", "<u4"),
        ("time", "<i8"),  # the newest event time
        ("born", "<i8"),  # the time of the first event
        ("profiled", "<i8"),  # when a profile was last due
        ("visit", "<u8"),  # the session; 0 where silence ends a visit
        ("visit_time", "<i8"),
        ("visit_slots", "<u8", (SLOTS // 64,)),  # bit s: slot s was observed in this visit
        ("observed", "<i8"),  # detector observations ever: the head of `ring`
        ("ids", "<i8"),  # event ids met ever: the head of `event_ids`
        ("event_ids", "<u8", (EVENT_IDS,)),
        ("recent_item", "<u8", (RECENT,)),  # rings; their head is `events`
        ("recent_category", "<u8", (RECENT,)),
        ("recent_time", "<i8", (RECENT,)),
        ("ring_time", "<i8", (RING // MARK,)),
        ("ring", OBSERVATION, (RING,)),
        ("own", "<u2", (OWN_SETS, OWN_WAYS)),  # a hash of 10 bits and a count of 6
        ("slots", SLOT, (SLOTS,)),
        ("spare", "u1", (7,)),  # to a multiple of 8, see `packing`
    ]
)

TOP = 10
"""Interests of a profile."""

_HEAVIEST = np.dtype([("category", "<u8"), ("share", "<f8")])
SNAPSHOT = np.dtype(
    [
        ("event", "<i8"),  # which event of the batch it was taken after
        ("position", "<i8"),  # as in the state; and so on
        ("time", "<i8"),
        ("events", "<i8"),
        ("short", _HEAVIEST, (TOP,)),  # the heaviest categories first; a share of 0: none
        ("long", _HEAVIEST, (TOP,)),
        ("recent_item", "<u8", (RECENT,)),  # newest first
    ]
)
"""What of a state a profile tells, see `kernel.snapshot`."""

States = NDArray[np.void]
"""Records of dtype `STATE`, shape (n,)."""


class StateError(ValueError):
    """Bytes that should hold an interest state do not."""


def new_state() -> np.void:
    """Return the state of a user who was never seen."""
    state = np.zeros(1, STATE)
    state["layout"] = LAYOUT_VERSION
    state["position"] = -1
    record: np.void = state[0]
    return record


def recent(state: np.void, most: int = RECENT) -> NDArray[np.intp]:
    """Return where in the `recent_*` rings the newest events stand, newest first."""
    events = int(state["events"])
    return np.arange(events - 1, events - 1 - min(events, most, RECENT), -1) % RECENT


def snapshots_of(taken: Sequence[tuple[str, np.void]]) -> NDArray[np.void]:
    """Return n users' records of `SNAPSHOT` as one array, (n,)."""
    # numpy.array would find out the common layout of the records one by one.
    return np.frombuffer(b"".join([record.tobytes() for _, record in taken]), SNAPSHOT)


def profiles(taken: Sequence[tuple[str, np.void]], names: Names) -> list[InterestProfile]:
    """Put n users' records of `SNAPSHOT` into words."""
    snapshots = snapshots_of(taken)
    return [
        InterestProfile(
            user_id=user,
            time=time,
            events=events,
            short_term=short_term,
            long_term=long_term,
            recent_items=[names[number] for number in newest[:events]],
        )
        for (user, _), time, events, short_term, long_term, newest in zip(
            taken,
            snapshots["time"].tolist(),
            snapshots["events"].tolist(),
            _interests(snapshots["short"], names),
            _interests(snapshots["long"], names),
            snapshots["recent_item"].tolist(),
            strict=True,
        )
    ]


def _interests(heaviest: NDArray[np.void], names: Names) -> Iterator[list[Interest]]:
    share = heaviest["share"]
    rows = heaviest["category"].tolist(), share.round(4).tolist(), (share > 0).sum(1).tolist()
    for categories, shares, count in zip(*rows, strict=True):
        yield [Interest(names[categories[n]], shares[n]) for n in range(count)]
