import random

from clicks import DAY, clicks
from hypothesis import given
from hypothesis import strategies as st

from pipeline.settings import from_toml
from pipeline.windows import Windows

DAILY = from_toml('[windows]\nsize = "1d"\nlateness = "6h"')
HOUR = DAY // 24

rows = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from(["anna", "ben", "carl"]),
            "item": st.sampled_from(["i", "j"]),
            "time": st.integers(0, 4 * DAY),
        }
    ),
    max_size=40,
)


def readable(window):
    batch = window.clicks
    users = [batch.user.values[code] for code in batch.user.codes]
    items = [batch.item.values[code] for code in batch.item.codes]
    triples = zip(batch.time.tolist(), users, items, strict=True)
    return window.start, window.end, list(triples), window.sources


def run(batches):
    windows = Windows(DAILY)
    closed = [readable(window) for batch in batches for window in windows.add(batch)]
    return closed + [readable(window) for window in windows.drain()], windows.late


def test_a_window_waits_for_the_lateness():
    """Day one closes with the first event six hours into day two, and no earlier."""
    windows = Windows(DAILY)
    early = clicks([{"user": "anna", "item": "i", "time": t} for t in (HOUR, 29 * HOUR)])
    assert [] == windows.add(early)
    late = [
        {"user": "ben", "item": "i", "time": 2 * HOUR},
        {"user": "anna", "item": "i", "time": 30 * HOUR},
        {"user": "ben", "item": "i", "time": 3 * HOUR},
    ]
    [window] = windows.add(clicks(late, first=2))
    assert [HOUR, 2 * HOUR] == window.clicks.time.tolist()
    assert {"test": 2} == window.sources
    assert 1 == windows.late


@given(rows, st.lists(st.integers(0, 40), max_size=4))
def test_cuts_do_not_matter(events, cuts):
    """The same windows close however the log is cut into batches."""
    batch = clicks(events)
    edges = [0, *sorted(min(c, len(events)) for c in cuts), len(events)]
    parts = [batch.take(slice(a, b)) for a, b in zip(edges, edges[1:], strict=False)]
    assert run([batch]) == run(parts)


@given(rows)
def test_every_click_is_in_one_window_or_late(events):
    """Nothing is lost."""
    closed, late = run([clicks(events)])
    assert len(events) == late + sum(len(window[2]) for window in closed)


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_a_window_does_not_depend_on_how_users_interleave(events, rng):
    """Logs that keep each user's order give windows in the same order."""
    events = sorted(events, key=lambda row: row["time"])
    by_user = {u: [r for r in events if r["user"] == u] for u in ("anna", "ben", "carl")}
    mixed = []
    while any(by_user.values()):
        user = rng.choice([u for u, left in by_user.items() if left])
        mixed.append(by_user[user].pop(0))
    generous = from_toml('[windows]\nsize = "1d"\nlateness = "9d"')
    outcomes = []
    for log in (events, mixed):
        windows = Windows(generous)
        windows.add(clicks(log))
        outcomes.append([readable(window)[:3] for window in windows.drain()])
    assert outcomes[0] == outcomes[1]


def test_sources_hold_the_newest_position_of_each_log():
    """What a checkpoint says it has seen is where each log stood."""
    windows = Windows(DAILY)
    log = [{"user": str(i), "item": "i", "time": i} for i in range(5)]
    random.Random(1).shuffle(log)
    windows.add(clicks(log[:2], source="clicks/0", first=10))
    windows.add(clicks(log[2:], source="clicks/1", first=70))
    assert [{"clicks/0": 11, "clicks/1": 72}] == [w.sources for w in windows.drain()]
