"""Updates of low rank: bounded where they should be, free where items are new, and merged."""

from __future__ import annotations

import copy

import pytest
import torch
from test_model import batch_of, made, seeded
from weeks import quick, week

from learners import strategies
from learners.continual import Learner
from learners.low_rank import low_rank

KNOWN, ITEMS, RANK = 6, 8, 2


def trained(model, steps=5):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        said = model(batch_of())
        loss = (said @ model.table().T).logsumexp(1).sum() + said.square().sum()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("kind", ["transformer", "gru"])
def test_a_window_changes_matrices_by_a_low_rank(kind):
    """Rows of old items and linear layers; new items and what is small change freely."""
    model = made(ITEMS, kind)
    before = copy.deepcopy(model.state_dict())
    with low_rank(model, RANK, KNOWN, 3):
        trained(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    matrices = {"items", *(n for n in before if n.endswith("weight") and "norm" not in n)}
    for name in matrices - {n for n in before if "unit" in n}:
        change = after[name] - before[name]
        assert 1 <= int(torch.linalg.matrix_rank(change[:KNOWN], rtol=1e-4)) <= RANK
    assert int(torch.linalg.matrix_rank(after["items"] - before["items"], rtol=1e-4)) > RANK
    assert not torch.equal(before["positions"], after["positions"])


def test_nothing_changes_without_training():
    """Before the first step the model says what it said, and afterwards all of it is trained."""
    model = made()
    expected = model(batch_of())
    with low_rank(model, RANK, KNOWN, 3):
        assert torch.equal(expected, model(batch_of()))
    assert torch.equal(expected, model(batch_of()))
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.grow(torch.zeros(ITEMS + 1, dtype=torch.long), 3, 2, seeded())
    assert ITEMS + 1 == len(model.items)


def test_the_strategy_learns():
    """From the second window on its updates have a low rank, and it goes on learning."""
    settings = quick()
    learning = strategies.named("lora", settings.learning)
    learner = Learner(quick(update_rank=learning.update_rank))
    learner.learn(week(0))
    before = learner.champion.items.detach().clone()
    report = learner.learn(week(1))
    change = (learner.champion.items.detach() - before)[: len(before)]
    assert "promoted" == report.decision
    assert 1 <= int(torch.linalg.matrix_rank(change, rtol=1e-4)) <= 8
