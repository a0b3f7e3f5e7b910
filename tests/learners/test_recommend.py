"""What a checkpoint would show next."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_model import made
from test_sequences import packed
from weeks import quick, week

from learners import checkpoint
from learners.checkpoint import Names
from learners.continual import Learner
from learners.evaluation import scorer
from learners.model import SequenceModel
from learners.recommend import Blended, Recommender, UnknownItemsError
from learners.sequences import group, questions
from learners.state import StateError
from pipeline.settings import Model


def names_of(items):
    return Names(items=items, categories=["", "home", "toys"], types=["", "click"])


def test_the_order_is_that_of_the_evaluation():
    """What is shown first is what full ranking puts first, cut to the newest events as there."""
    model = made()
    history = [1, 2, 3, 1, 4, 6]
    clicks = replace(packed([[*history, 0]]), types=np.ones(len(history) + 1, np.int64))
    asked = questions(clicks, np.array([len(history)]), 4)
    logits = scorer(model, asked)(np.array([0]), 8)[0]
    items = [f"i{row}" for row in range(8)]
    best = Recommender(model, names_of(items)).top(
        [items[row] for row in history], times=[1000 * at for at in range(6)], count=8
    )
    assert [items[row] for row in np.argsort(-logits)] == [item for item, _ in best]
    assert np.allclose(np.sort(logits)[::-1], [score for _, score in best], atol=1e-5)


def test_what_the_model_does_not_know_is_left_out():
    """It is named, and does not move the answer; a name that was erased is not shown."""
    items = ["lamp", "", "desk", "chair", "rug", "bed", "sofa", "vase"]
    recommender = Recommender(made(), names_of(items))
    best = recommender.top(["lamp", "gone", "desk"], times=[0, 5, 60_000])
    assert recommender.top(["lamp", "desk"], times=[0, 60_000]) == best
    assert ["gone"] == recommender.unknown(["lamp", "gone"])
    assert set(items) - {""} == {item for item, _ in best}
    assert "home" == recommender.category("rug")


def test_a_history_without_types_is_of_the_usual_one():
    """Every event that was learnt has a type: what stands for none was never trained."""
    items = [f"i{row}" for row in range(8)]
    recommender = Recommender(made(), names_of(items))
    plain = recommender.top(["i1", "i2"])
    assert recommender.top(["i1", "i2"], event_type="click") == plain
    assert recommender.top(["i1", "i2"], event_type="never met") == plain


def test_a_history_of_strangers_is_told():
    """Nothing can be said after it."""
    with pytest.raises(UnknownItemsError, match="none of a, b is among the 8 items"):
        Recommender(made(), names_of([f"i{row}" for row in range(8)])).top(["a", "b"])


def test_the_index_finds_what_scoring_all_finds():
    """Of items that lie around their categories, nearly all of the best are found."""
    random = torch.Generator().manual_seed(0)
    model = SequenceModel(Model(output="mean"), random)
    model.grow(torch.randint(0, 200, (20_000,), generator=random), 200, 2, random)
    with torch.no_grad():
        model.categories.normal_(0, 1, generator=random)
        model.items.normal_(0, 0.7, generator=random)
    names = Names(
        items=[f"i{row}" for row in range(20_000)], categories=["c"] * 200, types=["", "click"]
    )
    every, index = (Recommender(model.eval(), names, exact_up_to=n) for n in (10**6, 0))
    histories = [[f"i{row}" for row in range(at, at + 5)] for at in range(0, 100, 5)]
    found = [
        {item for item, _ in every.top(items)} & {item for item, _ in index.top(items)}
        for items in histories
    ]
    assert 0.95 < np.mean([len(both) / 20 for both in found])


@pytest.fixture(scope="module")
def learner():
    taught = Learner(quick())
    for number in range(3):
        taught.learn(week(number))
    return taught


def test_the_blend_shows_what_its_evaluation_ranks(learner):
    """A user's history, and what came since, are asked about as they are in the next window."""
    following = copy.deepcopy(learner)
    clicks = week(3).clicks
    items, types = following.catalogue.read(clicks)
    sequences, _ = following.histories.extend(*group(clicks, items, types, "auto"))
    own = sequences.take(np.array([sequences.owners.index("u7")]))
    fresh = np.flatnonzero(own.fresh)
    since = fresh[:4]
    batch = questions(own, fresh[4:5], 12)
    known = len(learner.champion.items)
    scores = learner.ensemble.mix(batch, scorer(learner.champion, batch)(np.array([0]), known))[0]
    names = learner.catalogue.items.names
    best = Blended(learner).top(
        [names[row] for row in own.items[since]],
        user="u7",
        times=own.times[since].tolist(),
        event_type=learner.catalogue.types.names[own.types[0]],
        count=known,
    )

    assert [names[row] for row in np.argsort(-scores, kind="stable")] == [item for item, _ in best]
    assert sorted(scores.tolist(), reverse=True) == [score for _, score in best]


def test_the_blend_knows_users_without_being_told_what_they_met(learner):
    """Two users are shown different items; of nobody, and after nothing known, there is none."""
    blended = Blended(learner)
    first, second = (blended.top([], user=user, count=5) for user in ("u1", "u2"))

    assert first != second
    assert first != blended.top(["i1"], user="u1", count=5)
    assert blended.top(["i1"], count=5) == blended.top(["gone", "i1"], times=[0, 0], count=5)
    assert ["gone"] == blended.unknown(["gone", "i1"])
    assert "c1" == blended.category("i1")
    with pytest.raises(UnknownItemsError, match="nothing is known of nobody, gone"):
        blended.top(["gone"], user="nobody")


def test_the_blend_follows_a_champion_that_was_rolled_back(tmp_path):
    """It asks the one in its place; before there is a champion there is nobody to ask."""
    learner = Learner(quick(), checkpoints=tmp_path / "checkpoints")
    learner.save(tmp_path)
    with pytest.raises(StateError, match="no champion yet"):
        Blended.of(tmp_path, tmp_path / "checkpoints")
    for number in range(3):
        learner.learn(week(number))
    learner.save(tmp_path)
    before = Blended.of(tmp_path, tmp_path / "checkpoints").top(["i1"])
    checkpoint.roll_back(tmp_path / "checkpoints")
    after = Blended.of(tmp_path, tmp_path / "checkpoints").top(["i1"])

    assert Blended(learner).top(["i1"]) == before != after
