"""A year's backtest, made up but always the same: `python report_fixture.py DIR` writes one."""

import json
import sys
from datetime import UTC, datetime, timedelta
from math import exp, sin
from pathlib import Path
from random import Random

import msgspec
import pyarrow as pa

from connectors.segment_files import FLOWS, FLOWS_FILE, PLACES, write_table
from pipeline.events import (
    AlertKind,
    CategoryForecast,
    DriftAlert,
    Evidence,
    ForecastWindow,
    Guarantee,
    Interest,
    Reach,
    SourcePosition,
)
from pipeline.segments import DORMANT

WEEKS = 52
START = datetime(2017, 1, 2, tzinfo=UTC)
VOLUME = 50_000
WEEK = 7 * 24 * 3600 * 1000  # milliseconds
CATEGORIES = [
    *("garden/tools", "garden/furniture", "garden/plants", "home/kitchen/pans", "home/lighting"),
    *("home/bedding", "home/storage", "sport/running/shoes", "sport/cycling", "sport/camping"),
    *("sport/ski", "books/fiction", "books/children", "books/travel", "music/vinyl"),
    *("toys/building", "toys/board games", "toys/outdoor", "baby/prams", "baby/clothing"),
    *("electronics/phones", "electronics/audio/headphones", "electronics/cameras"),
    *("electronics/laptops", "fashion/coats", "fashion/dresses", "fashion/shoes"),
    *("beauty/skin", "pets/dogs", "pets/cats"),
]
HOSTILE = '</script><script>document.documentElement.dataset.hacked="yes"</script>'


def starts():
    return [START + timedelta(weeks=week) for week in range(WEEKS)]


def milliseconds(week):
    return round((START + timedelta(weeks=week)).timestamp() * 1000)


def shares():
    """Each category's share by week: a season's swell over a base, summing to one a week."""
    random = Random(1)
    shapes = [(random.uniform(0.4, 2), random.uniform(0, 52), random.random() < 0.5)
              for _ in CATEGORIES]  # fmt: skip
    rows = []
    for week in range(WEEKS):
        raw = [
            base * (1 + 1.6 * swells * exp(-(((week - peak) / 5) ** 2)) + random.gauss(0, 0.05))
            for base, peak, swells in shapes
        ]
        rows.append([value / sum(raw) for value in raw])
    return [list(column) for column in zip(*rows, strict=True)]


def user_alert(random, number):
    week = min(WEEKS - 1, int(52 * random.betavariate(2.2, 1.6)))
    kind = AlertKind.USER_JUMP if random.random() < 0.35 else AlertKind.USER_MIGRATION
    favourites = [int(30 * random.random() ** 3) for _ in range(5)]
    before, after = favourites[:2], [29 - code for code in favourites[2:]]
    time = milliseconds(week) + random.randrange(WEEK)
    weights = sorted((random.uniform(0.05, 0.45) for _ in range(3)), reverse=True)
    return DriftAlert(
        id=f"{random.getrandbits(128):032x}",
        kind=kind,
        subject=f"household-{random.randrange(2400)}",
        time=time,
        since=time - random.randrange(3 * WEEK),
        before=[
            Interest(CATEGORIES[c], weights[i] + 0.2) for i, c in enumerate(dict.fromkeys(before))
        ],
        after=[Interest(CATEGORIES[c], weights[i]) for i, c in enumerate(dict.fromkeys(after))],
        score=9.2 + random.expovariate(0.3),
        threshold=9.2,
        guarantee=Guarantee(kind="average_run_length", value=10_000),
        evidence=[
            Evidence(
                time=time - 3_600_000 * (5 - i),
                item_id=f"sku-{random.randrange(20_000)}",
                category=CATEGORIES[after[i % len(after)]],
            )
            for i in range(6)
        ],
        source=SourcePosition(source="clicks-2017.parquet", position=number * 37),
        settings="3f2a9c41",
        prior="calibrated-2016-12",
    )


def category_alert(name, week, observed, expected, z):
    rising = observed > expected
    return DriftAlert(
        id=f"category-{CATEGORIES.index(name)}-{week}",
        kind=AlertKind.CATEGORY_RISING if rising else AlertKind.CATEGORY_FALLING,
        subject=name,
        time=milliseconds(week + 1),
        since=milliseconds(week),
        before=[Interest(name, expected)],
        after=[Interest(name, observed)],
        score=z,
        threshold=3.1,
        guarantee=Guarantee(kind="false_discovery_rate", value=0.05),
        evidence=[],
        source=SourcePosition(source="clicks-2017.parquet", position=week * 50_000),
        settings="3f2a9c41",
        prior="",
    )


def stale_alert(week):
    return DriftAlert(
        id=f"stale-{week}",
        kind=AlertKind.MODEL_STALE,
        subject="next-item",
        time=milliseconds(week + 1),
        since=milliseconds(week - 2),
        before=[],
        after=[],
        score=0.061,
        threshold=0.04,
        guarantee=Guarantee(kind="false_discovery_rate", value=0.05),
        evidence=[],
        source=SourcePosition(source="clicks-2017.parquet", position=week * 50_000),
        settings="3f2a9c41",
        prior="",
    )


def shift_alert(week):
    names = ("sport/ski", "toys/board games", "garden/plants")
    shares = ((0.05, 0.21), (0.11, 0.19), (0.3, 0.2))
    return msgspec.structs.replace(
        stale_alert(week),
        id=f"shift-{week}",
        kind=AlertKind.POPULATION_SHIFT,
        subject="users",
        since=milliseconds(week),
        before=[Interest(name, before) for name, (before, _) in zip(names, shares, strict=True)],
        after=[Interest(name, after) for name, (_, after) in zip(names, shares, strict=True)],
        score=8.1,
        threshold=2.9,
        reach=Reach(users=195, active=1516),
    )


def input_alert(week):
    return msgspec.structs.replace(
        stale_alert(week),
        id=f"input-{week}",
        kind=AlertKind.INPUT_DRIFT,
        subject="events",
        since=milliseconds(week),
        before=[Interest("type view", 0.71), Interest("volume", 1.0)],
        after=[Interest("type view", 0.0), Interest("volume", 0.3)],
        score=-41.0,
        threshold=3.7,
        guarantee=Guarantee(kind="false_positive_rate", value=0.001),
    )


def alerts(users):
    random = Random(2)
    told = [user_alert(random, number) for number in range(users)]
    for name, row in zip(CATEGORIES, shares(), strict=True):
        for week in range(5, WEEKS):
            expected = sum(row[week - 4 : week]) / 4
            z = (row[week] - expected) / (0.04 * expected)
            if abs(z) > 3.1:
                told.append(category_alert(name, week, row[week], expected, z))
    told += [stale_alert(week) for week in (23, 37)]
    told += [shift_alert(46), input_alert(12)]
    return sorted(told, key=lambda alert: alert.time)


def scores(random, week, level):
    value = level + 0.02 * sin(week / 5) - 0.06 * exp(-week / 4) + random.gauss(0, 0.005)
    return {"recall@20": value, "mrr@20": value * 0.36, "ndcg@10": value * 0.44}


def retention(week):
    """Every fourth of the weeks before, a little less well known the longer ago it is."""
    return {
        "learnt": scores(Random(week), week, 0.478),
        "past": [
            {
                "window_start": starts()[asked].isoformat(),
                "now": {name: value - 0.0004 * (week - asked) for name, value in then.items()},
                "then": then,
            }
            for asked in range(0, week, 4)
            for then in [scores(Random(asked), asked, 0.478)]
        ],
    }


def windows():
    random = Random(3)
    champion = None
    for week, start in enumerate(starts()):
        decision = "promoted" if random.random() < 0.8 else "rejected"
        checkpoint = f"{random.getrandbits(64):016x}"
        champion = checkpoint if decision == "promoted" else champion
        yield {
            "window_start": start.isoformat(),
            "window_end": (start + timedelta(weeks=1)).isoformat(),
            "events": 48_000 + random.randrange(9_000),
            "evaluated": 30_000 + random.randrange(5_000) if week else 0,
            **(scores(random, week, 0.478) if week else dict.fromkeys(scores(random, 0, 0))),
            "blend": scores(random, week, 0.512),
            "popularity": scores(random, week, 0.21),
            "markov": scores(random, week, 0.41),
            "knn": scores(random, week, 0.486),
            "personal": scores(random, week, 0.33),
            "cold_inclusive": scores(random, week, 0.44),
            "repeat_free": scores(random, week, 0.27),
            "retention": retention(week),
            "training_seconds": 20 + random.random() * 9,
            "decision": decision,
            "reason": "recall@20 on the newest tenth 0.481 against the champion's 0.474"
            if decision == "promoted"
            else "forgets too much: recall@20 on the anchor slice fell by 0.021, 0.010 is allowed",
            "checkpoint": checkpoint,
            "champion": champion,
            "items": 9_000 + 210 * week,
        }


def rejects():
    for line in range(61):
        reason = (
            *("timestamp: neither a number nor an ISO date", "item_id: missing"),
            *("not JSON: unexpected end of data", "category: more than 16 levels"),
        )[min(line % 7, 3)]
        record = json.dumps({"user_id": f"household-{line}", "item_id": HOSTILE, "timestamp": "?"})
        yield {
            "source": "clicks-2017.jsonl",
            "line": 977 * line,
            "reason": reason,
            "record": record,
        }


def forecasts():
    """What was forecast of each category behind each week: last week's share, give or take."""
    return [
        CategoryForecast(
            category=name,
            made=milliseconds(week + 1),
            coverage=0.9,
            windows=[
                ForecastWindow(
                    start=milliseconds(week + ahead),
                    end=milliseconds(week + ahead + 1),
                    expected=share * VOLUME,
                    low=round(share * VOLUME * (0.9 - ahead / 20)),
                    high=round(share * VOLUME * (1.1 + ahead / 20)),
                    volume=VOLUME,
                )
                for ahead in (1, 2, 3, 4)
            ],
            settings="3f2a9c41",
        )
        for name, row in zip(CATEGORIES, shares(), strict=True)
        for week, share in enumerate(row)
        if week >= 6
    ]


def segment_flows():
    """Ten segments of about a hundred users, a tenth of whom go to the next one each week."""
    names = [name.split("/")[0] for name in CATEGORIES[::3]]
    for week in range(WEEKS):
        for place, name in enumerate(names):
            yield milliseconds(week), name, name, 90 + place
            yield milliseconds(week), name, names[(place + 1) % len(names)], 10 + week % 3
        yield milliseconds(week), PLACES[DORMANT], PLACES[DORMANT], 40


def write_backtest(directory, users=6_000):
    """Write the files that a replay of a year leaves; `users` is the number of user alerts."""
    told = alerts(users)
    counts = {}
    for alert in told:
        counts[alert.kind.value] = counts.get(alert.kind.value, 0) + 1
    summary = {
        "events": 2_595_732,
        "applied": 2_581_240,
        "late": 1_418,
        "duplicates": 13_013,
        "rejected": 61,
        "users": 2_469,
        "alerts": counts,
        "first_event": "2017-01-02T06:12:00+00:00",
        "last_event": "2017-12-31T23:51:00+00:00",
        "elapsed_seconds": 1_534.2,
        "interest_events_per_second": 104_310.5,
        "trends": {
            "window_starts": [start.isoformat() for start in starts()],
            "totals": [VOLUME] * WEEKS,
            "categories": [
                {"category": name, "shares": row}
                for name, row in zip(CATEGORIES, shares(), strict=True)
            ],
        },
        "forecasts": [
            {
                "ahead": ahead,
                "intervals": 1_380 - 30 * ahead,
                "coverage": 0.9 + ahead / 1000,
                "width": 0.4 + ahead / 10,
                "to_naive": 0.8 + ahead / 50,
                "to_seasonal_naive": None,
            }
            for ahead in (1, 2, 3, 4)
        ],
        "settings": "3f2a9c41",
        "command": "driftline replay clicks-2017.parquet --out backtest",
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "summary.json").write_bytes(msgspec.json.encode(summary))
    for name, records in (
        ("alerts", told),
        ("forecasts", forecasts()),
        ("metrics", list(windows())),
        ("rejects", list(rejects())),
    ):
        (directory / f"{name}.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(records))

    columns = zip(*segment_flows(), strict=True)
    write_table(
        directory / FLOWS_FILE, pa.table(dict(zip(FLOWS.names, columns, strict=True)), schema=FLOWS)
    )


if __name__ == "__main__":
    write_backtest(Path(sys.argv[1]))
