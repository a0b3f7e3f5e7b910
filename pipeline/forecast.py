"""Forecasts of each category's next windows, with intervals that cover as often as they promise.

A category is expected at its share of the volume expected. The interval comes from how far off the
forecasts of all categories were before, in units of their own spread, whatever the distribution: a
conformal interval. How much of it is cut off at either side follows the misses seen (Gibbs & Candès
2021, "Adaptive conformal inference under distribution shift").
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from pipeline.events import CategoryForecast, ForecastWindow
from pipeline.rollups import Rollup
from pipeline.settings import Settings
from pipeline.volume import LEARNING, Volume, VolumeState

EDGES = np.round(np.arange(-120, 121) / 10, 1)
"""Bounds of the bins that misses are counted in, in spreads; beyond them are two more bins."""
DECAY = 0.95
"""What a window's misses weigh when the next one's have come."""
STEP = 0.05
"""How fast the share cut off follows the misses."""
POOL = 10
"""So many categories in a window weigh half of what any number does."""


class Horizon(msgspec.Struct, kw_only=True):
    """What is known of the forecasts so many windows ahead.

    `misses` counts (actual - expected) / spread by `EDGES`; `below` and `above` are the shares cut
    off; `spread` is the relative error of the volume forecast.
    """

    misses: list[float]
    below: float
    above: float
    spread: float = 0.1
    judged: int = 0
    covered: int = 0


class Made(msgspec.Struct, kw_only=True):
    """What was forecast behind a window, to be held against what came."""

    number: int
    shares: dict[str, tuple[float, float]]
    """Of each category the share expected, and its dispersion."""
    volumes: list[float]
    """By horizon, the events expected over all categories."""
    spreads: list[float]
    """By horizon, the relative error of that."""
    bounds: list[tuple[float, float]]
    """By horizon, how many spreads the interval reaches down and up."""


class ForecastState(msgspec.Struct, kw_only=True):
    """Volume, the horizons, and the forecasts whose windows have not all come."""

    volume: VolumeState = msgspec.field(default_factory=VolumeState)
    horizons: list[Horizon] = []
    made: list[Made] = []


class Forecaster:
    """Forecasts categories from their shares, window after window."""

    def __init__(self, settings: Settings, state: ForecastState) -> None:
        self.state = state
        self._trends = settings.trends
        self._version = settings.version
        self._size = int(settings.trends.window)
        self.volume = Volume(self._size, state.volume)
        if not state.horizons:
            normal = np.diff(ndtr(EDGES), prepend=0.0, append=1.0).tolist()
            tail = (1 - self._trends.coverage) / 2
            state.horizons = [
                Horizon(misses=list(normal), below=tail, above=tail)
                for _ in range(self._trends.horizons)
            ]

    def score(self, rollup: Rollup) -> None:
        """Hold former forecasts against a window, and learn from it how wrong they are."""
        number = rollup.start // self._size
        for made in self.state.made:
            ahead = number - made.number
            if 1 <= ahead <= len(self.state.horizons) and made.shares:
                self._score(self.state.horizons[ahead - 1], made, ahead, rollup)
        self.pass_over(rollup)

    def pass_over(self, rollup: Rollup) -> None:
        """Take a window's volume, and do not hold forecasts against its counts."""
        self.volume.add(rollup.start // self._size, rollup.total)

    def forecast(
        self, rollup: Rollup, levels: Mapping[str, tuple[float, float]]
    ) -> list[CategoryForecast]:
        """Forecast the windows after a window that was scored.

        Args:
            rollup: The window.
            levels: Of each category the share expected from now on, and its dispersion.

        Returns:
            A forecast for each category of which `trends.minimum_events` are expected; none until
            `trends.warm_up` windows have been seen.
        """
        state, ahead = self.state, range(1, len(self.state.horizons) + 1)
        volumes = [math.exp(self.volume.forecast(step)) for step in ahead]
        if not volumes:
            return []
        shares = {
            name: level
            for name, level in sorted(levels.items())
            if level[0] * volumes[0] >= self._trends.minimum_events
        }
        made = Made(
            number=rollup.start // self._size,
            shares=shares,
            volumes=volumes,
            spreads=[horizon.spread for horizon in state.horizons],
            bounds=[_bounds(horizon) for horizon in state.horizons],
        )
        state.made = [*state.made, made][-len(volumes) :]
        if state.volume.windows < self._trends.warm_up:
            return []
        expected, low, high = zip(*(self._intervals(made, step) for step in ahead), strict=True)
        return [
            CategoryForecast(
                category=name,
                made=rollup.end,
                coverage=self._trends.coverage,
                windows=[
                    ForecastWindow(
                        start=rollup.end + step * self._size,
                        end=rollup.end + (step + 1) * self._size,
                        expected=round(float(expected[step][place]), 2),
                        low=int(low[step][place]),
                        high=int(high[step][place]),
                        volume=round(volumes[step], 2),
                    )
                    for step in range(len(volumes))
                ],
                settings=self._version,
            )
            for place, name in enumerate(shares)
        ]

    def _score(self, horizon: Horizon, made: Made, ahead: int, rollup: Rollup) -> None:
        unknown = rollup.unknown(made.shares)
        known = np.array([name not in unknown for name in made.shares])
        if not known.any():
            return
        counts = [rollup.counts.get(name, 0) for name in made.shares]
        actual = np.array(counts, np.float64)[known]
        expected, low, high = (bound[known] for bound in self._intervals(made, ahead))
        below, above = actual < low, actual > high
        horizon.judged += len(actual)
        horizon.covered += int((~below & ~above).sum())
        tail = (1 - self._trends.coverage) / 2
        horizon.below = _step(horizon.below, tail, float(below.mean()))
        horizon.above = _step(horizon.above, tail, float(above.mean()))
        misses = (actual - expected) / self._spreads(made, ahead)[known]
        bins = np.bincount(np.searchsorted(EDGES, misses), minlength=len(EDGES) + 1)
        weight = 1 / (len(actual) + POOL)
        horizon.misses = (DECAY * np.array(horizon.misses) + weight * bins).tolist()
        off = abs(math.log(max(rollup.total, 1) / made.volumes[ahead - 1]))
        off = min(off, 4 * horizon.spread)  # one outlier is not the rule
        horizon.spread = math.sqrt(horizon.spread**2 + LEARNING * (off**2 - horizon.spread**2))

    def _intervals(
        self, made: Made, ahead: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return for each category what is expected, and the least and most events covered."""
        shares = np.array([share for share, _ in made.shares.values()])
        expected, spreads = shares * made.volumes[ahead - 1], self._spreads(made, ahead)
        down, up = made.bounds[ahead - 1]
        low = np.floor(np.maximum(expected + down * spreads, 0))
        return expected, low, np.ceil(np.maximum(expected + up * spreads, 0))

    def _spreads(self, made: Made, ahead: int) -> NDArray[np.float64]:
        """Return by how much a count strays: by itself, and with the volume."""
        levels = np.array(list(made.shares.values())).reshape(-1, 2)
        expected = np.maximum(levels[:, 0] * made.volumes[ahead - 1], 0.5)
        spread = made.spreads[ahead - 1]
        return np.sqrt(levels[:, 1] * expected + (spread * expected) ** 2)


def _step(cut: float, promised: float, missed: float) -> float:
    return min(max(cut + STEP * (promised - missed), 0.0), 0.5)


def _bounds(horizon: Horizon) -> tuple[float, float]:
    """Return how many spreads down and up leave out what is to be cut off."""
    mass = np.cumsum(horizon.misses) / sum(horizon.misses)
    low = int(np.searchsorted(mass, horizon.below, side="right")) - 1
    high = int(np.searchsorted(mass, 1 - horizon.above))
    return float(EDGES[max(low, 0)]), float(EDGES[min(high, len(EDGES) - 1)])
