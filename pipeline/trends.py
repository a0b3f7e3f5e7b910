"""Categories rising and falling over all users.

`Rollups` counts one source's events by window and category; rollups of several sources add up.
`Trends` compares each closed window with what the windows before it let expect.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from pipeline.drift import alert_id
from pipeline.events import AlertKind, Clicks, DriftAlert, Guarantee, Interest, SourcePosition
from pipeline.settings import Settings


class Rollup(msgspec.Struct, frozen=True, kw_only=True):
    """Events by category in the window start <= time < end of one source.

    `position` is the place in the source of the event that closed the window.
    """

    start: int
    end: int
    counts: dict[str, int]
    source: str
    position: int


class RollupsState(msgspec.Struct, kw_only=True):
    """Counts by category symbol in the windows still open, and how far event time has come."""

    source: str = ""
    newest: int = -(2**62)
    open: dict[int, dict[int, int]] = {}
    late: int = 0


class Rollups:
    """Counts events by window and category, and hands over the windows that have closed.

    A window is closed by the first event that is `lateness` past its end. What comes for it after
    that is counted in `state.late`.
    """

    def __init__(self, settings: Settings, state: RollupsState, name: Callable[[int], str]) -> None:
        self._size = int(settings.trends.window)
        self._lateness = int(settings.interests.lateness)
        self._name = name
        self.state = state

    def add(
        self, clicks: Clicks, category: NDArray[np.uint64], counted: NDArray[np.bool_]
    ) -> list[Rollup]:
        """Count a batch.

        Args:
            clicks: n events in log order.
            category: Their category symbols, shape (n,).
            counted: Whether an event counts at all, shape (n,).
        """
        newest = np.maximum(np.maximum.accumulate(clicks.time), self.state.newest)
        closes = (clicks.time // self._size + 1) * self._size + self._lateness
        open_ = closes > newest
        self.state.late += int((~open_ & counted).sum())
        rows = open_ & counted
        self._count(clicks.time[rows] // self._size * self._size, category[rows])
        self.state.source = clicks.source
        self.state.newest = int(newest[-1])
        return self._close_until(clicks, newest)

    def _count(self, starts: NDArray[np.int64], category: NDArray[np.uint64]) -> None:
        for start in np.unique(starts).tolist():
            window = self.state.open.setdefault(start, {})
            found, times = np.unique(category[starts == start], return_counts=True)
            for number, n in zip(found.tolist(), times.tolist(), strict=True):
                window[number] = window.get(number, 0) + n

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
        counts = self.state.open.pop(start)
        return Rollup(
            start=start,
            end=start + self._size,
            counts={self._name(number): n for number, n in sorted(counts.items())},
            source=self.state.source,
            position=position,
        )


class Level(msgspec.Struct, array_like=True):
    """What is expected of a category."""

    share: float
    dispersion: float
    """How many times the variance exceeds that of independent events."""
    windows: int


class TrendsState(msgspec.Struct, kw_only=True):
    """Every category's level, and the windows seen."""

    windows: int = 0
    levels: dict[str, Level] = {}


SMOOTHING = 0.3
"""Weight of the newest window in a level: exponential smoothing (Brown 1956)."""
PRIOR_WINDOWS = 4.0
"""How many windows' worth the pooled dispersion weighs against a category's own."""


class Trends:
    """Raises an alert when a category's share leaves what was expected of it.

    Counts are overdispersed Poisson (McCullagh & Nelder 1989, section 6.2.3) around an
    exponentially smoothed share; the false discovery rate over the categories of a window is
    controlled after Benjamini & Hochberg (1995). A category that has raised an alert is expected
    at its new share from then on, so that one change raises one alert.
    """

    def __init__(
        self, settings: Settings, state: TrendsState | None = None, prior: str = ""
    ) -> None:
        self._settings = settings
        self._version = settings.version
        self._prior = prior
        self.state = state or TrendsState()

    def add(self, rollup: Rollup) -> list[DriftAlert]:
        """Judge a closed window, then learn from it. Windows come in order of time."""
        total = sum(rollup.counts.values())
        known = self.state.levels
        judged = [
            name
            for name in sorted(known.keys() | rollup.counts.keys())
            if max(rollup.counts.get(name, 0), self._expected(name, total))
            >= self._settings.trends.minimum_events
        ]
        z = np.array([self._residual(name, rollup.counts.get(name, 0), total) for name in judged])
        raised: list[DriftAlert] = []
        if judged and self.state.windows >= self._settings.trends.warm_up:
            freedom = max(self.state.windows - 1, 1)
            tails = 2 * stdtr(freedom, -np.abs(z))  # Student's: the dispersion is estimated
            kept, limit = _benjamini_hochberg(tails, self._settings.trends.false_discovery_rate)
            threshold = -float(stdtrit(freedom, limit / 2))
            raised = [
                self._alert(judged[i], rollup, total, float(z[i]), threshold)
                for i in np.flatnonzero(kept).tolist()
            ]
        self._learn(rollup, total, {alert.subject for alert in raised})
        return raised

    def _level(self, name: str, total: int) -> Level:
        """Return a category's level; one never seen is expected at half an event."""
        level = self.state.levels.get(name)
        return level or Level(0.5 / max(total, 1), self._pooled(), 0)

    def _expected(self, name: str, total: int) -> float:
        return self._level(name, total).share * total

    def _pooled(self) -> float:
        """Return the typical dispersion of the categories."""
        known = [level.dispersion for level in self.state.levels.values() if level.windows > 1]
        return float(np.median(known)) if known else 1.0

    def _residual(self, name: str, count: int, total: int) -> float:
        """Return the Pearson residual of a count, its dispersion taken into account."""
        level = self._level(name, total)
        expected = max(level.share * total, 0.5)
        pooled = self._pooled()
        weight = level.windows / (level.windows + PRIOR_WINDOWS)
        dispersion = max(weight * level.dispersion + (1 - weight) * pooled, 1.0)
        return float((count - expected) / np.sqrt(dispersion * expected))

    def _learn(self, rollup: Rollup, total: int, changed: set[str]) -> None:
        for name in sorted(self.state.levels.keys() | rollup.counts.keys()):
            count = rollup.counts.get(name, 0)
            share = count / max(total, 1)
            level = self._level(name, total)
            expected = max(level.share * total, 0.5)
            if name in changed or level.windows == 0:
                renewed = Level(share, level.dispersion, level.windows + 1)
            else:
                surprise = (count - expected) ** 2 / expected
                renewed = Level(
                    level.share + SMOOTHING * (share - level.share),
                    level.dispersion + SMOOTHING * (surprise - level.dispersion),
                    level.windows + 1,
                )
            self.state.levels[name] = renewed
        self.state.windows += 1

    def _alert(
        self, name: str, rollup: Rollup, total: int, z: float, threshold: float
    ) -> DriftAlert:
        kind = AlertKind.CATEGORY_RISING if z > 0 else AlertKind.CATEGORY_FALLING
        expected = self._level(name, total).share
        return DriftAlert(
            id=alert_id(kind, name, rollup.start),
            kind=kind,
            subject=name,
            time=rollup.end,
            since=rollup.start,
            before=[Interest(name, round(expected, 6))],
            after=[Interest(name, round(rollup.counts.get(name, 0) / max(total, 1), 6))],
            score=round(z, 4),
            threshold=round(threshold, 4),
            guarantee=Guarantee(
                kind="false_discovery_rate", value=self._settings.trends.false_discovery_rate
            ),
            evidence=[],
            source=SourcePosition(source=rollup.source, position=rollup.position),
            settings=self._version,
            prior=self._prior,
        )


def _benjamini_hochberg(
    p_values: NDArray[np.float64], rate: float
) -> tuple[NDArray[np.bool_], float]:
    """Return which hypotheses are rejected, and the largest p-value that would have been."""
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    limits = rate * np.arange(1, n + 1) / n
    passed = np.flatnonzero(p_values[order] <= limits)
    limit = float(limits[passed[-1]]) if len(passed) else rate / n
    return p_values <= limit if len(passed) else np.zeros(n, np.bool_), limit
