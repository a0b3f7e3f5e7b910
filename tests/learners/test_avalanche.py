"""Avalanche's strategies on driftline's model: they train, they remember, and they are bounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from weeks import WEEK, quick, week

from learners import avalanche, strategies
from learners.continual import Learner
from learners.model import TensorBatch
from learners.sequences import Batch
from learners.state import StateError

ROW = 4 * 12 * 4 + 12 * 4  # bytes of an exemplar: four columns and the targets, of 12 events


def learner_of(name, **changes):
    settings = quick(replay=1.0, full_softmax_up_to=1000, **changes)
    learning = strategies.named(name, settings.learning)
    return Learner(replace(settings, learning=learning), recipe=strategies.recipe(name, learning))


def taught(name, windows=2, **changes):
    """Return a learner after some windows, of which the first knows few items, and its reports."""
    learner = learner_of(name, **changes)
    return learner, [learner.learn(week(n, users=40 if n else 6)) for n in range(windows)]


@pytest.fixture(scope="module")
def untrained():
    learner = Learner(quick(first_epochs=0))
    learner.learn(week(0))
    return learner.learn(week(1)).mrr


@pytest.mark.parametrize("name", strategies.AVALANCHE)
def test_every_strategy_learns_over_windows(name, untrained):
    """The catalogue grows, every challenger is promoted, and the model beats an untrained one."""
    _, reports = taught(f"avalanche:{name}", 3)
    assert ["promoted"] * 3 == [report.decision for report in reports]
    assert reports[0].items < reports[1].items
    assert reports[2].mrr > 2 * untrained


def test_naive_is_finetune():
    """Without a plugin it is driftline's own training: as good, and as long."""
    _, naive = taught("avalanche:naive", 4)
    _, own = taught("finetune", 4)
    assert own[3].mrr == pytest.approx(naive[3].mrr, abs=0.08)
    assert naive[3].mrr > 0.5


@pytest.mark.parametrize("name", ["replay", "agem", "gdumb"])
def test_memories_are_bounded(name):
    """After more sequences than fit, as many are kept as may be, and their bytes are told."""
    learner, reports = taught(f"avalanche:{name}", 4, replay_capacity=48)
    held = sum(len(part) for p in learner.recipe.plugins for part in avalanche.exemplars(p))
    assert 0.8 * 48 <= held <= 48
    assert held * ROW == reports[3].buffer_bytes


@pytest.mark.parametrize(
    ("name", "strength"), [("ewc", "_EWC"), ("si", "_SI"), ("mas", "_MAS"), ("lwf", "_LWF")]
)
def test_penalties_hold_the_model_back(name, strength, monkeypatch):
    """A hundred thousand times as strong, the model moves less in a window than without."""

    def moved():
        learner, _ = taught(f"avalanche:{name}", 2)
        before = learner.champion.body.state_dict()
        old = {key: value.clone() for key, value in before.items()}
        learner.learn(week(2, pattern=1))
        new = learner.champion.body.state_dict()
        return sum(float((new[key] - old[key]).square().sum()) for key in old)

    monkeypatch.setattr(avalanche, strength, 0.0)
    free = moved()
    monkeypatch.setattr(avalanche, strength, 1e5)
    assert moved() < 0.7 * free


def test_an_example_is_a_sequence_with_all_its_targets():
    """The classifier's logits are the model's, a row a target, however wide the padding."""
    learner, _ = taught("avalanche:naive", 1)
    random = np.random.default_rng(0)
    items = random.integers(0, len(learner.catalogue.items), (2, 4))
    batch = Batch(
        items=items,
        types=np.zeros_like(items),
        gaps=np.zeros_like(items),
        fresh=np.ones((2, 4), np.bool_),
        lengths=np.array([4, 4]),
        targets=np.array([[-1, 3, 5, -1], [1, -1, -1, 2]]),
        owners=["a", "b"],
    )
    data = avalanche.dataset(batch, 12)
    x, y = (torch.stack(column) for column in zip(*(data[i][:2] for i in range(2)), strict=True))
    model = learner.champion
    with torch.no_grad():
        actual = avalanche.Classifier(model)(x)
        expected = model(TensorBatch.of(batch, model.device)) @ model.table().T
    assert ((2, 4, 12), (2, 12)) == (tuple(x.shape), tuple(y.shape))
    assert [5, 2] == list(data.targets)
    torch.testing.assert_close(expected, actual)
    loss = torch.nn.functional.cross_entropy(expected, torch.tensor([3, 5, 1, 2]))
    torch.testing.assert_close(loss, avalanche.cross_entropy(actual, y))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("avalanche:der", "a row of logits as wide as the catalogue"),
        ("avalanche:gem", "for every past window"),
        ("avalanche:nothing", "take default"),
    ],
)
def test_what_cannot_work_is_refused(name, why):
    """The error says why, or what there is."""
    with pytest.raises(ValueError, match=why):
        strategies.named(name, quick().learning)


def test_what_has_no_file_format_is_not_saved(tmp_path):
    """Avalanche's state would be a pickle; its exemplars have neither owners nor times."""
    learner, _ = taught("avalanche:replay", 1)
    with pytest.raises(StateError, match="no file format"):
        learner.save(tmp_path)
    with pytest.raises(ValueError, match="no owners"):
        learner.forget("u1")
    with pytest.raises(ValueError, match="no times"):
        learner.recipe.undo_window(0, WEEK, learner.champion)
