import random

import msgspec
import numpy as np
import pytest
from clicks import DAY, clicks

from pipeline.calibration import (
    CalibrationError,
    _worth,
    calibrate,
    histories,
    shuffle_visits,
    visits,
    visits_by_category,
)
from pipeline.prior import UNIFORM, Measured, Prior
from pipeline.settings import Settings, from_toml

QUICK = from_toml("[drift]\nevents_per_false_alarm = 1000\nminimum_events = 10")


def population(users=60, days=60):
    """Everyone shops daily, each from a few departments of their own."""
    rng = random.Random(4)
    rows = []
    for user in range(users):
        likes = rng.sample("abcdefghij", 4)
        for day in range(days):
            for n in range(2):
                category = rng.choice(likes)
                row = {"user": f"u{user}", "item": f"{category}{n}", "category": category}
                rows.append(row | {"time": day * DAY + user, "session": f"{user}-{day}"})
    rows.sort(key=lambda row: row["time"])
    return clicks(rows)


def test_the_prior_keeps_the_promise_on_its_own_history():
    """The measured rate stands in the artefact, and is at most the promised one."""
    prior = calibrate(population(), QUICK)
    assert prior.measured.false_alarms_per_1000 <= 1.0
    assert prior.measured.false_discovery_rate <= 0.05
    assert set("abcdefghij") == set(prior.shares)
    assert abs(sum(prior.shares.values()) + prior.unseen - 1) < 1e-9


def test_the_same_history_gives_the_same_prior():
    """Calibration is seeded."""
    assert calibrate(population(), QUICK) == calibrate(population(), QUICK)


def test_a_prior_has_the_version_that_its_file_has():
    """What `calibrate` says is what alerts bear."""
    prior = calibrate(population(), QUICK)
    assert prior.version == msgspec.json.decode(msgspec.json.encode(prior), type=Prior).version


def test_too_short_a_history_is_refused():
    """The error says how much is needed."""
    with pytest.raises(CalibrationError, match="calibrate on a longer history"):
        calibrate(population(users=3), QUICK)


def test_a_category_counts_once_a_visit():
    """Three clicks on books in one session and one in another are two."""
    rows = [
        {"user": "a", "item": "i", "category": "books", "time": t, "session": s}
        for t, s in ((1, "s"), (2, "s"), (3, "s"), (4, "t"))
    ]
    rows.append({"user": "b", "item": "lamp", "time": 5})
    counts = visits_by_category(clicks(rows), Settings().interests)
    assert {"books": 2, "lamp": 1} == dict(counts)


def test_silence_ends_a_visit_where_there_are_no_sessions():
    """31 minutes of silence start another visit, 29 do not."""
    minute = 60_000
    rows = [{"user": "a", "item": "i", "time": t * minute} for t in (0, 29, 60)]
    numbers = visits(clicks(rows), Settings().interests)
    assert numbers[0] == numbers[1] != numbers[2]


def test_shuffling_keeps_visits_whole():
    """The events of a visit stay together and in order."""
    batch = population(users=1)
    [rows] = histories(batch, 1, np.random.default_rng(0))
    shuffled = shuffle_visits(batch, rows, np.random.default_rng(0))
    session = batch.session.codes[shuffled]
    assert sorted(rows) == sorted(shuffled)
    assert list(rows) != list(shuffled)
    assert len(set(session)) == 1 + int((np.diff(session) != 0).sum())


def test_a_prior_that_found_no_change_can_be_read():
    """It says that it found none, and is worth nothing beside one that did."""
    measured = {"false_alarms_per_1000": 0.0, "false_discovery_rate": 0.0}
    blind = msgspec.structs.replace(UNIFORM, measured=Measured(recall=0.0, delay=None, **measured))
    half = msgspec.structs.replace(UNIFORM, measured=Measured(recall=0.5, delay=40.0, **measured))
    assert half == max([blind, half], key=_worth)
    assert blind == msgspec.json.decode(msgspec.json.encode(blind), type=Prior)
