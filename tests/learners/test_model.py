"""The model, its softmax, distillation and Fisher information."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_sequences import packed
from torch.nn import functional

from learners.distill import distillation
from learners.ewc import Consolidation, fisher
from learners.model import SequenceModel, TensorBatch
from learners.sequences import lessons, questions
from learners.softmax import Candidates, Sampler, cross_entropy
from pipeline.settings import Model

CPU = torch.device("cpu")
SEQUENCES = packed([[1, 2, 3, 1, 4], [5, 5, 0], [6, 2]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


KINDS = pytest.mark.parametrize("kind", ["transformer", "gru"])


def settings_of(kind="transformer"):
    return Model(kind=kind, dim=8, blocks=2, heads=2, max_length=4, dropout=0.0, output="sum")


def made(items=8, kind="transformer"):
    model = SequenceModel(settings_of(kind), seeded())
    model.grow(torch.arange(items) % 3, 3, 2, seeded(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seeded(2)))
    return model.eval()


def batch_of(sequences=SEQUENCES, length=4):
    return TensorBatch.of(lessons(sequences, length), CPU)


@KINDS
def test_the_future_is_not_seen(kind):
    """Changing an event changes nothing that is said before it."""
    model = made(kind=kind)
    one, other = batch_of(packed([[1, 2, 3, 4]])), batch_of(packed([[1, 2, 7, 4]]))
    with torch.no_grad():
        assert torch.equal(model(one)[:2], model(other)[:2])
        assert not torch.allclose(model(one)[2], model(other)[2])


@KINDS
def test_padding_is_not_seen(kind):
    """A sequence says the same alone and beside a longer one."""
    model = made(kind=kind)
    with torch.no_grad():
        torch.testing.assert_close(model(batch_of())[-1:], model(batch_of(packed([[6, 2]]))))


def test_growing_leaves_what_was_known_and_starts_new_items_at_their_category():
    """Old rows stay; a new row lies near the mean of its category's rows."""
    model = made(items=6)
    old = model.items.detach().clone()
    model.grow(torch.tensor([0, 1, 2, 0, 1, 2, 1]), 4, 2, seeded())

    assert torch.equal(old, model.items[:6])
    torch.testing.assert_close(old[[1, 4]].mean(0), model.items[6], atol=0.1, rtol=0)
    assert (4, 8) == model.categories.shape


@KINDS
def test_a_model_is_restored_from_its_weights(kind):
    """The same weights say the same."""
    model = made(kind=kind)
    twin = SequenceModel.restore(settings_of(kind), model.state_dict())

    assert torch.equal(model(batch_of()), twin(batch_of()))


def test_sampled_softmax_estimates_the_full_one():
    """With many draws the sampled loss comes to the loss over all items, and so its slope."""
    model, batch = made(), batch_of()
    sampler = Sampler(np.arange(8, dtype=np.float32), 100_000, CPU)
    full, _ = cross_entropy(model, model(batch), batch.targets, None, seeded())
    sampled, _ = cross_entropy(model, model(batch), batch.targets, sampler, seeded())
    expected = torch.autograd.grad(full, model.items)[0]
    actual = torch.autograd.grad(sampled, model.items)[0]

    torch.testing.assert_close(full, sampled, atol=0.01, rtol=0)
    torch.testing.assert_close(expected, actual, atol=0.02, rtol=0)


def test_half_precision_comes_close_to_the_full_one():
    """Loss and slopes of the softmax over all items, to what bfloat16's eight bits can tell."""
    model, batch = made(), batch_of()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    losses = [
        cross_entropy(model, model(batch), batch.targets, None, seeded(), half=half)[0]
        for half in (False, True)
    ]
    slopes = [torch.autograd.grad(loss, weights, allow_unused=True) for loss in losses]

    torch.testing.assert_close(*losses, atol=0.01, rtol=0)
    for expected, actual in zip(*slopes, strict=True):
        torch.testing.assert_close(expected, actual, atol=0.01, rtol=0)


def test_distillation_vanishes_only_where_both_agree():
    """A challenger equal to its parent has nothing to learn from it; another one has."""
    parent, batch = made(), batch_of()
    everything = Candidates(table=parent.table(), ids=None, expected=None)
    same = distillation(parent, batch, parent(batch), everything)
    other = distillation(parent, batch, parent(batch) + 1.0, everything)

    assert 0 == pytest.approx(same.item(), abs=1e-6)
    assert other.item() > 0.01


def naive_fisher(model, batch, seed):
    """Square the gradient of one sample at a time."""
    draws = torch.rand(len(batch), generator=seeded(seed), dtype=torch.float64)
    sums = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for row in range(len(batch)):
        one = TensorBatch.of(batch.take(np.array([row])), CPU)
        logits = model(one) @ model.table().T
        shares = torch.softmax(logits.detach(), dim=1).double().cumsum(1)[0]
        label = torch.tensor([int((shares < draws[row]).sum())])
        model.zero_grad()
        functional.cross_entropy(logits, label).backward()
        for name, value in model.named_parameters():
            sums[name] += value.grad**2
    return {name: value / len(batch) for name, value in sums.items()}


@KINDS
@pytest.mark.parametrize("chunk", [1, 3, 32])
def test_the_fisher_information_is_exact_for_any_batch_size(chunk, kind):
    """Vectorised and per-sample gradients agree on every weight, however samples are batched."""
    model = made(kind=kind)
    batch = questions(SEQUENCES, SEQUENCES.targets(), 4)
    expected = naive_fisher(model, batch, 5)
    actual = fisher(model, batch, 5, chunk=chunk)

    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        torch.testing.assert_close(value, actual[name], atol=1e-6, rtol=1e-4)


def test_new_rows_were_never_important():
    """Fisher information fades, adds up, and starts at zero for what is new."""
    model = made(items=6)
    consolidation = Consolidation()
    consolidation.absorb({"items": torch.ones(6, 8)}, model, 0.5)
    model.grow(torch.arange(8) % 3, 3, 2, seeded())
    consolidation.absorb({"items": torch.ones(8, 8)}, model, 0.5)

    assert [1.5] * 6 + [1.0] * 2 == consolidation.fisher["items"][:, 0].tolist()


def test_consolidation_pulls_as_its_penalty_does():
    """The gradient added is that of strength / 2 * fisher * distance^2; new rows are left alone."""
    model = made(items=6)
    consolidation = Consolidation()
    consolidation.absorb({"items": torch.full((6, 8), 3.0)}, model, 0.9)
    model.grow(torch.arange(7) % 3, 3, 2, seeded())
    with torch.no_grad():
        model.items += 0.1
    model.items.grad = torch.zeros_like(model.items)
    consolidation.pull(model, 2.0)

    expected = torch.full((7, 8), 2.0 * 3.0 * 0.1)
    expected[6] = 0
    torch.testing.assert_close(expected, model.items.grad)
