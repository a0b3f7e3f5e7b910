"""A real log made larger: its users many times beside each other, each copy at another season."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bench.machine import inputs
from connectors.files import read
from pipeline.events import Clicks, Column, concatenate
from pipeline.settings import Source

CHUNK = 65_536
_WEEK = 7 * 86_400_000


def tiled(clicks: Clicks, copies: int) -> Iterator[Clicks]:
    """Play a log's users so many times beside each other, in the order of time.

    Each copy is a number of whole weeks ahead of the one before it, and goes round: behind the end
    of the log comes its begin. So at no time do two copies of a user do the same, while the hours
    of the day and the days of the week stay what they are.

    Args:
        clicks: n of them; in order of time or not.
        copies: how many; their users are called "name-0", "name-1" and so on.

    Yields:
        copies * n clicks, batch after batch, from the log's first time on.
    """
    first, weeks = int(clicks.time.min()), span(clicks) // _WEEK
    ahead = np.arange(copies)[:, None] * weeks // copies * _WEEK
    times = (clicks.time - first + ahead) % (weeks * _WEEK)  # (copies, n)
    order = np.argsort(times, axis=None, kind="stable")
    names = [f"{name}-{copy}" for name in clicks.user.values for copy in range(copies)]
    for start in range(0, len(order), CHUNK):
        copy, row = np.divmod(order[start : start + CHUNK], len(clicks))
        user = clicks.user.codes[row] * copies + copy
        yield replace(
            clicks.take(row),
            position=np.arange(start, start + len(row)),
            time=first + times[copy, row],
            user=Column(names, user.astype(np.int32)),
        )


def year() -> Clicks:
    """Read Complete Journey."""
    return concatenate([clicks for clicks, _ in read([inputs()["complete_journey"]], Source())])


def span(clicks: Clicks) -> int:
    """Return the time that a log takes, in milliseconds, rounded up to whole weeks."""
    return (int(np.ptp(clicks.time)) // _WEEK + 1) * _WEEK
