"""The history of interests that a replay keeps says what profiles say."""

import random

import numpy as np
import pyarrow.parquet as pq
from clicks import DAY, clicks
from profiles import profiles_of

from connectors.interest_history import InterestHistory, read_history
from pipeline.engine import Engine
from pipeline.settings import Settings
from pipeline.snapshots import TOP


def log(days=9):
    rng = random.Random(2)
    rows = [
        {
            "user": f"u{rng.randrange(12)}",
            "item": f"i{rng.randrange(9)}",
            "category": f"c{rng.randrange(25)}",
            "time": day * DAY + n * 1000,
        }
        for day in range(days)
        for n in range(120)
    ]
    return clicks(rows)


def kept(directory, batch, *, commits=3, first=0):
    """Replay a log in batches with a commit after each; return what profiles say."""
    engine = Engine(Settings())
    history = InterestHistory(directory, first, engine.names)
    told = []
    size = -(-len(batch) // commits)
    for number in range(commits):
        effects = engine.process(batch.take(slice(number * size, (number + 1) * size)))
        told += profiles_of(effects.profiles, engine.names)
        if number >= first:
            history.add(effects.profiles)
            history.flush(number + 1)
    return told


def rows_of(interests):
    return [
        (
            interests.users[interests.user[i]],
            int(interests.time[i]),
            [
                (interests.categories[c], float(w))
                for c, w in zip(interests.category[i], interests.share[i], strict=True)
                if w
            ],
        )
        for i in range(len(interests.time))
    ]


def test_history_is_what_profiles_say(tmp_path):
    """Every profile that was due is there, with its strongest interests in their order."""
    told = kept(tmp_path, log())
    expected = [
        (profile.user_id, profile.time, [(i.category, i.weight) for i in profile.short_term[:TOP]])
        for profile in told
    ]
    found = rows_of(read_history(tmp_path))
    assert len(expected) > 90
    assert sorted(expected) == sorted(found)
    assert np.all(np.diff([time for _, time, _ in found]) >= 0)


def test_a_resumed_run_writes_what_was_lost_once(tmp_path):
    """Files newer than the commit that is resumed from are dropped, and come again."""
    kept(tmp_path, log())
    before = rows_of(read_history(tmp_path))
    (tmp_path / "interests" / "000000009.tmp").write_bytes(b"torn")
    kept(tmp_path, log(), first=1)
    assert before == rows_of(read_history(tmp_path))
    assert ["000000001.parquet", "000000002.parquet", "000000003.parquet"] == sorted(
        path.name for path in (tmp_path / "interests").iterdir()
    )
    assert pq.read_table(tmp_path / "interests").num_rows == len(before)


def test_a_replay_of_nothing_has_an_empty_history(tmp_path):
    """No folder, no rows."""
    assert 0 == len(read_history(tmp_path).time)
