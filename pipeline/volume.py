"""How many events a window will have: a level, the season of the week and that of the year."""

from __future__ import annotations

import math

import msgspec

WEEK = 7 * 86_400_000
YEAR = 52 * WEEK
"""A year of whole weeks, so that a day is compared with its weekday."""

SMOOTHING = {True: 0.1, False: 0.2}
"""Weight of the newest window in the level, with and without a season of the week: exponential
smoothing (Brown 1956)."""
CLIP = 2.0
"""Spreads that a window may move the level by at most, as if it were no further off."""
SHIFT = 3
"""Weeks (or windows, if longer) clipped in a row and to one side that are a new level."""
LEARNING = 0.1
"""Weight of the newest window in the spread, and the least weight in the week's season."""
YEARLY = 0.5
"""How far last year is followed: one year is a sample of one, and gets half the weight."""


class VolumeState(msgspec.Struct, kw_only=True):
    """What is known of the volume; all in natural logarithms of events.

    `past` holds the newest windows, the newest last: what remained of the volume without the week's
    season, and the level then; none where a year is no number of windows.
    """

    windows: int = 0
    newest: int = 0
    """The newest window, counted in windows since 1970."""
    level: float = 0.0
    spread: float = 0.2
    """The mean surprise, as a standard deviation."""
    clipped: int = 0
    """Windows in a row beyond the clip; negative below it."""
    week: list[float] = []
    week_seen: list[int] = []
    past: list[tuple[float, float]] = []


class Volume:
    """Robust exponential smoothing with season, for the logarithm of the events of a window.

    Surprises are clipped before they are learnt (Gelper, Fried & Croux 2010, "Robust forecasting
    with exponential and Holt-Winters smoothing"), so that a closed shop does not pull the level
    down. The week has an index for each of its windows; the year is followed as the change that
    came a year ago, smoothed over three weeks.
    """

    def __init__(self, size: int, state: VolumeState) -> None:
        """Take the size of a window in milliseconds."""
        self.state = state
        self._phases = WEEK // size if WEEK % size == 0 else 1
        self._year = YEAR // size if YEAR % size == 0 else 0
        self._near = max(1, WEEK // size)
        self._longest = max(1, YEAR // size)
        if not state.week:
            state.week = [0.0] * self._phases
            state.week_seen = [0] * self._phases

    def forecast(self, ahead: int) -> float:
        """Return the logarithm of the events expected in the window `ahead` of the newest."""
        number = self.state.newest + ahead
        week = self.state.week[number % self._phases] if self._phases > 1 else 0.0
        return self.state.level + week + self._last_year(ahead)

    def add(self, number: int, events: int) -> None:
        """Take a window; up to a year of those without an event before it are taken as such."""
        state = self.state
        if state.windows:
            for empty in range(max(state.newest + 1, number - self._longest), number):
                self._take(empty, 0)
        self._take(number, events)

    def _take(self, number: int, events: int) -> None:
        state, phase = self.state, number % self._phases
        value = math.log(max(events, 1))
        if not state.windows:
            state.level = value
        rest = value - state.week[phase]
        surprise = rest - state.level
        limit = CLIP * state.spread
        early = state.windows <= 2 * self._phases
        clipped = surprise if early else max(-limit, min(limit, surprise))
        state.clipped = _run(state.clipped, 0.0 if early else surprise, limit)
        smoothing = SMOOTHING[self._phases > 1]
        state.level += max(smoothing, 1 / (state.windows + 1)) * clipped
        if abs(state.clipped) >= SHIFT * self._phases:
            state.level, state.clipped = rest, 0
        state.spread += LEARNING * (1.25 * min(abs(surprise), 4 * state.spread) - state.spread)
        if self._phases > 1:
            state.week_seen[phase] += 1
            weight = max(1 / (state.week_seen[phase] + 1), LEARNING)
            rest = value - state.level - state.week[phase]
            state.week[phase] += weight * (rest if early else max(-limit, min(limit, rest)))
        if self._year:
            near = 3 * state.spread
            kept = max(state.level - near, min(state.level + near, value - state.week[phase]))
            state.past.append((kept, state.level))
            del state.past[: -(self._year + self._near + 1)]
        state.windows += 1
        state.newest = number

    def _last_year(self, ahead: int) -> float:
        """Return by how much the volume moves from now to then, if it goes as a year ago."""
        past, year, near = self.state.past, self._year, self._near
        newest = len(past) - 1
        then = newest + ahead - year
        if not year or newest - year < 0 or not 0 <= then - near <= newest:
            return 0.0
        around = past[then - near : then + near + 1]
        return YEARLY * (sum(rest for rest, _ in around) / len(around) - past[newest - year][1])


def _run(clipped: int, surprise: float, limit: float) -> int:
    if abs(surprise) <= limit:
        return 0
    side = 1 if surprise > 0 else -1
    return clipped + side if clipped * side > 0 else side
