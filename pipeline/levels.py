"""What share of the whole is expected of each of many parts, and which parts have left theirs.

Counts are overdispersed Poisson (McCullagh & Nelder 1989, section 6.2.3) around an exponentially
smoothed share of the whole, so that the volume of a window does not matter; the false discovery
rate over the parts of a window is controlled after Benjamini & Hochberg (1995).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from pipeline.volume import WEEK

SMOOTHING = 0.3
"""Weight of the newest window in a level: exponential smoothing (Brown 1956)."""
PRIOR_WINDOWS = 4.0
"""How many windows' worth the pooled dispersion weighs against a part's own."""
YOUNG = 4
"""Windows for which a part first met after the warm-up is held against nothing."""
WEEKS = 52
"""Weeks of a year whose movements are remembered."""
RETURN = 8
"""Windows within which a part that left its share and comes back to it has not changed anew."""
AT_HOME = 2.0
"""A part is back when its former share is no more than so many residuals off."""
GONE = 1e-3
"""A part of which fewer events than this are expected is forgotten."""


class Level(msgspec.Struct, array_like=True):
    """What is expected of a part."""

    share: float
    dispersion: float
    """How many times the variance exceeds that of independent events."""
    windows: int
    young: int = 0
    """Windows left in which it is expected at nothing."""
    year: dict[int, float] = {}
    """By week of the year, the logarithm of what came over what its level let expect."""
    former: float = 0.0
    """The share that it left last, and in `returning` the windows left to come back to it."""
    returning: int = 0


class LevelsState(msgspec.Struct, kw_only=True):
    """Every part's level, and the windows seen."""

    windows: int = 0
    levels: dict[str, Level] = {}


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a window that left what was expected, with their residuals.

    Those in `returned` only went back to where they had been a few windows ago.
    """

    residuals: dict[str, float]
    threshold: float
    returned: frozenset[str] = frozenset()

    @property
    def changed(self) -> set[str]:
        """All parts that are to be expected at the window's share from now on."""
        return self.residuals.keys() | self.returned


class Levels:
    """Levels of the parts of a whole, judged and learnt window after window."""

    def __init__(self, state: LevelsState, *, size: int, warm_up: int, least: int) -> None:
        """Set how parts are judged.

        Args:
            state: The levels so far.
            size: The length of a window in milliseconds.
            warm_up: Windows seen before anything is found.
            least: A part is judged with so many events seen or expected.
        """
        self.state = state
        self._size = size
        self._warm_up = warm_up
        self._least = least

    def expected(self, name: str, total: int) -> float:
        """Return the share expected of a part; of one never seen, half an event."""
        level = self.state.levels.get(name)
        return level.share if level and not level.young else 0.5 / max(total, 1)

    def is_young(self, name: str) -> bool:
        """Tell whether a part was first met a few windows ago, after the warm-up."""
        level = self.state.levels.get(name)
        return level.young > 0 if level else self.state.windows >= self._warm_up

    def current(self) -> dict[str, tuple[float, float]]:
        """Return by part the smoothed share, and the dispersion with the pooled one weighed in."""
        pooled = self._pooled()
        return {
            name: (level.share, _dispersion(level, pooled))
            for name, level in self.state.levels.items()
        }

    def judge(
        self,
        start: int,
        counts: Mapping[str, int],
        total: int,
        rate: float,
        *,
        unknown: Collection[str] = (),
    ) -> Findings:
        """Find the parts of a window that left their share, at a false discovery rate.

        One that moved as it did in that week of the last year, or less, is not among them; nor is
        one whose count is unknown.
        """
        names = [
            name
            for name in sorted((self.state.levels.keys() | counts.keys()) - set(unknown))
            if max(counts.get(name, 0), self.expected(name, total) * total) >= self._least
        ]
        if not names or self.state.windows < self._warm_up:
            return Findings(residuals={}, threshold=math.inf)
        pooled, week = self._pooled(), start // WEEK % WEEKS
        z = np.array(
            [self._residual(name, counts.get(name, 0), total, pooled, week) for name in names]
        )
        freedom = max(self.state.windows - 1, 1)
        tails = 2 * stdtr(freedom, -np.abs(z))  # Student's: the dispersion is estimated
        kept, limit = benjamini_hochberg(tails, rate)
        found = {names[i]: float(z[i]) for i in np.flatnonzero(kept).tolist()}
        returned = frozenset(
            name for name in found if self._is_back(name, counts.get(name, 0), total, pooled)
        )
        return Findings(
            residuals={name: residual for name, residual in found.items() if name not in returned},
            threshold=-float(stdtrit(freedom, limit / 2)),
            returned=returned,
        )

    def learn(
        self,
        start: int,
        counts: Mapping[str, int],
        total: int,
        *,
        changed: Collection[str] = (),
        frozen: Collection[str] = (),
    ) -> None:
        """Learn from a window.

        The parts in `changed` are expected at its share from then on, those in `frozen` stay as
        they are.
        """
        if not total:
            return
        pooled, week = self._pooled(), start // WEEK % WEEKS
        young = YOUNG if self.state.windows >= self._warm_up else 0
        for name in sorted((self.state.levels.keys() | counts.keys()) - set(frozen)):
            count = counts.get(name, 0)
            level = self.state.levels.get(name)
            if level is None:
                newcomer = Level(count / total, pooled, 1, 0 if name in changed else young)
                self.state.levels[name] = newcomer
            else:
                self._remember(level, week, count, level.share * total)
                _follow(level, count, total, at_once=name in changed)
                if level.share * total < GONE and not level.year:
                    del self.state.levels[name]
        self.state.windows += 1

    def _remember(self, level: Level, week: int, count: int, expected: float) -> None:
        """Keep how a part moved in a week of the year."""
        if max(count, expected) >= self._least:
            moved = math.log((count + 1) / (expected + 1))
            before = level.year.get(week, 0.0)
            level.year[week] = before + min(self._size / WEEK, 1.0) * (moved - before)

    def _is_back(self, name: str, count: int, total: int, pooled: float) -> bool:
        level = self.state.levels.get(name)
        if level is None or not level.returning:
            return False
        residual = _pearson(count, level.former * total, _dispersion(level, pooled))
        return abs(residual) <= AT_HOME

    def _pooled(self) -> float:
        """Return the typical dispersion of the parts."""
        known = [level.dispersion for level in self.state.levels.values() if level.windows > 1]
        return float(np.median(known)) if known else 1.0

    def _residual(self, name: str, count: int, total: int, pooled: float, week: int) -> float:
        """Return the Pearson residual of a count, its dispersion taken into account."""
        level = self.state.levels.get(name)
        dispersion = _dispersion(level, pooled) if level else max(pooled, 1.0)
        expected = self.expected(name, total) * total
        z = _pearson(count, expected, dispersion)
        season = level.year.get(week) if level else None
        if season is None:
            return z
        as_last_year = _pearson(count, expected * math.exp(season), dispersion)
        return 0.0 if z * as_last_year <= 0 else min(z, as_last_year, key=abs)


def benjamini_hochberg(
    p_values: NDArray[np.float64], rate: float
) -> tuple[NDArray[np.bool_], float]:
    """Return which hypotheses are rejected, and the largest p-value that would have been."""
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    limits = rate * np.arange(1, n + 1) / n
    passed = np.flatnonzero(p_values[order] <= limits)
    limit = float(limits[passed[-1]]) if len(passed) else rate / n
    return p_values <= limit if len(passed) else np.zeros(n, np.bool_), limit


def _follow(level: Level, count: int, total: int, *, at_once: bool) -> None:
    level.windows += 1
    level.young = 0 if at_once else max(level.young - 1, 0)
    level.returning = RETURN if at_once else max(level.returning - 1, 0)
    if at_once:
        level.former, level.share = level.share, count / total
        return
    expected = max(level.share * total, 0.5)
    surprise = (count - expected) ** 2 / expected
    level.share += SMOOTHING * (count / total - level.share)
    level.dispersion += SMOOTHING * (surprise - level.dispersion)


def _dispersion(level: Level, pooled: float) -> float:
    weight = level.windows / (level.windows + PRIOR_WINDOWS)
    return max(weight * level.dispersion + (1 - weight) * pooled, 1.0)


def _pearson(count: int, expected: float, dispersion: float) -> float:
    expected = max(expected, 0.5)
    return (count - expected) / math.sqrt(dispersion * expected)
