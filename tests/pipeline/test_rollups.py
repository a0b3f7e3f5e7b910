"""Rollups of partitions add up to that of the whole."""

import random

import pytest
from clicks import DAY, clicks
from hypothesis import given
from hypothesis import strategies as st

from pipeline import rollups
from pipeline.engine import Engine
from pipeline.rollups import merged
from pipeline.settings import from_toml
from pipeline.trends import Trends

PATIENT = from_toml('[interests]\nlateness = "30d"\n[trends]\nwindow = "1d"\n')

logs = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from([f"u{n}" for n in range(8)]),
            "item": st.sampled_from([f"i{n}" for n in range(8)]),
            "category": st.sampled_from(["a", "b", "c", "d", None]),
            "time": st.integers(0, 2 * DAY - 1),
            "type": st.sampled_from(["click", "buy"]),
        }
    ),
    min_size=1,
    max_size=80,
)


def rolled(rows, source="test", batch=10_000):
    """Return the windows of a log that comes in batches, by start."""
    engine = Engine(PATIENT)
    for first in range(0, len(rows), batch):
        engine.process(clicks(rows[first : first + batch], source=source, first=first))
    return {rollup.start: rollup for rollup in engine.drain()}


def named(rollup):
    """Return a rollup with its sampled users' categories by name."""
    names = list(rollup.counts)
    users = {user: {names[place] for place in met} for user, met in rollup.users.items()}
    return users, dict(rollup.items), dict(rollup.counts), dict(rollup.types), rollup.uncategorised


@given(
    logs,
    st.lists(st.integers(0, 2), min_size=8, max_size=8),
    st.integers(1, 4),
    st.integers(1, 80),
)
def test_partitions_add_up_to_the_whole(rows, partition_of, most, batch):
    """Counts and samples, however small, do not depend on a user's partition, nor on batches."""
    samples = "SAMPLED_USERS", "SAMPLED_ITEMS", "SAMPLED_CATEGORIES"
    with pytest.MonkeyPatch.context() as patch:
        for bound in (*samples, "COUNTED_CATEGORIES", "COUNTED_TYPES"):
            patch.setattr(rollups, bound, most)
        parts = [[], [], []]
        for row in rows:
            parts[partition_of[int(row["user"][1:])]].append(row)
        apart = [rolled(part, f"p{n}", batch) for n, part in enumerate(parts) if part]
        for start, whole in rolled(rows).items():
            together = merged([windows[start] for windows in apart if start in windows])
            assert named(whole) == named(together)


def test_categories_past_the_bound_are_counted_as_one(monkeypatch):
    """The whole keeps all events, and trends know nothing of what stands for many categories."""
    monkeypatch.setattr(rollups, "COUNTED_CATEGORIES", 5)
    rows = [{"user": "u", "category": f"c{n % 40}", "item": "i", "time": n} for n in range(4000)]
    [rollup] = rolled(rows, batch=90).values()
    assert (6, 4000) == (len(rollup.counts), rollup.total)
    assert 3500 == rollup.counts[rollups.FURTHER]
    trends = Trends(PATIENT)
    trends.add(rollup)
    assert rollup.counts.keys() - {rollups.FURTHER} == trends.state.categories.levels.keys()


@given(logs, st.lists(st.integers(0, 2), min_size=8, max_size=8), st.integers(0, 16))
def test_what_is_counted_by_name_is_so_in_full(rows, partition_of, room):
    """However little room partitions have for names: the rest is one sum, and all is there."""
    with pytest.MonkeyPatch.context() as patch:
        parts = [[], [], []]
        for row in rows:
            parts[partition_of[int(row["user"][1:])]].append(row)
        whole = rolled(rows)
        patch.setattr(rollups, "NAMES_BYTES", room)
        apart = [rolled(part, f"p{n}") for n, part in enumerate(parts) if part]
    for start, full in whole.items():
        together = merged([windows[start] for windows in apart if start in windows])
        named = {n: events for n, events in together.counts.items() if n != rollups.FURTHER}
        assert named == {name: full.counts[name] for name in named}
        assert full.total == together.total


def test_names_that_fill_a_message_are_counted_as_one(monkeypatch):
    """So are types of which a producer makes one of every event; no event is left out."""
    monkeypatch.setattr(rollups, "NAMES_BYTES", 1000)
    rows = [
        {"user": "u", "category": f"{n % 90:030}", "type": f"t{n}", "item": "i", "time": n}
        for n in range(3000)
    ]
    [rollup] = rolled(rows, batch=90).values()
    assert 1000 // 32 + 1 == len(rollup.counts)
    assert len(rollup.types) <= 1000 // len('"t100"')
    assert (3000, 3000) == (rollup.total, sum(rollup.types.values()))


def test_windows_of_another_length_are_dropped():
    """They would close as if all that they hold had come in the new length."""
    weekly = from_toml('[interests]\nlateness = "30d"\n[trends]\nwindow = "7d"\n')
    engine = Engine(weekly)
    engine.process(clicks([{"user": "u", "item": "i", "time": 3 * DAY}]))
    progress = engine.changes().progress
    assert 1 == len(Engine(weekly, progress=progress).drain())
    assert [] == Engine(PATIENT, progress=progress).drain()


def test_a_sample_tells_how_many_users_there_are():
    """Five thousand users are known to a tenth from a sample of 512, a hundred exactly."""
    rows = [{"user": f"u{n}", "item": "i", "time": n} for n in range(5000)]
    [many] = rolled(rows).values()
    assert rollups.SAMPLED_USERS == len(many.users)
    assert abs(many.active - 5000) < 500
    [few] = rolled(rows[:100]).values()
    assert 100 == few.active


def test_a_sampled_user_has_all_categories_met():
    """Users in the sample from the first batch on miss nothing in later ones."""
    rng = random.Random(3)
    rows = [
        {"user": f"u{rng.randrange(2000)}", "item": "i", "category": rng.choice("abc"), "time": n}
        for n in range(9000)
    ]
    [cut] = rolled(rows, batch=1000).values()
    [whole] = rolled(rows).values()
    assert named(whole) == named(cut)
