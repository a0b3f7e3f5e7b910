"""What the backtest's page draws, computed from a backtest's records.

Every function takes plain records and gives plain lists and dicts, ready for JSON. Alerts come as
iterables that are read once, or as functions that read them anew, so a long run's alerts never
stand in memory together.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from heapq import nlargest
from itertools import compress
from typing import Any, TypeVar

from msgspec import UNSET

from connectors.segment_files import PLACES, RECENT, Flow
from pipeline.events import USER_KINDS, AlertKind, CategoryForecast, DriftAlert, Interest
from pipeline.population import belongs

Record = dict[str, Any]
Link = tuple[str | None, str | None]
Text = TypeVar("Text")

METRICS = ("recall@20", "mrr@20", "ndcg@10")
MODELS = ("model", "blend", "knn", "markov", "popularity", "personal")
SLICES = ("cold_inclusive", "repeat_free")
CATEGORY_KINDS = frozenset(
    {AlertKind.CATEGORY_RISING, AlertKind.CATEGORY_FALLING, AlertKind.CATEGORY_EMERGING}
)
KINDS = list(AlertKind)

WEEK = 7 * 24 * 3600 * 1000  # milliseconds
ALERTS_SHOWN = 5000
INTERESTS_SHOWN = 5
EVIDENCE_SHOWN = 6
FLOW_SIDE = 9
SEGMENTS_SHOWN = 8
REASONS_SHOWN = 25
_VALUE = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\w.:+-]*")
"""What differs between reasons of one kind: quoted text, numbers, times."""
EXAMPLES_SHOWN = 3


def milliseconds(iso: str) -> int:
    """Return an ISO date and time as milliseconds since the epoch; no offset means UTC."""
    moment = datetime.fromisoformat(iso)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def window_starts(
    summary: Record, windows: Sequence[Record], alerts: Iterable[DriftAlert]
) -> list[int]:
    """Return the starts in ms of the windows that all figures share.

    They are the trends' windows, or the metrics', or, where there are neither, the weeks from the
    first alert to the last.
    """
    named = summary.get("trends", {}).get("window_starts") or [w["window_start"] for w in windows]
    if named:
        return [milliseconds(start) for start in named]
    times = [alert.time for alert in alerts]
    return list(range(min(times), max(times) + 1, WEEK)) if times else []


def window_of(time: int, starts: Sequence[int]) -> int:
    """Return the index of the window that a time belongs to; a window's end is still its own."""
    return max(0, bisect_left(starts, time) - 1)


def metrics(windows: Sequence[Record]) -> Record:
    """Return each model's and slice's metrics by window, and their means.

    `series[name][metric]` has a value a window, None where that window has none; `means` has a row
    a model in the order of `MODELS`, all over the same windows: those where the model has values.
    """
    # A window in which nothing could be evaluated has no score; a zero would look like one.
    windows = [w if w.get("evaluated", 1) else _without_metrics(w) for w in windows]
    found = dict.fromkeys(name for w in windows for name, part in w.items() if _has_metrics(part))
    names = [name for name in ("model", *found) if windows]
    series = {
        name: {
            metric: [(w if name == "model" else w.get(name) or {}).get(metric) for w in windows]
            for metric in METRICS
        }
        for name in names
    }
    models = [name for name in names if not name.endswith(SLICES)]
    models.sort(key=lambda name: MODELS.index(name) if name in MODELS else len(MODELS))
    compared = [w.get(METRICS[0]) is not None for w in windows]
    means = [
        {
            "name": name,
            **{metric: _mean(compress(series[name][metric], compared)) for metric in METRICS},
        }
        for name in models
    ]
    kept = (
        *("events", "evaluated", "training_seconds", "decision"),
        *("reason", "checkpoint", "champion", "items"),
    )
    return {
        "starts": [milliseconds(w["window_start"]) for w in windows],
        "ends": [milliseconds(w["window_end"]) for w in windows],
        "series": series,
        "means": means,
        "windows": [{key: w.get(key) for key in kept} for w in windows],
    }


def _without_metrics(window: Record) -> Record:
    return {
        key: value
        for key, value in window.items()
        if key not in METRICS and not _has_metrics(value)
    }


def retention(windows: Sequence[Record]) -> Record:
    """Return what champions still knew of the past windows that the last one was asked about.

    A cell is [champion's window, window asked, Recall@20, change since that window was learnt];
    `transfer` is the mean change at the end, None where there is no past.
    """
    numbers = {window["window_start"]: number for number, window in enumerate(windows)}
    rows = [window.get("retention") or {"past": [], "learnt": None} for window in windows]
    last = rows[-1]["past"] if rows else []
    shown = {asked["window_start"] for asked in last}
    cells = []
    for number, (window, row) in enumerate(zip(windows, rows, strict=True)):
        for asked in row["past"]:
            if asked["window_start"] in shown:
                now, then = asked["now"][METRICS[0]], asked["then"][METRICS[0]]
                cells.append([number, numbers[asked["window_start"]], now, now - then])
        if row["learnt"] and window["window_start"] in shown:
            cells.append([number, number, row["learnt"][METRICS[0]], 0.0])
    return {
        "cells": cells,
        "transfer": _mean(a["now"][METRICS[0]] - a["then"][METRICS[0]] for a in last),
    }


def alerts_by_window(alerts: Iterable[DriftAlert], starts: Sequence[int]) -> dict[str, list[int]]:
    """Return, for each kind that occurs, how many alerts each window has."""
    counts = {kind.value: [0] * len(starts) for kind in KINDS}
    for alert in alerts:
        of_event = alert.kind in USER_KINDS  # all others bear the end of their window
        time = alert.time + 1 if of_event else alert.time
        counts[alert.kind.value][window_of(time, starts)] += 1
    return {kind: by_window for kind, by_window in counts.items() if any(by_window)}


def flows(read_alerts: Callable[[], Iterable[DriftAlert]]) -> list[list[Any]]:
    """Return where users' interest moved: [from, to, users' worth of interest, alerts] a link.

    Each side keeps its `FLOW_SIDE` heaviest categories; None stands for all others.
    """
    lost: dict[str, float] = defaultdict(float)
    won: dict[str, float] = defaultdict(float)
    for moved in _movements(read_alerts()):
        for (before, after), value in moved.items():
            lost[before] += value
            won[after] += value
    origins = set(nlargest(FLOW_SIDE, lost, key=lost.__getitem__))
    goals = set(nlargest(FLOW_SIDE, won, key=won.__getitem__))
    weight: dict[Link, float] = defaultdict(float)
    count: Counter[Link] = Counter()
    for moved in _movements(read_alerts()):
        links = set()
        for (before, after), value in moved.items():
            link = (before if before in origins else None, after if after in goals else None)
            weight[link] += value
            links.add(link)
        count.update(links)
    heaviest = sorted(weight, key=lambda link: -weight[link])
    return [[*link, round(weight[link], 4), count[link]] for link in heaviest]


def trends(
    summary: Record,
    alerts: Iterable[DriftAlert],
    starts: Sequence[int],
    forecasts: Iterable[CategoryForecast] = (),
) -> Record:
    """Return categories' shares by window with their alerts as marks, the strongest first.

    A mark is [window, kind, score]. `band` has for each window the interval that was forecast for
    it one window ahead, [low, high] as shares, and `ahead` the windows after the newest, [expected,
    low, high]. `untracked` names the categories that have alerts but no shares in the summary.
    Without any category alert, all tracked categories are given.
    """
    marks: dict[str, list[tuple[int, str, float]]] = defaultdict(list)
    for alert in alerts:
        if alert.kind in CATEGORY_KINDS:
            mark = (window_of(alert.time, starts), alert.kind.value, round(alert.score, 2))
            marks[alert.subject].append(mark)
    history = summary.get("trends", {})
    tracked = {c["category"]: c["shares"] for c in history.get("categories", [])}
    bands, ahead = _forecasts(forecasts, starts, history.get("totals", []), set(tracked))
    strongest = sorted(marks, key=lambda name: -max(abs(score) for *_, score in marks[name]))
    shown = [name for name in strongest if name in tracked] if marks else list(tracked)
    return {
        "categories": [
            {
                "category": name,
                "shares": tracked[name],
                "marks": marks.get(name, []),
                "band": bands.get(name, []),
                "ahead": ahead.get(name, []),
            }
            for name in shown
        ],
        "untracked": [name for name in strongest if name not in tracked],
    }


def _forecasts(
    forecasts: Iterable[CategoryForecast],
    starts: Sequence[int],
    totals: Sequence[int],
    names: set[str],
) -> tuple[dict[str, list[list[float] | None]], dict[str, list[list[float]]]]:
    """Return by category the bands over the windows, and what lies ahead of the newest."""
    windows = {start: place for place, start in enumerate(starts)}
    bands: dict[str, list[list[float] | None]] = {}
    ahead: dict[str, list[list[float]]] = {}
    for forecast in forecasts:
        name, first = forecast.category, forecast.windows[0]
        if name not in names:
            continue
        if first.start in windows:
            place = windows[first.start]
            total = max(totals[place], 1)
            band = bands.setdefault(name, [None] * len(starts))
            band[place] = [round(first.low / total, 6), round(first.high / total, 6)]
        if starts and first.start > starts[-1]:
            ahead[name] = [
                [
                    round(value / window.volume, 6)
                    for value in (window.expected, window.low, window.high)
                ]
                for window in forecast.windows
            ]
    return bands, ahead


def segments(flows: Sequence[Flow]) -> Record:
    """Return the sizes of the largest segments by window, and the flows of the newest windows.

    `sizes` has [segment, users a window] for the `SEGMENTS_SHOWN` largest at the end; `flows` has
    [from, to, users] of those who moved between segments in the last `RECENT` windows; each side
    keeps its `FLOW_SIDE` largest, None stands for all others.
    """
    starts = sorted({start for start, *_ in flows})
    sizes: dict[str, Counter[int]] = defaultdict(Counter)
    recent: Counter[tuple[str, str]] = Counter()
    nowhere = set(PLACES.values())
    for start, before, after, users in flows:
        sizes[after][start] += users
        if before != after and not {before, after} & nowhere and start in starts[-RECENT:]:
            recent[before, after] += users
    named = [name for name in sizes if name not in nowhere]
    named.sort(key=lambda name: (-sum(sizes[name][start] for start in starts[-RECENT:]), name))
    return {
        "starts": starts,
        "sizes": [
            [name, [sizes[name][start] for start in starts]] for name in named[:SEGMENTS_SHOWN]
        ],
        "windows": min(RECENT, len(starts)),
        "flows": _largest_links(recent),
    }


def _largest_links(links: Counter[tuple[str, str]]) -> list[list[Any]]:
    sides: list[set[str]] = []
    for side in (0, 1):
        sums: Counter[str] = Counter()
        for link, users in links.items():
            sums[link[side]] += users
        sides.append({name for name, _ in sums.most_common(FLOW_SIDE)})
    merged: Counter[Link] = Counter()
    for (before, after), users in links.items():
        merged[before if before in sides[0] else None, after if after in sides[1] else None] += (
            users
        )
    return [[*link, users, users] for link, users in merged.most_common()]


def alert_list(alerts: Iterable[DriftAlert], shifts: Sequence[DriftAlert] = ()) -> Record:
    """Return the alerts to be read one by one, newest first, packed into rows.

    Alerts about categories and models come before those about users, then the ones furthest over
    their threshold, up to `ALERTS_SHOWN`. A row is [kind, subject, time, since, from, to, score,
    threshold, guarantee, evidence, evidence left out, id, source, position, reach, belongs]; texts
    that recur stand in `categories`, `items`, `sources` and `guarantees`, and rows hold their
    indices. Times are in seconds: an alert's since the epoch, those of its change and its evidence
    before the alert. `reach` is [users, of how many active] or 0, `belongs` the start of the
    population shift, of those in `shifts`, that a user's alert belongs to, or 0.
    """
    shown = nlargest(ALERTS_SHOWN, alerts, key=_strength)
    shown.sort(key=lambda alert: -alert.time)
    categories: dict[str, int] = {}
    items: dict[str, int] = {}
    sources: dict[str, int] = {}
    guarantees: dict[tuple[str, float], int] = {}

    def interests(all_of_them: list[Interest], kind: AlertKind) -> list[list[float]]:
        # Where before and after are of the same categories, their order tells which is which.
        paired = kind in {AlertKind.POPULATION_SHIFT, AlertKind.INPUT_DRIFT}
        top = all_of_them if paired else sorted(all_of_them, key=lambda i: -i.weight)
        return [[_code(categories, i.category), round(i.weight, 3)] for i in top[:INTERESTS_SHOWN]]

    rows = [
        [
            KINDS.index(alert.kind),
            alert.subject,
            alert.time // 1000,
            (alert.time - alert.since) // 1000,
            interests(alert.before, alert.kind),
            interests(alert.after, alert.kind),
            round(alert.score, 3),
            round(alert.threshold, 3),
            _code(guarantees, (alert.guarantee.kind, alert.guarantee.value)),
            [
                [
                    (alert.time - event.time) // 1000,
                    _code(items, event.item_id),
                    _code(categories, event.category),
                ]
                for event in alert.evidence[-EVIDENCE_SHOWN:]
            ],
            max(0, len(alert.evidence) - EVIDENCE_SHOWN),
            alert.id,
            _code(sources, alert.source.source),
            alert.source.position,
            0 if alert.reach is UNSET else [alert.reach.users, alert.reach.active],
            next((shift.since // 1000 for shift in shifts if belongs(alert, shift)), 0),
        ]
        for alert in shown
    ]
    return {
        "kinds": KINDS,
        "categories": list(categories),
        "items": list(items),
        "sources": list(sources),
        "guarantees": list(guarantees),
        "rows": rows,
    }


def rejects(records: Iterable[Record]) -> Record:
    """Return how often each reason stands among the rejects, the commonest first, with examples.

    Reasons that differ in the value that was received, or in a number, are one.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        reason = _VALUE.sub("…", record["reason"])
        counts[reason] += 1
        if len(examples[reason]) < EXAMPLES_SHOWN:
            examples[reason].append({key: record.get(key) for key in ("source", "line", "record")})
    return {
        "total": counts.total(),
        "further_reasons": max(0, len(counts) - REASONS_SHOWN),
        "reasons": [
            {"reason": reason, "count": count, "examples": examples[reason]}
            for reason, count in counts.most_common(REASONS_SHOWN)
        ],
    }


def _has_metrics(part: object) -> bool:
    return isinstance(part, dict) and METRICS[0] in part


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _movements(alerts: Iterable[DriftAlert]) -> Iterator[dict[tuple[str, str], float]]:
    return (_moved(alert) for alert in alerts if alert.kind in USER_KINDS)


def _moved(alert: DriftAlert) -> dict[tuple[str, str], float]:
    # Every category that lost weight gives to every one that won, in proportion to what it won.
    change = Counter({interest.category: interest.weight for interest in alert.after})
    change.subtract({interest.category: interest.weight for interest in alert.before})
    won = {category: value for category, value in change.items() if value > 0}
    total = sum(won.values())
    return {
        (loser, winner): -lost * gain / total
        for loser, lost in change.items()
        if lost < 0
        for winner, gain in won.items()
    }


def _strength(alert: DriftAlert) -> tuple[bool, float]:
    over = abs(alert.score) / abs(alert.threshold) if alert.threshold else abs(alert.score)
    return alert.kind not in USER_KINDS, over


def _code(table: dict[Text, int], text: Text) -> int:
    return table.setdefault(text, len(table))
