"""One cause over many users at once, such as a sale: told once, with its size.

A category's share of the active users is judged as its share of the events is; users come from the
sample that every rollup carries. All that moves in a window counts as one cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import msgspec

from pipeline.events import USER_KINDS, DriftAlert, Interest
from pipeline.levels import RETURN, Levels, LevelsState
from pipeline.rollups import FURTHER, Rollup

LEADING = 0.5
"""One category at least moves by this part of the least shift: many small causes are not one."""
UNFOLDING = 1
"""Windows after a shift in which what moves belongs to it: it may have begun late in its window."""
MOST_CATEGORIES = 10
"""Categories that an alert names in each direction."""


class PopulationState(msgspec.Struct, kw_only=True):
    """Shares of the active users, what the newest quiet window's users did, and what was told."""

    levels: LevelsState = msgspec.field(default_factory=LevelsState)
    usual: list[list[str]] = []
    told: dict[str, int] = {}
    """Categories of former alerts, with the windows for which their movements are no news."""
    unfolding: int = 0
    """Windows in which whatever moves still belongs to the newest shift."""


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """What moved, as shares of the active users, and about how many of them that took."""

    before: list[Interest]
    after: list[Interest]
    users: int
    active: int
    score: float
    threshold: float


class Population:
    """Judges windows by what share of the active users was in each category."""

    def __init__(
        self, state: PopulationState, *, size: int, warm_up: int, least: int, share: float
    ) -> None:
        """Set what is a shift: `share` of the active users; the others as in `Levels`."""
        self.state = state
        self._levels = Levels(state.levels, size=size, warm_up=warm_up, least=least)
        self._share = share

    def add(self, rollup: Rollup, rate: float) -> Shift | None:
        """Judge a window at a false discovery rate over categories, then learn from it."""
        names = list(rollup.counts)
        users = [[names[place] for place in met] for met in rollup.users.values()]
        if not users:
            return None
        counts = Counter(name for met in users for name in met)
        unknown = rollup.unknown(self._levels.state.levels)
        found = self._levels.judge(rollup.start, counts, len(users), rate, unknown=unknown)
        news = {n: z for n, z in found.residuals.items() if n not in self.state.told}
        unfolding = self.state.unfolding > 0
        shift = None if unfolding else self._shift(rollup, users, counts, news, found.threshold)
        self._levels.learn(rollup.start, counts, len(users), changed=found.changed, frozen=unknown)
        self.state.told = {n: left - 1 for n, left in self.state.told.items() if left > 1}
        if shift or unfolding:
            self.state.told |= dict.fromkeys(found.residuals, RETURN)
        elif FURTHER not in rollup.counts:  # else some of what they met is left out
            self.state.usual = users
        self.state.unfolding = UNFOLDING if shift else max(self.state.unfolding - 1, 0)
        return shift

    @property
    def told(self) -> Collection[str]:
        """The categories whose movement belongs to a shift that was told."""
        return self.state.told.keys()

    def _shift(
        self,
        rollup: Rollup,
        users: Sequence[Sequence[str]],
        counts: Counter[str],
        news: dict[str, float],
        threshold: float,
    ) -> Shift | None:
        n = len(users)
        gained = sorted((name for name in news if news[name] > 0), key=lambda name: -news[name])
        lost = sorted((name for name in news if news[name] < 0), key=lambda name: news[name])
        # Of those who came, some would have come anyway: Abbott's formula (1925) adds them.
        came, usual = _touching(users, gained), _touching(self.state.usual, gained)
        stayed, before = _touching(users, lost), _touching(self.state.usual, lost)
        moved = (came - usual) / max(1 - usual, 0.01)
        if moved < self._share:  # they left, and went to no place in particular
            moved = (before - stayed) / max(before, 0.01)
        expected = {name: self._levels.expected(name, n) for name in news}
        leading = max((abs(counts[name] / n - expected[name]) for name in news), default=0.0)
        if moved < self._share or leading < LEADING * self._share:
            return None
        named = [*gained[:MOST_CATEGORIES], *lost[:MOST_CATEGORIES]]
        return Shift(
            before=[Interest(name, round(expected[name], 4)) for name in named],
            after=[Interest(name, round(counts[name] / n, 4)) for name in named],
            users=round(moved * rollup.active),
            active=rollup.active,
            score=round(max(news.items(), key=_strength)[1], 4),
            threshold=round(threshold, 4),
        )


def belongs(alert: DriftAlert, shift: DriftAlert) -> bool:
    """Tell whether a user's alert has its cause in a population's shift.

    The user's change is dated within a window of the shift, and is towards a category that the
    population turned to, or away from one that it left.
    """
    if alert.kind not in USER_KINDS:
        return False
    window = shift.time - shift.since
    if not shift.since - window <= alert.since <= shift.time + window:
        return False
    before = {interest.category: interest.weight for interest in shift.before}
    gained = {i.category for i in shift.after if i.weight > before.get(i.category, 0.0)}
    lost = before.keys() - gained
    return _any(alert.after, gained) or _any(alert.before, lost)


def _touching(users: Sequence[Sequence[str]], categories: Collection[str]) -> float:
    """Return the share of the users who met any of the categories."""
    wanted = set(categories)
    return sum(not wanted.isdisjoint(met) for met in users) / max(len(users), 1)


def _strength(found: tuple[str, float]) -> float:
    return abs(found[1])


def _any(interests: list[Interest], categories: Collection[str]) -> bool:
    return any(interest.category in categories for interest in interests)
