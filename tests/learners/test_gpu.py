"""A learner whose model is on a GPU."""

from __future__ import annotations

import pytest
import torch
from weeks import quick, week

from learners import checkpoint
from learners.continual import Learner
from learners.recommend import Recommender

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

EVERYTHING = {"ewc": 10.0, "distillation": 0.5, "replay": 0.5, "ewc_samples": 32}


def on_gpu(**changes):
    return quick(device="cuda", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        EVERYTHING,
        {"full_softmax_up_to": 10, "negatives": 256, "replay_policy": "loss"},
        {"half_precision": True, "replay_policy": "herding"},
        {"update_rank": 4},
        {"item_windows": 2},
    ],
)
def test_it_learns_as_well_as_on_a_processor(changes):
    """A pattern is found about as often, whatever strategy trains."""
    there, here = Learner(on_gpu(**changes)), Learner(quick(**changes))
    for number in range(4):
        found, expected = there.learn(week(number)), here.learn(week(number))

    assert expected.recall == pytest.approx(found.recall, abs=0.1)


def test_its_checkpoints_say_the_same_on_a_processor(tmp_path):
    """A checkpoint written on a GPU is read without one, and recommends the same items."""
    learner = Learner(on_gpu(), checkpoints=tmp_path)
    for number in range(2):
        learner.learn(week(number))
    read = Recommender.of(checkpoint.load(tmp_path / learner.champion_id))
    shown = Recommender(learner.champion.cpu(), checkpoint.Names.of(learner.catalogue))

    assert shown.top(["i1", "i2"]) == read.top(["i1", "i2"])


def test_a_resumed_learner_goes_on_there(tmp_path):
    """State goes to the disk and back to the GPU."""
    learner = Learner(on_gpu(**EVERYTHING))
    for number in range(2):
        learner.learn(week(number))
    learner.save(tmp_path)
    resumed = Learner.load(tmp_path, on_gpu(**EVERYTHING))

    assert learner.learn(week(2)).recall == resumed.learn(week(2)).recall
    assert resumed.champion.device.type == "cuda"
