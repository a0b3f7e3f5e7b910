"""A log made larger holds what it held, once a copy."""

from __future__ import annotations

from collections import Counter

import numpy as np

from bench.tiling import span, tiled
from pipeline.events import Clicks, Column, concatenate

DAY = 86_400_000


def log() -> Clicks:
    """Ten weeks of three users, each with an item of its own a day."""
    day = np.repeat(np.arange(70), 3)
    user = np.tile(np.arange(3), 70)
    none = Column([], np.full(210, -1, np.int32))
    return Clicks(
        source="log",
        position=np.arange(210),
        time=1_700_000_000_000 + day * DAY,
        user=Column(["a", "b", "c"], user.astype(np.int32)),
        item=Column([f"i{n}" for n in range(210)], np.arange(210, dtype=np.int32)),
        category=none,
        event_type=none,
        session=none,
        event_id=np.zeros(210, np.uint64),
    )


def texts(column: Column) -> list[str]:
    return [column.values[code] for code in column.codes.tolist()]


def test_each_copy_has_every_event_of_its_user_once() -> None:
    """Four copies of a log hold each of its items four times, once for each copy of its user."""
    clicks = log()
    many = concatenate(list(tiled(clicks, 4)))
    whose = dict(zip(texts(clicks.item), texts(clicks.user), strict=True))
    expected = {(f"{user}-{copy}", item): 1 for item, user in whose.items() for copy in range(4)}
    assert expected == Counter(zip(texts(many.user), texts(many.item), strict=True))


def test_time_goes_on_within_the_span_of_the_log() -> None:
    """Times never go back, and a copy's events keep their hour and their day of the week."""
    clicks = log()
    many = concatenate(list(tiled(clicks, 4)))
    assert (np.diff(many.time) >= 0).all()
    assert many.time[-1] - many.time[0] < span(clicks)
    day = dict(zip(texts(clicks.item), (clicks.time // DAY % 7).tolist(), strict=True))
    assert [day[item] for item in texts(many.item)] == (many.time // DAY % 7).tolist()


def test_copies_do_not_do_the_same_at_one_time() -> None:
    """No item is met twice on one day."""
    many = concatenate(list(tiled(log(), 4)))
    met = Counter(zip((many.time // DAY).tolist(), texts(many.item), strict=True))
    assert set(met.values()) == {1}
