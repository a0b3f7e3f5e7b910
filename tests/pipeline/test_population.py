"""Many users at once are one alert; a broken producer is told from other people."""

import random

import msgspec
import pytest
from clicks import DAY, clicks

from pipeline.drift import alert_id
from pipeline.engine import Engine
from pipeline.events import (
    AlertKind,
    DriftAlert,
    Guarantee,
    Interest,
    Reach,
    SourcePosition,
)
from pipeline.population import belongs
from pipeline.rollups import merged
from pipeline.settings import from_toml
from pipeline.trends import Trends

SETTINGS = from_toml(
    '[trends]\nwindow = "1d"\nminimum_events = 20\n[interests]\nprofile_interval = "0s"\n'
)
CATEGORIES = "abcdefgh"
SALE = range(30, 33)


def shop(users=300, days=45, seed=1):
    """Users who take one to three things on every other day, some of them always the same."""
    rng = random.Random(seed)
    rows = []
    for day in range(days):
        for user in range(users):
            if rng.random() < 0.5:
                for n in range(rng.randrange(1, 4)):
                    category = rng.choice(CATEGORIES[user % 4 :])
                    rows.append(
                        {
                            "user": f"u{user}",
                            "item": f"{category}{rng.randrange(20)}",
                            "category": category,
                            "type": rng.choice(["view", "view", "buy"]),
                            "time": day * DAY + rng.randrange(DAY - 9) + n,
                        }
                    )
    return sorted(rows, key=lambda row: row["time"])


def during(rows, days, change):
    """Return the rows with those of some days changed, or left out where that gives None."""
    changed = [change(row) if row["time"] // DAY in days else row for row in rows]
    return [row for row in changed if row is not None]


def sale(row):
    """Every third user takes what is on sale instead."""
    on_sale = {"item": "sale1", "category": "sale"}
    return row | on_sale if int(row["user"][1:]) % 3 == 0 else row


def told(rows, partitions=1):
    """Return the alerts about all users, in windows put together from partitions by user."""
    windows = {}
    for number in range(partitions):
        part = [row for row in rows if int(row["user"][1:]) % partitions == number]
        engine = Engine(SETTINGS)
        for rollup in [*engine.process(clicks(part)).rollups, *engine.drain()]:
            windows.setdefault(rollup.start, []).append(rollup)
    trends = Trends(SETTINGS)
    return [a for start in sorted(windows) for a in trends.add(merged(windows[start])).alerts]


def test_a_sale_over_a_third_of_the_users_is_one_alert_with_its_size():
    """Neither its category nor those that lose by it nor its end are told apart from it."""
    [alert] = [a for a in told(during(shop(), SALE, sale)) if a.time // DAY in range(30, 40)]
    assert AlertKind.POPULATION_SHIFT == alert.kind
    assert (30 * DAY, 31 * DAY) == (alert.since, alert.time)
    assert ("sale", "sale") == (alert.before[0].category, alert.after[0].category)
    assert alert.before[0].weight < 0.01
    assert alert.after[0].weight > 0.3
    active = {r["user"] for r in during(shop(), SALE, sale) if r["time"] // DAY == 30}
    buyers = [user for user in active if int(user[1:]) % 3 == 0]
    assert len(active) == alert.reach.active
    assert abs(alert.reach.users - len(buyers)) <= 3


def test_a_shift_between_most_of_the_events_is_one_alert():
    """Two thirds of the events are in two categories: what these do is not held against others."""

    def most(row):
        return row | {"category": "most"} if row["time"] % 3 else row

    def swap(row):
        return row | {"category": "other"} if row["category"] == "most" else row

    rows = [most(row) for row in shop(users=900)]
    half = during(rows, SALE, lambda row: swap(row) if int(row["user"][1:]) % 2 else row)
    kinds = [(a.kind, a.time // DAY) for a in told(half) if a.time // DAY in range(30, 40)]
    assert [(AlertKind.POPULATION_SHIFT, 31)] == kinds


def test_partitions_do_not_matter():
    """Three partitions give the alerts of one, places in the log aside."""
    rows = during(shop(), SALE, sale)
    assert [msgspec.structs.replace(a, source=None) for a in told(rows)] == [
        msgspec.structs.replace(a, source=None) for a in told(rows, partitions=3)
    ]


def test_steady_people_and_producers_raise_next_to_nothing():
    """No alert about the population or the input, whatever categories may do by chance."""
    kinds = {alert.kind for seed in range(3) for alert in told(shop(seed=seed))}
    assert not kinds & {AlertKind.POPULATION_SHIFT, AlertKind.INPUT_DRIFT}


@pytest.mark.parametrize(
    ("change", "signals"),
    [
        (lambda row: None if row["type"] == "view" else row, {"type view", "type buy", "volume"}),
        (lambda row: row | {"type": row["type"].upper()}, {"type VIEW", "type view"}),
        (lambda row: row | {"item": "x" + row["item"]}, {"unseen items"}),
        (lambda row: row | {"category": None}, {"no category"}),
        (lambda row: row if row["time"] % 20 == 0 else None, {"volume"}),
        (lambda _: None, {"volume"}),
    ],
    ids=["type lost", "types renamed", "items renamed", "categories lost", "few come", "silence"],
)
def test_a_broken_producer_is_one_alert_that_names_the_signals(change, signals):
    """Three days of it: one alert about the input, none about people, none when it is mended."""
    alerts = [a for a in told(during(shop(), SALE, change)) if a.time // DAY in range(30, 40)]
    assert [AlertKind.INPUT_DRIFT] == [alert.kind for alert in alerts]
    assert signals <= {interest.category for interest in alerts[0].after}
    assert 30 * DAY == alerts[0].since


def test_a_new_producer_is_accepted_in_the_end():
    """What lasts is how things are: after four days people are judged again."""
    rows = during(shop(), range(25, 45), lambda row: row | {"type": "tap"})
    alerts = told(during(rows, SALE, sale))
    kinds = [alert.kind for alert in alerts if alert.time // DAY >= 25]
    assert [AlertKind.INPUT_DRIFT, AlertKind.POPULATION_SHIFT] == kinds


def test_a_log_that_ends_within_a_window_is_no_silence():
    """A few hours of the last day are not held against a whole one."""
    rows = [row for row in shop() if row["time"] < 40 * DAY + DAY // 12]
    assert AlertKind.INPUT_DRIFT not in {alert.kind for alert in told(rows)}


def shift_alert():
    return DriftAlert(
        id="s",
        kind=AlertKind.POPULATION_SHIFT,
        subject="users",
        time=31 * DAY,
        since=30 * DAY,
        before=[Interest("sale", 0.1), Interest("rest", 0.5)],
        after=[Interest("sale", 0.4), Interest("rest", 0.2)],
        score=9.0,
        threshold=3.0,
        guarantee=Guarantee(kind="false_discovery_rate", value=0.05),
        evidence=[],
        source=SourcePosition(source="s", position=0),
        settings="",
        prior="",
        reach=Reach(users=50, active=150),
    )


@pytest.mark.parametrize(
    ("day", "left", "turned_to", "expected"),
    [
        (30, "a", "sale", True),
        (31.5, "rest", "b", True),
        (28, "a", "sale", False),
        (33, "a", "sale", False),
        (30, "sale", "rest", False),
        (30, "a", "b", False),
    ],
)
def test_a_users_alert_belongs_by_time_and_direction(day, left, turned_to, expected):
    """Near the window, and towards what the population turned to or away from what it left."""
    alert = msgspec.structs.replace(
        shift_alert(),
        id=alert_id(AlertKind.USER_JUMP, "anna", 1),
        kind=AlertKind.USER_JUMP,
        since=int(day * DAY),
        before=[Interest(left, 1.0)],
        after=[Interest(turned_to, 1.0)],
    )
    assert expected == belongs(alert, shift_alert())
    assert not belongs(shift_alert(), shift_alert())
