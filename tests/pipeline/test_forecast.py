"""Forecasts: season, outliers and intervals that hold what they promise."""

import math

import numpy as np
import pytest

from pipeline.events import CategoryForecast, ForecastWindow
from pipeline.hindsight import hindsight
from pipeline.rollups import Rollup
from pipeline.settings import from_toml
from pipeline.trends import Trends
from pipeline.volume import WEEK, Volume, VolumeState

DAY = WEEK // 7
DAILY = from_toml('[trends]\nwindow = "1d"\nminimum_events = 20\n')


def fed(size, volumes):
    volume = Volume(size, VolumeState())
    for number, events in enumerate(volumes):
        volume.add(number, events)
    return volume


def window(number, counts, size=DAY):
    return Rollup(
        start=number * size, end=(number + 1) * size, counts=counts, source="s", position=number
    )


def test_the_week_has_a_season():
    """Six days of a thousand and one of a hundred are expected on their days."""
    week = [1000] * 6 + [100]
    volume = fed(DAY, week * 8)
    expected = [math.exp(volume.forecast(ahead)) for ahead in range(1, 8)]
    assert np.allclose(week[:6], expected[:6], rtol=0.1)
    assert 80 < expected[6] < 160


def test_a_closed_shop_does_not_pull_the_level_down():
    """After one empty window among steady ones the old level is expected."""
    volume = fed(WEEK, [*[1000, 1100] * 10, 0])
    assert 900 < math.exp(volume.forecast(1)) < 1200


def test_windows_without_events_count_as_empty():
    """A gap is the same as windows with nothing in them."""
    with_gap = fed(DAY, [100] * 20)
    with_gap.add(23, 100)
    assert fed(DAY, [*[100] * 20, 0, 0, 0, 100]).state == with_gap.state


def test_a_long_gap_is_a_year_of_empty_windows():
    """So it is where no number of windows makes a year, and then none is kept to compare with."""
    state = fed(5 * DAY, [100, *[0] * 72, 100]).state
    state.newest = 1000
    with_gap = fed(5 * DAY, [100])
    with_gap.add(1000, 100)
    assert state == with_gap.state
    assert [] == with_gap.state.past


def test_a_lasting_shift_is_taken_over():
    """Three windows on a new level, all of them far off, are no outliers."""
    volume = fed(WEEK, [*[1000, 1010] * 10, 5000, 5000, 5000])
    assert 4500 < math.exp(volume.forecast(1)) < 5500


def test_last_years_peak_is_half_expected():
    """A season seen once is a sample of one: half of the way, on the scale of logarithms."""
    year = [800, 1200] * 20 + [2000] * 3 + [1200] + [800, 1200] * 4
    volume = fed(WEEK, year + [800, 1200] * 20)
    assert 1200 < math.exp(volume.forecast(2)) < 1700


def test_beyond_a_year_after_all_that_came_last_year_is_not_followed():
    """A window so far ahead has no window near it a year before: the level alone is expected."""
    volume = fed(WEEK, [1000] * 60)
    assert [volume.state.level] * 2 == [volume.forecast(54), volume.forecast(156)]


def test_intervals_hold_what_they_promise():
    """Overdispersed counts under a wandering volume are held nine times in ten."""
    rng = np.random.default_rng(4)
    shares = rng.dirichlet(np.full(30, 2.0))
    trends, windows, forecasts = Trends(DAILY), [], []
    for number in range(150):
        volume = 3000 * (1 + 0.4 * (number % 7 == 5)) * math.exp(rng.normal(0, 0.1))
        means = shares * rng.gamma(20, 1 / 20, len(shares)) * volume
        windows.append(window(number, {f"c{i}": int(n) for i, n in enumerate(rng.poisson(means))}))
        forecasts += trends.add(windows[-1]).forecasts
    found = hindsight(forecasts, windows)
    assert [1, 2, 3, 4] == [row.ahead for row in found]
    for row in found:
        assert row.intervals > 2000
        assert 0.87 < row.coverage < 0.93
        assert row.to_seasonal_naive < 0.9


def test_nothing_is_forecast_before_the_warm_up():
    """The first six windows have no forecast behind them."""
    trends = Trends(DAILY)
    made = [len(trends.add(window(n, {"a": 100, "b": 30})).forecasts) for n in range(8)]
    assert [0, 0, 0, 0, 0, 2, 2, 2] == made


def test_hindsight_by_hand():
    """Coverage, width and both ratios of three forecasts one window ahead."""
    size = WEEK
    windows = [window(n, {"a": n}, size) for n in range(60)]

    def forecast(number, expected, low, high):
        start = number * size
        ahead = ForecastWindow(
            start=start, end=start + size, expected=expected, low=low, high=high, volume=9
        )
        return CategoryForecast(
            category="a", made=start, coverage=0.9, windows=[ahead], settings=""
        )

    made = [forecast(57, 56, 50, 60), forecast(58, 50, 45, 55), forecast(59, 0, 0, 0)]
    [row] = hindsight(made, windows)
    assert (1, 2, 0.5) == (row.ahead, row.intervals, row.coverage)
    assert pytest.approx((10 / 56 + 10 / 50) / 2, abs=1e-3) == row.width
    assert pytest.approx((1 + 8) / 2) == row.to_naive
    assert pytest.approx((1 + 8) / (52 + 52), abs=1e-3) == row.to_seasonal_naive
