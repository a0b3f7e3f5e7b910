"""The figures of the backtest's page, computed from plain records."""

import json

import pytest
from report_fixture import category_alert, shift_alert, stale_alert

from connectors.report_page import figures
from pipeline.events import (
    AlertKind,
    CategoryForecast,
    DriftAlert,
    Evidence,
    ForecastWindow,
    Guarantee,
    Interest,
    SourcePosition,
)

DAY = 24 * 3600 * 1000


def user_alert(before, after, *, time=0, score=2.0, evidence=()):
    return DriftAlert(
        id=f"alert-{time}-{score}",
        kind=AlertKind.USER_JUMP,
        subject="ann",
        time=time,
        since=time - 5000,
        before=[Interest(name, weight) for name, weight in before.items()],
        after=[Interest(name, weight) for name, weight in after.items()],
        score=score,
        threshold=1.0,
        guarantee=Guarantee(kind="average_run_length", value=1000.0),
        evidence=list(evidence),
        source=SourcePosition(source="log", position=7),
        settings="s",
        prior="p",
    )


def window(start, recall, **parts):
    return {
        "window_start": f"2020-01-{start:02}T00:00:00+00:00",
        "window_end": f"2020-01-{start + 1:02}T00:00:00+00:00",
        "recall@20": recall,
        "mrr@20": recall,
        "ndcg@10": recall,
        "decision": "promoted",
        **parts,
    }


def same(value):
    return {"recall@20": value, "mrr@20": value, "ndcg@10": value}


@pytest.mark.parametrize(
    ("time", "expected"), [(-5, 0), (0, 0), (1, 0), (10, 0), (11, 1), (20, 1), (99, 2)]
)
def test_a_time_belongs_to_the_window_it_closes(time, expected):
    """A window reaches from after its start to its end; times outside go to the nearest."""
    assert expected == figures.window_of(time, [0, 10, 20])


def forecast(category, made, *, low, high):
    windows = [
        ForecastWindow(start=made + i, end=made + i + 1, expected=5, low=low, high=high, volume=20)
        for i in range(2)
    ]
    return CategoryForecast(
        category=category, made=made, coverage=0.9, windows=windows, settings=""
    )


def test_times_without_an_offset_are_utc():
    """A bare ISO time and one with an offset name the same moment."""
    expected = 1_577_836_800_000
    assert expected == figures.milliseconds("2020-01-01T00:00:00")
    assert expected == figures.milliseconds("2020-01-01T01:00:00+01:00")


def test_window_starts_come_from_trends_then_metrics_then_alerts():
    """Each source of windows stands in only where the ones before it are missing."""
    trends = {"trends": {"window_starts": ["1970-01-03T00:00:00+00:00"], "categories": []}}
    windows = [window(1, 0.5)]
    alerts = [user_alert({}, {}, time=time) for time in (DAY, 9 * DAY)]
    assert [2 * DAY] == figures.window_starts(trends, windows, alerts)
    assert [1_577_836_800_000] == figures.window_starts({}, windows, alerts)
    assert [DAY, 8 * DAY] == figures.window_starts({}, [], alerts)
    assert [] == figures.window_starts({}, [], [])


def test_means_compare_all_models_over_the_same_windows():
    """A window in which the model has no value counts for no baseline either."""
    windows = [
        window(1, None, knn=same(0.9), cold_inclusive=same(None)),
        window(2, 0.4, knn=same(0.3), cold_inclusive=same(0.2)),
        window(3, 0.6, knn=same(0.5), cold_inclusive=same(0.4), knn_repeat_free=same(0.1)),
    ]
    got = figures.metrics(windows)
    assert [{"name": "model", **same(0.5)}, {"name": "knn", **same(0.4)}] == got["means"]
    assert [0.9, 0.3, 0.5] == got["series"]["knn"]["mrr@20"]
    assert [None, 0.2, 0.4] == got["series"]["cold_inclusive"]["recall@20"]
    assert ["promoted"] * 3 == [w["decision"] for w in got["windows"]]


def test_no_windows_have_no_models():
    """Without learning there is nothing to draw and nothing to compare."""
    got = figures.metrics([])
    assert ({}, [], []) == (got["series"], got["means"], got["windows"])


def test_champions_are_asked_about_the_windows_still_kept():
    """A row a window that the last champion was asked about; what was dropped is not drawn."""

    def row(learnt, **past):
        return {
            "learnt": learnt and same(learnt),
            "past": [
                {"window_start": window(int(day[1:]), 0)["window_start"], **pair}
                for day, pair in past.items()
            ],
        }

    def pair(now, then):
        return {"now": same(now), "then": same(then)}

    windows = [
        window(1, 0.1, retention=row(0.5)),
        window(2, 0.1, retention=row(0.6, d1=pair(0.25, 0.5))),
        window(3, 0.1),
        window(4, 0.1, retention=row(None, d1=pair(0.375, 0.5))),
    ]
    got = figures.retention(windows)
    cells = [[0, 0, 0.5, 0.0], [1, 0, 0.25, -0.25], [3, 0, 0.375, -0.125]]
    assert {"cells": cells, "transfer": -0.125} == got
    assert {"cells": [], "transfer": None} == figures.retention(windows[2:3])


def test_alerts_are_counted_by_kind_and_window():
    """Only kinds that occur are given; a user's alert of a window's first moment is of it."""
    alerts = [user_alert({}, {}, time=time) for time in (5, 6, 10, 15)]
    assert {"user_jump": [2, 2]} == figures.alerts_by_window(alerts, [0, 10])


def test_what_was_lost_flows_to_what_was_won():
    """Every winner takes from every loser in proportion to its win; what stayed does not flow."""
    alert = user_alert({"a": 0.6, "b": 0.2, "c": 0.2}, {"c": 0.2, "d": 0.6, "e": 0.2})
    expected = [["a", "d", 0.45, 1], ["a", "e", 0.15, 1], ["b", "d", 0.15, 1], ["b", "e", 0.05, 1]]
    assert expected == figures.flows(lambda: [alert])


def test_flows_are_summed_and_small_categories_pooled():
    """Beyond the heaviest, categories stand together as None, and an alert counts once there."""
    big = [user_alert({f"from {i}": 0.9}, {"to": 0.9}) for i in range(figures.FLOW_SIDE)]
    small = [user_alert({f"small {i}": 0.1}, {"to": 0.1}) for i in range(3)]
    pair = user_alert({"small 0": 0.05, "small 1": 0.05}, {"to": 0.1})
    got = figures.flows(lambda: [*big, *big, *small, pair])
    assert figures.FLOW_SIDE + 1 == len(got)
    assert ["from 0", "to", 1.8, 2] == got[0]
    assert [None, "to", 0.4, 4] == got[-1]


def test_categories_and_models_do_not_flow():
    """Only users' alerts tell where interest moved."""
    others = [category_alert("sport/ski", 9, 0.4, 0.3, 5.0), stale_alert(9)]
    assert [] == figures.flows(lambda: others)


def test_trends_put_the_strongest_alert_first():
    """A fall counts by its size; a category that is not tracked is named apart."""
    alerts = [
        category_alert("sport/ski", 9, 0.4, 0.3, 5.0),
        category_alert("books/travel", 20, 0.2, 0.3, -8.0),
        category_alert("pets/dogs", 9, 0.2, 0.1, 6.0),
    ]
    tracked = [{"category": name, "shares": [0.1, 0.2]} for name in ("sport/ski", "books/travel")]
    starts = [0, alerts[0].time]
    got = figures.trends({"trends": {"categories": tracked}}, alerts, starts)
    marks = [(c["category"], c["marks"]) for c in got["categories"]]
    falling, rising = [(1, "category_falling", -8.0)], [(0, "category_rising", 5.0)]
    assert [("books/travel", falling), ("sport/ski", rising)] == marks
    assert ["pets/dogs"] == got["untracked"]


def test_trends_without_alerts_show_every_tracked_category():
    """A quiet backtest still shows its shares."""
    tracked = [{"category": "a", "shares": [1.0]}]
    got = figures.trends({"trends": {"categories": tracked}}, [], [0])
    alone = {**tracked[0], "marks": [], "band": [], "ahead": []}
    assert {"categories": [alone], "untracked": []} == got


def test_forecasts_are_drawn_as_shares_of_the_windows():
    """The band stands at the window that it was made for, the newest forecast ahead of them all."""
    history = {"categories": [{"category": "a", "shares": [0.5, 0.4]}], "totals": [10, 20]}
    made = [forecast("a", at, low=4, high=8) for at in (1, 2)]
    got = figures.trends({"trends": history}, [], [0, 1], [*made, forecast("b", 1, low=1, high=2)])
    [drawn] = got["categories"]
    assert [None, [0.2, 0.4]] == drawn["band"]
    assert [[0.25, 0.2, 0.4], [0.25, 0.2, 0.4]] == drawn["ahead"]


def test_segments_have_sizes_and_recent_moves():
    """Sizes add up over where users came from; who was new, dormant or stayed did not move."""
    flows = [
        (0, "(new)", "a", 5),
        (0, "(new)", "b", 2),
        *[(1, "a", "a", 3), (1, "a", "b", 2), (1, "b", "b", 1), (1, "b", "(dormant)", 1)],
    ]
    got = figures.segments(flows)
    assert [["a", [5, 3]], ["b", [2, 3]]] == got["sizes"]
    assert [["a", "b", 2, 2]] == got["flows"]
    assert ([0, 1], 2) == (got["starts"], got["windows"])


def test_an_alert_is_packed_into_a_row():
    """Texts become indices, times seconds, and only the newest evidence is kept."""
    evidence = [Evidence(time=60_000 + i, item_id="shoe", category="b") for i in range(8)]
    alert = user_alert({"a": 0.7}, {"c": 0.1, "b": 0.5}, time=70_000, evidence=evidence)
    got = figures.alert_list([alert])
    kept = [[9, 0, 1]] * figures.EVIDENCE_SHOWN
    expected = [1, "ann", 70, 5, [[0, 0.7]], [[1, 0.5], [2, 0.1]], 2.0, 1.0, 0, kept, 2]
    assert [[*expected, alert.id, 0, 7, 0, 0]] == got["rows"]
    assert ["a", "b", "c"] == got["categories"]
    assert ["shoe"] == got["items"]
    assert [("average_run_length", 1000.0)] == got["guarantees"]


def test_a_population_shift_keeps_its_order_and_its_own():
    """Before and after stand side by side, and a user's alert that belongs to it says so."""
    shift = shift_alert(30)
    own = user_alert({"home/bedding": 0.2}, {"sport/ski": 0.9}, time=shift.time)
    rows = figures.alert_list([shift, own], [shift])["rows"]
    about, of_it = sorted(rows, key=lambda row: row[0], reverse=True)
    assert [code for code, _ in about[4]] == [code for code, _ in about[5]]
    assert [[195, 1516], 0] == about[14:]
    assert [0, shift.since // 1000] == of_it[14:]


def test_the_strongest_alerts_are_kept_newest_first(monkeypatch):
    """Beyond the limit, the users' alerts nearest their threshold are left out first."""
    monkeypatch.setattr(figures, "ALERTS_SHOWN", 3)
    users = [user_alert({}, {}, time=time, score=score) for time, score in ((1, 9), (2, 3), (3, 6))]
    rows = figures.alert_list([*users, stale_alert(4)])["rows"]
    assert ["stale-4", "alert-3-6", "alert-1-9"] == [row[11] for row in rows]


def test_reasons_that_differ_in_the_value_are_one():
    """Else every bad time would have a line of its own."""
    reasons = [f"timestamp '{n}/1/2024' is neither a number nor ISO 8601" for n in range(40)]
    got = figures.rejects({"source": "f", "line": 1, "reason": reason} for reason in reasons)
    assert [("timestamp … is neither a number nor ISO …", 40)] == [
        (told["reason"], told["count"]) for told in got["reasons"]
    ]


def test_rejects_are_counted_by_reason_with_a_few_examples():
    """The commonest reason stands first; an example keeps where it came from."""
    records = [
        {"source": "f", "line": line, "reason": "bad" if line else "rare", "record": "x"}
        for line in range(6)
    ]
    got = figures.rejects(records)
    assert (6, 0) == (got["total"], got["further_reasons"])
    assert [("bad", 5), ("rare", 1)] == [(r["reason"], r["count"]) for r in got["reasons"]]
    expected = [{"source": "f", "line": line, "record": "x"} for line in (1, 2, 3)]
    assert json.dumps(expected) == json.dumps(got["reasons"][0]["examples"])
