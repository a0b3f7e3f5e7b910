"""How forecasts stood up to what came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np

from pipeline.events import CategoryForecast
from pipeline.rollups import Rollup
from pipeline.volume import WEEK, YEAR


class Hindsight(msgspec.Struct, frozen=True, kw_only=True):
    """The forecasts so many windows ahead, all categories together.

    `coverage` is the share of the intervals that held what came, `width` their mean width over what
    was expected. `to_naive` is the sum of errors over that of a forecast which repeats the newest
    window, `to_seasonal_naive` over that of one which repeats the window a season ago: a week for
    windows shorter than that, else 52 weeks; None where there is none.
    """

    ahead: int
    intervals: int
    coverage: float
    width: float
    to_naive: float | None
    to_seasonal_naive: float | None


def hindsight(forecasts: Iterable[CategoryForecast], rollups: Sequence[Rollup]) -> list[Hindsight]:
    """Hold forecasts against the windows that came.

    The first and the last window are left out: the log begins and ends somewhere within them.
    """
    actual = {rollup.start: rollup.counts for rollup in rollups[1:-1]}
    rows = np.array(list(_rows(forecasts, actual)), np.float64).reshape(-1, 7)
    return [_of(int(ahead), rows[rows[:, 0] == ahead, 1:]) for ahead in np.unique(rows[:, 0])]


def _rows(
    forecasts: Iterable[CategoryForecast], actual: dict[int, dict[str, int]]
) -> Iterator[tuple[float, ...]]:
    """Yield horizon, what came, was expected, low, high, and the two naive forecasts."""
    for forecast in forecasts:
        name = forecast.category
        for ahead, window in enumerate(forecast.windows, start=1):
            size = window.end - window.start
            newest = forecast.made - size
            season = window.start - (WEEK if size < WEEK else YEAR)
            if window.start in actual:
                yield (
                    ahead,
                    actual[window.start].get(name, 0),
                    window.expected,
                    window.low,
                    window.high,
                    actual[newest].get(name, 0) if newest in actual else np.nan,
                    actual[season].get(name, 0) if season in actual else np.nan,
                )


def _of(ahead: int, rows: np.ndarray) -> Hindsight:
    came, expected, low, high, newest, season = rows.T
    return Hindsight(
        ahead=ahead,
        intervals=len(rows),
        coverage=round(float(((low <= came) & (came <= high)).mean()), 4),
        width=round(float(((high - low) / np.maximum(expected, 1)).mean()), 3),
        to_naive=_ratio(came, expected, newest),
        to_seasonal_naive=_ratio(came, expected, season),
    )


def _ratio(came: np.ndarray, expected: np.ndarray, naive: np.ndarray) -> float | None:
    known = ~np.isnan(naive)
    error = float(np.abs(came - naive)[known].sum())
    return round(float(np.abs(came - expected)[known].sum()) / error, 3) if error else None
