"""What a window held, counted by source in a form that adds up over sources.

`Rollups` counts the events of one source; `merged` puts the rollups of a window together. Users and
items are sampled by their symbols, the smallest ones of each window: whichever source a user's
events are in, the same users are in the sample, so that the merged sample is the one that a single
source would have drawn (bottom-k sampling: Cohen & Kaplan 2007, "Summarizing data using bottom-k
sketches"), and its size estimates how many there are (Beyer et al. 2007).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.events import NO_CODE, Clicks
from pipeline.settings import Settings
from pipeline.symbols import Names, symbol

SAMPLED_USERS = 512
"""Users of a window in its sample: a third of the users is known to 2 % of them."""
SAMPLED_ITEMS = 1024
"""Items of a window in its sample."""
SAMPLED_CATEGORIES = 64
"""Categories of a sampled user that are kept."""

COUNTED_CATEGORIES = 100_000
"""Categories of a window that are counted each."""
COUNTED_TYPES = 1000
"""Types of events of a window that are: a producer may make one of every event."""
NAMES_BYTES = 12 << 20
"""JSON of the names of categories that are counted each: a rollup has to fit into a message."""
FURTHER = "\0further"
"""What all others are counted as; no event's category or type has a NUL."""

_FURTHER = 2**64 - 1
"""Its symbol: the largest, and so none of the smallest."""

Symbols = NDArray[np.uint64]
_Sampled = TypeVar("_Sampled")


class Rollup(msgspec.Struct, frozen=True, kw_only=True):
    """What the window start <= time < end of one source held.

    `counts` has the events that count by category, `types` all events by type, `uncategorised`
    those that bear no category. Of more of them than can be counted each, those with the smallest
    symbols are, and all others as `FURTHER`. `users` has sampled users by their symbol, each with
    the categories met, as places in `counts`; `items` the sampled items by symbol, with their
    events. `position` is the place in the source of the event that closed the window; `cut` tells
    that none did: the source ended within it.
    """

    start: int
    end: int
    counts: dict[str, int]
    types: dict[str, int] = {}
    uncategorised: int = 0
    users: dict[int, list[int]] = {}
    items: dict[int, int] = {}
    source: str
    position: int
    cut: bool = False

    @property
    def total(self) -> int:
        """The events that count."""
        return sum(self.counts.values())

    @property
    def active(self) -> int:
        """About how many users the window had; exactly, where the sample holds them all."""
        if len(self.users) < SAMPLED_USERS:
            return len(self.users)
        return round((len(self.users) - 1) / (max(self.users) / 2**64))

    def unknown(self, categories: Iterable[str]) -> set[str]:
        """Return those of some categories that may be among the `FURTHER`, and are not counted."""
        return set(categories) - self.counts.keys() if FURTHER in self.counts else set()


class Open(msgspec.Struct, kw_only=True):
    """A window still open: as in `Rollup`, categories by symbol."""

    counts: dict[int, int] = {}
    types: dict[str, int] = {}
    uncategorised: int = 0
    users: dict[int, set[int]] = {}
    items: dict[int, int] = {}


class RollupsState(msgspec.Struct, kw_only=True):
    """The windows still open by their start, and how far event time has come.

    `size` is their length in milliseconds; 0 in a state of before it was kept.
    """

    source: str = ""
    newest: int = -(2**62)
    open: dict[int, Open] = {}
    late: int = 0
    size: int = 0


class Rollups:
    """Counts events by window, and hands over the windows that have closed.

    A window is closed by the first event that is `lateness` past its end. What comes for it after
    that is counted in `state.late`. Windows open under another length are dropped.
    """

    def __init__(self, settings: Settings, state: RollupsState, names: Names) -> None:
        self._size = int(settings.trends.window)
        self._lateness = int(settings.interests.lateness)
        self._names = names
        self.state = state
        if state.size not in {0, self._size}:
            state.open.clear()
        state.size = self._size

    def add(
        self,
        clicks: Clicks,
        *,
        user: Symbols,
        item: Symbols,
        category: Symbols,
        counted: NDArray[np.bool_],
    ) -> list[Rollup]:
        """Count a batch.

        Args:
            clicks: n events in log order.
            user: The symbols of their users, shape (n,).
            item: Of their items, shape (n,).
            category: Of their categories, shape (n,).
            counted: Whether an event counts beyond its type, shape (n,).
        """
        newest = np.maximum(np.maximum.accumulate(clicks.time), self.state.newest)
        closes = (clicks.time // self._size + 1) * self._size + self._lateness
        open_ = closes > newest
        self.state.late += int((~open_ & counted).sum())
        starts = clicks.time // self._size * self._size
        for start in np.unique(starts[open_]).tolist():
            window = self.state.open.setdefault(start, Open())
            rows = np.flatnonzero(open_ & (starts == start))
            _add_types(window, clicks, rows)
            rows = rows[counted[rows]]
            _tally(window.counts, category[rows])
            if len(window.counts) > 2 * COUNTED_CATEGORIES:
                _fold(window.counts, COUNTED_CATEGORIES)
            window.uncategorised += int((clicks.category.codes[rows] == NO_CODE).sum())
            _sample_users(window.users, user[rows], category[rows])
            _sample_items(window, item[rows])
        self.state.source = clicks.source
        self.state.newest = int(newest[-1])
        return self._close_until(clicks, newest)

    def drain(self, position: int) -> list[Rollup]:
        """Close every window: the source is bounded and has ended."""
        return [self._close(start, position) for start in sorted(self.state.open)]

    def _close_until(self, clicks: Clicks, newest: NDArray[np.int64]) -> list[Rollup]:
        rollups = []
        for start in sorted(self.state.open):
            closes = start + self._size + self._lateness
            if closes > self.state.newest:
                break
            position = int(clicks.position[np.searchsorted(newest, closes)])
            rollups.append(self._close(start, position))
        return rollups

    def _close(self, start: int, position: int) -> Rollup:
        window = self.state.open.pop(start)
        _fold(window.counts, COUNTED_CATEGORIES)
        _fit(window.counts, self._name)
        place = {number: place for place, number in enumerate(sorted(window.counts))}
        return Rollup(
            start=start,
            end=start + self._size,
            counts={self._name(number): window.counts[number] for number in place},
            types=dict(sorted(_folded(window.types, COUNTED_TYPES).items())),
            uncategorised=window.uncategorised,
            users={
                user: sorted(place[category] for category in met if category in place)
                for user, met in sorted(window.users.items())
            },
            items=dict(sorted(window.items.items())),
            source=self.state.source,
            position=position,
            cut=start + self._size > self.state.newest,
        )

    def _name(self, number: int) -> str:
        return FURTHER if number == _FURTHER else self._names[number]


def merged(rollups: Sequence[Rollup]) -> Rollup:
    """Put the rollups of one window together; the position is that of the first source by name."""
    first = min(rollups, key=lambda rollup: rollup.source)
    counts: Counter[str] = Counter()
    types: Counter[str] = Counter()
    items: Counter[int] = Counter()
    for rollup in rollups:
        counts.update(rollup.counts)
        types.update(rollup.types)
        items.update(rollup.items)
    kept = _folded(counts, COUNTED_CATEGORIES, min(map(_limit, rollups)))
    place = {name: place for place, name in enumerate(sorted(kept))}
    users: dict[int, set[int]] = {}
    for rollup in rollups:
        names = list(rollup.counts)
        for user, met in rollup.users.items():
            told = (names[category] for category in met)
            users.setdefault(user, set()).update(place[name] for name in told if name in place)
    return Rollup(
        start=first.start,
        end=first.end,
        counts={name: kept[name] for name in place},
        types=dict(sorted(_folded(types, COUNTED_TYPES).items())),
        uncategorised=sum(rollup.uncategorised for rollup in rollups),
        users={user: sorted(met) for user, met in _smallest(users, SAMPLED_USERS).items()},
        items=_smallest(items, SAMPLED_ITEMS),
        source=first.source,
        position=first.position,
        cut=any(rollup.cut for rollup in rollups),
    )


def _add_types(window: Open, clicks: Clicks, rows: NDArray[np.intp]) -> None:
    codes, times = np.unique(clicks.event_type.codes[rows], return_counts=True)
    for code, n in zip(codes.tolist(), times.tolist(), strict=True):
        name = clicks.event_type.values[code] if code != NO_CODE else ""
        window.types[name] = window.types.get(name, 0) + n
    if len(window.types) > 2 * COUNTED_TYPES:
        window.types = _folded(window.types, COUNTED_TYPES)


def _tally(counts: dict[int, int], symbols: Symbols) -> None:
    found, times = np.unique(symbols, return_counts=True)
    for number, n in zip(found.tolist(), times.tolist(), strict=True):
        counts[number] = counts.get(number, 0) + n


def _fold(counts: dict[int, int], most: int) -> None:
    """Count all but the smallest symbols as one."""
    total = sum(counts.values())
    counts.pop(_FURTHER, None)
    _cut(counts, most)
    if further := total - sum(counts.values()):
        counts[_FURTHER] = further


def _fit(counts: dict[int, int], name: Callable[[int], str]) -> None:
    """Fold counts until the names fit into a message."""
    numbers = sorted(counts)
    sizes = [len(msgspec.json.encode(name(number))) for number in numbers]
    fitting = bisect_right(list(accumulate(sizes)), NAMES_BYTES)
    if fitting < len(numbers):
        _fold(counts, fitting)


def _folded(counts: dict[str, int], most: int, limit: int = _FURTHER) -> dict[str, int]:
    """Fold counts by name: all but so many, all with symbols above a limit, what does not fit."""
    whole = limit == _FURTHER and len(counts) <= most
    if whole and len(msgspec.json.encode(list(counts))) <= NAMES_BYTES:
        return counts
    numbers = {_FURTHER if name == FURTHER else symbol(name): name for name in counts}
    folded = {number: counts[name] for number, name in numbers.items()}
    _fold(folded, min(most, bisect_right(sorted(folded), limit)))
    _fit(folded, lambda number: numbers.get(number, FURTHER))
    return {numbers.get(number, FURTHER): n for number, n in folded.items()}


def _limit(rollup: Rollup) -> int:
    """Return the symbol up to which every category that a source met is counted."""
    if FURTHER not in rollup.counts:
        return _FURTHER
    return max((symbol(name) for name in rollup.counts if name != FURTHER), default=0)


def _sample_users(users: dict[int, set[int]], user: Symbols, category: Symbols) -> None:
    rows = _within(users, user, SAMPLED_USERS)
    order = np.lexsort((category[rows], user[rows]))
    found, met = user[rows][order], category[rows][order]
    firsts = np.flatnonzero(np.diff(found, prepend=~found[:1])).tolist()
    numbers, categories = found.tolist(), met.tolist()
    for first, end in pairwise([*firsts, len(categories)]):
        number = numbers[first]
        known = users.setdefault(number, set())
        fresh = categories[first:end]
        if len(known) == SAMPLED_CATEGORIES:
            fresh = fresh[: bisect_left(fresh, max(known))]
        known.update(fresh)
        if len(known) > SAMPLED_CATEGORIES:
            users[number] = set(sorted(known)[:SAMPLED_CATEGORIES])
    _cut(users, SAMPLED_USERS)


def _sample_items(window: Open, item: Symbols) -> None:
    _tally(window.items, item[_within(window.items, item, SAMPLED_ITEMS)])
    _cut(window.items, SAMPLED_ITEMS)


def _within(sample: dict[int, _Sampled], symbols: Symbols, most: int) -> NDArray[np.intp] | slice:
    """Return the rows that can still come into a sample; a full one only takes smaller symbols."""
    if len(sample) < most:
        return slice(None)
    return np.flatnonzero(symbols <= np.uint64(max(sample)))


def _cut(sample: dict[int, _Sampled], most: int) -> None:
    if len(sample) > most:
        for number in sorted(sample)[most:]:
            del sample[number]


def _smallest(sample: dict[int, _Sampled], most: int) -> dict[int, _Sampled]:
    return {number: sample[number] for number in sorted(sample)[:most]}
