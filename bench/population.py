"""One cause over many users, and producers that break: how many alerts, and which.

    python -m bench.population [--events FILE] [--seeds 5] [--first 0] [--only sale]

In real histories, from a random moment in the second half on:

- sale: for two weeks a third of the users, drawn at random, take half of what they take from three
  categories of middling size; other events are untouched. One population alert should come that
  names any of these categories, and its size be near the number of users who took part in its
  window. Others are about something else, such as a festival in those weeks.
- types vanish (every other event's type is "view", then those no longer come), items unseen (every
  item has a new name), categories missing, volume collapses (one event in ten is left): one alert
  about the input should come, and none about categories or the population.
- untouched: every alert about input is false.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.machine import inputs, save
from connectors.files import read
from pipeline.calibration import CalibrationError, calibrate
from pipeline.engine import Engine
from pipeline.events import NO_CODE, USER_KINDS, AlertKind, Clicks, Column, DriftAlert, concatenate
from pipeline.population import belongs
from pipeline.prior import UNIFORM, Prior
from pipeline.settings import Settings, Source
from pipeline.symbols import prefix
from pipeline.trends import Trends
from pipeline.volume import WEEK

SALE = 2 * WEEK
SHARE = 1 / 3
CATEGORIES = 3
DEPTH = Settings().interests.category_depth
BATCH = 8192

Random = np.random.Generator
About = tuple[str, frozenset[str]]


def calibrated(clicks: Clicks) -> Prior:
    """Calibrate users' alerts on the first half of the time, where that has enough of them."""
    first = np.flatnonzero(clicks.time < (clicks.time[0] + clicks.time[-1]) // 2)
    try:
        return calibrate(clicks.take(first), Settings())
    except CalibrationError as error:
        print(f"users' alerts are not calibrated: {error}")
        return UNIFORM


def alerts_of(clicks: Clicks, prior: Prior = UNIFORM) -> list[DriftAlert]:
    """Return all alerts over a log, of users and of all of them."""
    engine, trends = Engine(Settings(), prior=prior), Trends(Settings())
    alerts = []
    for start in range(0, len(clicks), BATCH):
        effects = engine.process(clicks.take(slice(start, start + BATCH)))
        alerts += effects.alerts
        alerts += [a for rollup in effects.rollups for a in trends.add(rollup).alerts]
    return alerts + [a for rollup in engine.drain() for a in trends.add(rollup).alerts]


def about(alert: DriftAlert) -> About:
    """Return what tells an alert from that of another log in the same window."""
    return alert.id, frozenset(interest.category for interest in alert.after)


def moment(clicks: Clicks, random: Random) -> int:
    """Draw when it begins, with a month left after it."""
    first, last = int(clicks.time[0]), int(clicks.time[-1])
    return int(random.integers((first + last) // 2, last - SALE - 4 * WEEK))


def sale(clicks: Clicks, random: Random) -> tuple[Clicks, int, np.ndarray, frozenset[str]]:
    """Return the log with a sale, when it began, which events are of it, and its categories."""
    start = moment(clicks, random)
    at = (clicks.time >= start) & (clicks.time < start + SALE)
    buyers = random.random(len(clicks.user.values)) < SHARE
    moved = at & buyers[clicks.user.codes] & (random.random(len(clicks)) < 0.5)  # noqa: PLR2004
    column = clicks.category if (clicks.category.codes != NO_CODE).any() else clicks.item
    sizes = np.bincount(column.codes[column.codes != NO_CODE], minlength=len(column.values))
    order = np.argsort(-sizes)
    middling = order[len(order) // 20 : len(order) // 5]
    chosen = random.choice(middling, CATEGORIES, replace=False)
    sources = [np.flatnonzero(column.codes == code) for code in chosen]
    rows = np.flatnonzero(moved)
    like = np.array([random.choice(sources[i % CATEGORIES]) for i in range(len(rows))], np.intp)
    item, category = clicks.item.codes.copy(), clicks.category.codes.copy()
    item[rows], category[rows] = clicks.item.codes[like], clicks.category.codes[like]
    changed = replace(
        clicks,
        item=Column(clicks.item.values, item),
        category=Column(clicks.category.values, category),
    )
    return changed, start, moved, frozenset(prefix(column.values[c], DEPTH) for c in chosen)


def typed(clicks: Clicks, random: Random) -> Clicks:
    """Make every other event a view."""
    codes = (random.random(len(clicks)) < 0.5).astype(np.int32)  # noqa: PLR2004
    return replace(clicks, event_type=Column(["view", "buy"], codes))


def no_views(clicks: Clicks, after: np.ndarray, _: Random) -> Clicks:
    """Lose a type."""
    return clicks.take(np.flatnonzero(~after | (clicks.event_type.codes == 1)))


def new_items(clicks: Clicks, after: np.ndarray, _: Random) -> Clicks:
    """Rename all items."""
    names = [*clicks.item.values, *(f"new {name}" for name in clicks.item.values)]
    codes = clicks.item.codes + after.astype(np.int32) * len(clicks.item.values)
    return replace(clicks, item=Column(names, codes.astype(np.int32)))


def no_categories(clicks: Clicks, after: np.ndarray, _: Random) -> Clicks:
    """Lose the field."""
    codes = np.where(after, NO_CODE, clicks.category.codes).astype(np.int32)
    return replace(clicks, category=Column(clicks.category.values, codes))


def a_tenth(clicks: Clicks, after: np.ndarray, random: Random) -> Clicks:
    """Lose nine events in ten."""
    return clicks.take(np.flatnonzero(~after | (random.random(len(clicks)) < 0.1)))  # noqa: PLR2004


BREAKS: dict[str, Callable[[Clicks, np.ndarray, Random], Clicks]] = {
    "types vanish": no_views,
    "items unseen": new_items,
    "categories missing": no_categories,
    "volume collapses": a_tenth,
}


def count(alerts: list[DriftAlert], since: int, until: int, known: set[About]) -> Counter[str]:
    """Count what was raised about windows that overlap a span, and is not known."""
    return Counter(
        alert.kind.value
        for alert in alerts
        if alert.time > since and alert.since < until and about(alert) not in known
    )


def measure_sale(
    clicks: Clicks, seed: int, prior: Prior, untouched: set[About]
) -> dict[str, float]:
    """Hold a sale; alerts that the untouched log has as well are not of it."""
    changed, start, moved, meant = sale(clicks, np.random.default_rng(seed))
    alerts = [alert for alert in alerts_of(changed, prior) if about(alert) not in untouched]
    raised = [a for a in alerts if a.time > start and a.since < start + SALE + 2 * WEEK]
    every = [a for a in raised if a.kind == AlertKind.POPULATION_SHIFT]
    shifts = [a for a in every if any(i.category in meant for i in a.after)]
    told = shifts[0] if shifts else None
    then = moved & (clicks.time >= told.since) & (clicks.time < told.time) if told else moved
    users_alerts = [a for a in alerts if a.kind in USER_KINDS]
    return {
        "population_alerts": len(shifts),
        "population_alerts_of_else": len(every) - len(shifts),
        "size_told": told.reach.users if told else 0,
        "size_true": len(np.unique(clicks.user.codes[then])),
        "category_alerts_then": sum(a.kind.startswith("category") for a in raised),
        "user_alerts": len(users_alerts),
        "user_alerts_of_it": sum(belongs(a, s) for a in users_alerts for s in shifts[:1]),
    }


def measure_break(clicks: Clicks, name: str, seed: int, untouched: set[About]) -> dict[str, float]:
    """Break the producer for three weeks; alerts that the untouched log has are not of it."""
    random = np.random.default_rng(seed)
    clicks = typed(clicks, random)
    start = moment(clicks, random)
    until = start + 3 * WEEK
    after = (clicks.time >= start) & (clicks.time < until)
    alerts = alerts_of(BREAKS[name](clicks, after, random))
    raised = count(alerts, start, until, untouched)
    return {
        "input_alerts": raised["input_drift"],
        "population_alerts": raised["population_shift"],
        "category_alerts": sum(n for kind, n in raised.items() if kind.startswith("category")),
    }


def main() -> None:
    """Print a table a data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path, help="a file that `driftline replay` reads")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed: others draw others")
    parser.add_argument("--only", choices=["sale", *BREAKS], help="leave the others out")
    arguments = parser.parse_args()
    chosen = {arguments.events.name: arguments.events} if arguments.events else inputs()
    figures: dict[str, object] = {}
    for name, path in chosen.items():
        clicks = concatenate([batch for batch, _ in read([path], Source())])
        prior = calibrated(clicks)
        alerts = alerts_of(clicks, prior)
        untouched, ids = Counter(alert.kind.value for alert in alerts), {about(a) for a in alerts}
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        runs = {}
        if arguments.only in (None, "sale"):
            runs["sale"] = [measure_sale(clicks, seed, prior, ids) for seed in seeds]
        for broken in BREAKS if arguments.only is None else {arguments.only} & BREAKS.keys():
            if broken != "categories missing" or (clicks.category.codes != NO_CODE).any():
                runs[broken] = [measure_break(clicks, broken, seed, ids) for seed in seeds]
        figures[name] = {"untouched": untouched, **runs}
        print(f"{name}, untouched: {dict(untouched)}")
        for what, rows in runs.items():
            print(f"  {what}")
            for figure in rows[0]:
                print(f"    {figure:24} {[row[figure] for row in rows]}")
    print(f"written to {save('population', figures)}")


if __name__ == "__main__":
    main()
