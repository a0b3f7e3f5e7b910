"""The learning stage's files after a crash: erased, passed over."""

from __future__ import annotations

import sys
from pathlib import Path

from connectors.learning import LearningStage, newest_state
from connectors.traces import learner_traces

sys.path.insert(0, str(Path(__file__).parents[1] / "learners"))
from weeks import quick, week


def test_a_user_leaves_the_state_that_a_crash_kept_from_being_deleted(tmp_path):
    """The newest state was recorded, the former one not yet deleted: it goes with the user."""
    settings = quick(first_epochs=1, epochs=1)
    learning = LearningStage(settings, tmp_path, "")
    for number in range(2):
        learning.learn(week(number))
    assert any(count for _, count in learner_traces(tmp_path, "u1"))
    learning = LearningStage(settings, tmp_path, learning.state)
    learning.erase("u1")
    learning.erase_trace("u1")

    assert 0 == sum(count for _, count in learner_traces(tmp_path, "u1"))
    assert [learning.state] == [folder.name for folder in (tmp_path / "learner").iterdir()]


def test_a_state_that_a_crash_kept_from_being_written_is_none(tmp_path):
    """A folder without the state in it is neither asked nor searched."""
    learning = LearningStage(quick(first_epochs=1, epochs=1), tmp_path, "")
    learning.learn(week(0))
    torn = tmp_path / "learner" / str(week(1).end)
    torn.mkdir()
    (torn / ".learner.state").write_bytes(b"half")

    assert tmp_path / "learner" / learning.state == newest_state(tmp_path)
    assert not any(str(torn) in where for where, _ in learner_traces(tmp_path, "u1"))
