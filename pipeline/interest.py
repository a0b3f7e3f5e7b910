"""A user's interest state: its layout, and how it is read.

The state is one fixed record. How an event changes it stands in `pipeline.kernel`, the bytes in
which it is stored and sent in `pipeline.packing`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
