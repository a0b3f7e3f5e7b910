"""Clicks for tests: readable rows in, batches out."""

from __future__ import annotations

import numpy as np

from pipeline.events import NO_CODE, Clicks, Column
from pipeline.symbols import symbol

DAY = 86_400_000


def column(values):
    known = {}
    codes = [NO_CODE if v is None else known.setdefault(v, len(known)) for v in values]
    return Column(list(known), np.array(codes, np.int32))


def clicks(rows, *, source="test", first=0):
    """Make a batch of dicts with user, item, time (ms) and, if wanted, the other fields."""
    return Clicks(
        source=source,
        position=np.arange(first, first + len(rows)),
        time=np.array([row["time"] for row in rows], np.int64),
        user=column([row["user"] for row in rows]),
        item=column([row["item"] for row in rows]),
        category=column([row.get("category") for row in rows]),
        event_type=column([row.get("type", "click") for row in rows]),
        session=column([row.get("session") for row in rows]),
        event_id=np.array(
            [symbol(row["event_id"]) if row.get("event_id") else 0 for row in rows], np.uint64
        ),
    )


def shopper(user, categories, *, start=0, gap=3_600_000):
    """One event an hour, each in the category given."""
    return [
        {"user": user, "item": f"{c}-{i % 7}", "category": c, "time": start + i * gap}
        for i, c in enumerate(categories)
    ]
