"""Weeks of clicks with a planted pattern: every item has one that mostly follows it."""

from __future__ import annotations

import numpy as np
from clicks import clicks

from pipeline.settings import Learning, Model, Settings
from pipeline.windows import Window

WEEK = 7 * 86_400_000
HOUR = 3_600_000


def week(number, *, pattern=0, users=40, items=60, events=12, noise=0.1, first=0, shuffled=False):
    """Return one week; patterns of different number have nothing in common.

    Its items are named from i<first> on.
    """
    random = np.random.default_rng((11, number))
    follower = np.random.default_rng((5, pattern)).permutation(items)
    rows = []
    for user in range(users):
        item = int(random.integers(items))
        for nth in range(events):
            time = number * WEEK + nth * 12 * HOUR + user * 60_000
            rows.append({"user": f"u{user}", "item": item, "time": time})
            item = int(random.integers(items) if random.random() < noise else follower[item])
    rows.sort(key=lambda row: row["time"])
    if shuffled:
        for row, item in zip(
            rows, random.permutation([row["item"] for row in rows]).tolist(), strict=True
        ):
            row["item"] = item
    for row in rows:
        row |= {"item": f"i{first + row['item']}", "category": f"c{(first + row['item']) % 4}"}
    return Window(
        start=number * WEEK,
        end=(number + 1) * WEEK,
        clicks=clicks(rows, first=number * users * events),
        sources={"test": (number + 1) * users * events - 1},
    )


def quick(**changes):
    """Return settings under which a week is learnt in about a second."""
    learning = {
        "model": Model(dim=16, blocks=1, heads=2, max_length=12, dropout=0.1, output="sum"),
        "batch": 16,
        "learning_rate": 1e-2,
        "first_epochs": 15,
        "epochs": 5,
        "replay_capacity": 60,
    }
    return Settings(learning=Learning(**(learning | changes)))
