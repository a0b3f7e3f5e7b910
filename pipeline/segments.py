"""Users grouped by the interest that sets them apart, and how they move between groups.

A segment is the first level of a category's path. A user's is the one with the largest term in
Pearson's divergence of the user's interests from the average user's, the square of the user's share
over the average one: what this user wants much of, and more than others do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.symbols import prefix

LOYALTY = 0.8
"""A user stays while the segment's term is this share of the largest one."""
SILENCE = 4
"""Windows without an event after which a user is dormant."""
NOBODY, DORMANT = -1, -2
"""In place of a segment: not seen yet, and not seen for long."""

GROWN = 2.0
GAINED = 0.05
"""Interest has moved into categories when their share has grown so many times and by so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interests:
    """Short-term interests of users over time, n rows in order of time.

    Row i says that at `time[i]` the user `users[user[i]]` had in category `categories[c]` the share
    w, for each (c, w) of `category[i]` and `share[i]`; a share of 0 fills up.
    """

    users: list[str]
    categories: list[str]
    user: NDArray[np.int32]  # (n,)
    time: NDArray[np.int64]  # (n,) milliseconds
    category: NDArray[np.int32]  # (n, TOP)
    share: NDArray[np.float64]  # (n, TOP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flows:
    """What the users did from the window before to the one that starts at `start`.

    `users[a, b]` is how many went from a to b, those that stayed included; a and b are segments by
    their places, `NOBODY` or `DORMANT`.
    """

    start: int
    users: Counter[tuple[int, int]]


@dataclass(slots=True, kw_only=True)
class Memberships:
    """Where each of n users is, since when (ms), and where the user was before that; each (n,)."""

    segment: NDArray[np.int32]
    since: NDArray[np.int64]
    former: NDArray[np.int32]
    seen: NDArray[np.int64]  # the newest window with an event, counted from the first
    known: NDArray[np.int32]  # the newest segment, kept while dormant


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A user whose interest moved into categories: since when, and from which share to which."""

    user: str
    since: int
    before: float
    after: float
    category: str


def segments(interests: Interests, size: int) -> tuple[list[str], Memberships, list[Flows]]:
    """Put users into segments, window after window of `size` milliseconds; return their names."""
    firsts = [prefix(category, 1) for category in interests.categories]
    names = sorted(set(firsts))
    place = {name: at for at, name in enumerate(names)}
    segment = np.array([place[first] for first in firsts], np.int32)[interests.category]
    n = len(interests.users)
    members = Memberships(
        segment=np.full(n, NOBODY, np.int32),
        since=np.zeros(n, np.int64),
        former=np.full(n, NOBODY, np.int32),
        seen=np.full(n, -1, np.int64),
        known=np.full(n, NOBODY, np.int32),
    )
    return names, members, list(_windows(interests, segment, size, members))


def moved_into(
    interests: Interests, text: str, within: int, at: int
) -> tuple[list[str], list[Moved]]:
    """Find users whose interest moved into categories within a span before a moment.

    A user counts with an event in the span and one before it, when the share of the categories is
    `GROWN` times and `GAINED` above what it was at the start of the span.

    Args:
        interests: Of all users.
        text: What the categories' names contain, in any case.
        within: The span in milliseconds.
        at: Its end, in milliseconds; what comes later is not looked at.

    Returns:
        The categories meant, and the users, the largest gain first.
    """
    meant = np.array([text.lower() in name.lower() for name in interests.categories], np.bool_)
    wanted = meant[interests.category] if meant.any() else np.zeros(interests.category.shape, bool)
    weights = np.where(wanted, interests.share, 0.0)
    share = weights.sum(1)
    start = at - within
    before = np.full(len(interests.users), np.nan)
    old = interests.time <= start
    before[interests.user[old]] = share[old]  # rows are in order of time: the newest stays
    recent = np.flatnonzero(~old & (interests.time <= at))
    was = before[interests.user[recent]]
    passed = recent[(share[recent] >= GROWN * was) & (share[recent] >= was + GAINED)]
    newest = {int(interests.user[row]): int(row) for row in recent}
    first: dict[int, int] = {}
    for row in passed.tolist():
        first.setdefault(int(interests.user[row]), row)
    still = set(passed.tolist())
    found = [
        Moved(
            user=interests.users[user],
            since=int(interests.time[row]),
            before=round(float(before[user]), 4),
            after=round(float(share[newest[user]]), 4),
            category=interests.categories[
                interests.category[newest[user], int(np.argmax(weights[newest[user]]))]
            ],
        )
        for user, row in first.items()
        if newest[user] in still
    ]
    found.sort(key=lambda moved: (moved.before - moved.after, moved.user))
    return [name for name, is_meant in zip(interests.categories, meant, strict=True) if is_meant], (
        found
    )


def _windows(
    interests: Interests, segment: NDArray[np.int32], size: int, members: Memberships
) -> Iterator[Flows]:
    if not len(interests.time):
        return
    window = interests.time // size
    first = int(window[0])
    edges = np.searchsorted(window, np.arange(first, int(window[-1]) + 2))
    came = np.diff(edges) > 0
    may_sleep = np.zeros_like(came)  # so many windows after they came, and never later
    may_sleep[SILENCE:] = came[:-SILENCE]
    stayed: Counter[tuple[int, int]] | None = None
    for number, (low, high) in enumerate(pairwise(edges.tolist())):
        start = (first + number) * size
        if not (came[number] or may_sleep[number]):
            stayed = stayed or _count(members.segment, members.segment)
            yield Flows(start=start, users=stayed)
            continue
        stayed = None
        before = members.segment.copy()
        rows = _newest(interests.user[low:high]) + low
        _assign(interests, segment, rows, members)
        members.seen[interests.user[rows]] = number
        asleep = (members.segment >= 0) & (members.seen <= number - SILENCE)
        members.segment[asleep] = DORMANT
        yield Flows(start=start, users=_count(before, members.segment))


def _newest(user: NDArray[np.int32]) -> NDArray[np.intp]:
    """Return the last row of each user, by user."""
    _, last = np.unique(user[::-1], return_index=True)
    return len(user) - 1 - last


def _assign(
    interests: Interests,
    segment: NDArray[np.int32],
    rows: NDArray[np.intp],
    members: Memberships,
) -> None:
    """Give the users of some rows, one each, the segment that their interests put them in."""
    if not len(rows):
        return
    user, place, share = interests.user[rows], segment[rows], interests.share[rows]
    average = np.bincount(place.ravel(), share.ravel()) / len(rows)
    same = place[:, :, None] == place[:, None, :]
    whole = (same * share[:, None, :]).sum(2)  # of a segment, wherever its categories stand
    term = np.where(share > 0, whole**2 / np.where(share > 0, average[place], 1.0), -np.inf)
    best = np.argmax(term, 1)
    each = np.arange(len(rows))
    known = members.known[user]
    own = np.where(place == known[:, None], term, -np.inf).max(1)
    stays = (known >= 0) & (own >= LOYALTY * term[each, best])
    chosen = np.where(stays, known, place[each, best]).astype(np.int32)
    moved = chosen != known
    members.former[user[moved]] = known[moved]
    members.since[user[moved]] = interests.time[rows[moved]]
    members.known[user] = chosen
    members.segment[user] = chosen


def _count(before: NDArray[np.int32], after: NDArray[np.int32]) -> Counter[tuple[int, int]]:
    there = after != NOBODY
    pairs = (before[there].astype(np.int64) - DORMANT << 32) + (after[there] - DORMANT)
    found, users = np.unique(pairs, return_counts=True)  # ten times as fast as of rows
    froms, tos = (found >> 32) + DORMANT, (found & 0xFFFFFFFF) + DORMANT
    return Counter(
        dict(zip(zip(froms.tolist(), tos.tolist(), strict=True), users.tolist(), strict=True))
    )
