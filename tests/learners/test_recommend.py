"""What a checkpoint would show next."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_model import made
from test_sequences import packed

from learners.checkpoint import Names
from learners.evaluation import scorer
from learners.model import SequenceModel
from learners.recommend import Recommender, UnknownItemsError
from learners.sequences import questions
from pipeline.settings import Model


def names_of(items):
    return Names(items=items, categories=["", "home", "toys"], types=["click", "buy"])


def test_the_order_is_that_of_the_evaluation():
    """What is shown first is what full ranking puts first, cut to the newest events as there."""
    model = made()
    history = [1, 2, 3, 1, 4, 6]
    asked = questions(packed([[*history, 0]]), np.array([len(history)]), 4)
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


def test_a_history_of_strangers_is_told():
    """Nothing can be said after it."""
    with pytest.raises(UnknownItemsError, match="none of a, b is among the 8 items"):
        Recommender(made(), names_of([f"i{row}" for row in range(8)])).top(["a", "b"])


def test_the_index_finds_what_scoring_all_finds():
    """Of items that lie around their categories, nearly all of the best are found."""
    random = torch.Generator().manual_seed(0)
    model = SequenceModel(Model(output="mean"), random)
    model.grow(torch.randint(0, 200, (20_000,), generator=random), 200, 1, random)
    with torch.no_grad():
        model.categories.normal_(0, 1, generator=random)
        model.items.normal_(0, 0.7, generator=random)
    names = Names(
        items=[f"i{row}" for row in range(20_000)], categories=["c"] * 200, types=["click"]
    )
    every, index = (Recommender(model.eval(), names, exact_up_to=n) for n in (10**6, 0))
    histories = [[f"i{row}" for row in range(at, at + 5)] for at in range(0, 100, 5)]
    found = [
        {item for item, _ in every.top(items)} & {item for item, _ in index.top(items)}
        for items in histories
    ]
    assert 0.95 < np.mean([len(both) / 20 for both in found])
