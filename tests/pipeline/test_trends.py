"""Categories over all users: one change, one alert, of the right kind."""

import random

import pytest

from pipeline import rollups
from pipeline.events import AlertKind
from pipeline.inputs import MOST_SIGNALS, UNCATEGORISED
from pipeline.levels import WEEKS
from pipeline.rollups import Rollup, merged
from pipeline.settings import Settings, from_toml
from pipeline.trends import Trends
from pipeline.volume import WEEK


def told(weeks, start=0):
    """Return (week, kind, category) of the alerts over weekly counts by category."""
    trends, found = Trends(Settings()), []
    for number, counts in enumerate(weeks, start=start):
        rollup = Rollup(
            start=number * WEEK, end=(number + 1) * WEEK, counts=counts, source="s", position=number
        )
        found += [(number, alert.kind, alert.subject) for alert in trends.add(rollup).alerts]
    return found


def shop(weeks, seed=1, **special):
    """Ten categories of some 500 events a week; `special` names others, by week."""
    rng = random.Random(seed)
    return [
        {f"c{n}": round(rng.gauss(500, 25)) for n in range(10)}
        | {name: events[week] for name, events in special.items() if events.get(week)}
        for week in range(weeks)
    ]


def every(weeks, events, **other):
    return dict.fromkeys(range(weeks), events) | {int(k[1:]): v for k, v in other.items()}


def test_a_steady_shop_keeps_the_promise():
    """Nothing changes, so every alert is false: in no more than 5 % of the windows is there one."""
    false = {(seed, week) for seed in range(6) for week, *_ in told(shop(104, seed))}
    assert 0 < len(false) <= 0.05 * 6 * 104


def test_more_of_everything_is_no_trend():
    """A week of three times the volume changes no share; that so much came is told."""
    weeks = shop(30)
    weeks[20] = {name: 3 * events for name, events in weeks[20].items()}
    alerts = [alert for alert in told(weeks) if alert[0] == 20]
    assert [(20, AlertKind.INPUT_DRIFT, "events")] == alerts


def test_a_new_category_emerges_once():
    """Nothing for 20 weeks, then a start in small steps: one alert, of its own kind."""
    new = {20: 20, 21: 45, 22: 120} | dict.fromkeys(range(23, 30), 125)
    alerts = [alert for alert in told(shop(30, new=new)) if alert[2] == "new"]
    assert [(22, AlertKind.CATEGORY_EMERGING, "new")] == alerts


def test_a_rise_that_goes_back_is_one_alert():
    """Three weeks at double, then as before: one alert, and none for the way back."""
    sale = every(40, 300, w20=700, w21=710, w22=690)
    alerts = [alert for alert in told(shop(40, sale=sale)) if alert[2] == "sale"]
    assert [(20, AlertKind.CATEGORY_RISING, "sale")] == alerts


def test_a_fall_is_told():
    """Half of what was, for good: one alert."""
    events = {week: 300 if week < 20 else 150 for week in range(40)}
    alerts = [alert for alert in told(shop(40, gone=events)) if alert[2] == "gone"]
    assert [(20, AlertKind.CATEGORY_FALLING, "gone")] == alerts


def test_the_same_rise_as_last_year_is_no_news():
    """What rises every year in one week raises an alert in the first year only."""
    peak = every(120, 300, w20=900) | {20 + WEEKS: 900}
    alerts = [alert[0] for alert in told(shop(120, peak=peak)) if alert[2] == "peak"]
    assert [20] == alerts


@pytest.mark.parametrize("night", [0, 6], ids=["closed", "quiet"])
def test_a_producer_is_held_against_the_days_not_the_nights(night):
    """Nothing is told of a morning; that no event is a purchase any more is, once."""
    hour, trends, found = WEEK // 168, Trends(from_toml('[trends]\nwindow = "1h"\n')), []
    for number in range(24 * 20):
        day = 900 if 8 <= number % 24 < 20 else night
        bought = day // 15 if number < 24 * 15 else 0
        rollup = Rollup(
            start=number * hour,
            end=(number + 1) * hour,
            counts={"a": day // 2, "b": day // 2},
            types={"view": day - bought, "buy": bought},
            source="s",
            position=number,
        )
        alerts = trends.add(rollup).alerts if day else []
        found += [(number, [i.category for i in a.after]) for a in alerts if number >= 24 * 2]
    assert [(24 * 15 + 8, ["type buy"])] == found


@pytest.mark.parametrize(("hours", "broken"), [(12, 24 * 15), (1, 24 * 15 + 10)])
def test_quiet_nights_make_no_news_of_a_break_that_lasts(hours, broken):
    """However few windows a day has: it is told once, and in the end is how things are."""
    trends, found = Trends(from_toml(f'[trends]\nwindow = "{hours}h"\n')), []
    for number in range(24 // hours * 30):
        begins = number * hours
        day = 900 if 8 <= (begins + 8) % 24 < 20 else 6
        bought = day // 15 if begins < broken else 0
        rollup = Rollup(
            start=begins * WEEK // 168,
            end=(begins + hours) * WEEK // 168,
            counts={"a": day // 2, "b": day // 2},
            types={"view": day - bought, "buy": bought},
            source="s",
            position=number,
        )
        alerts = trends.add(rollup).alerts
        found += [[i.category for i in a.after] for a in alerts if begins >= broken]
    assert [["type buy"]] == found
    assert 0 == trends.state.inputs.faulty


def test_a_flood_of_new_categories_moves_nobody(monkeypatch):
    """Those that are no longer counted, as there are too many, are unknown and not gone."""
    monkeypatch.setattr(rollups, "COUNTED_CATEGORIES", 100)
    trends, found = Trends(Settings()), []
    for week in range(16):
        counts = {f"large{n}": 1200 for n in range(8)}
        small = {f"c{n}": 20 for n in range(85)}
        counts |= small if week < 11 else {f"c{n}": 4 for n in range(425)}
        met = {user: sorted((user + n) % 8 for n in range(3)) for user in range(400)}
        whole = Rollup(
            start=week * WEEK,
            end=(week + 1) * WEEK,
            counts=counts,
            users=met,
            source="s",
            position=week,
        )
        found += [(week, alert.kind) for alert in trends.add(merged([whole])).alerts]
    assert [] == found
    assert 8 == sum(name.startswith("large") for name in trends.state.categories.levels)


def test_a_type_of_every_event_is_not_remembered_for_ever():
    """Of thousands of new types a window the state keeps so many, and those that weigh first."""
    trends = Trends(Settings())
    for number in range(8):
        types = {f"view:{number}:{n}": 1 for n in range(500)} | {"buy": 200}
        trends.add(
            Rollup(
                start=number * WEEK,
                end=(number + 1) * WEEK,
                counts={"a": 700},
                types=types,
                source="s",
                position=number,
            )
        )
    signals = trends.state.inputs.signals
    assert MOST_SIGNALS == len(signals)
    assert {"type buy", UNCATEGORISED} <= signals.keys()
