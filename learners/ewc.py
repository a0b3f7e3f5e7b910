"""Online elastic weight consolidation with an exact, per-sample Fisher diagonal.

Kirkpatrick et al., 2017, "Overcoming catastrophic forgetting in neural networks", equation 3;
online, with decay: Schwarz et al., 2018, "Progress & Compress", section 4. The labels are drawn
from the model, and each sample's gradient is squared on its own (Kunstner et al., 2019,
"Limitations of the empirical Fisher approximation"), so the result does not depend on how the
samples are batched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from learners.catalogue import Renumbering
from learners.model import SequenceModel, TensorBatch, stay
from learners.sequences import Batch

Diagonal = dict[str, Tensor]

_CHUNK = 8


def fisher(model: SequenceModel, questions: Batch, seed: int, *, chunk: int = _CHUNK) -> Diagonal:
    """Return the mean over n questions of the squared gradient, by parameter.

    A sample is one question: the log-likelihood of one item, drawn from the model's own softmax
    over all items, after one input.

    Args:
        model: switched to evaluation.
        questions: n inputs with one target each; the targets are not looked at.
        seed: of the labels.
        chunk: how many samples are held in memory at once, each with a gradient of every weight.
    """
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(len(questions), generator=generator, dtype=torch.float64)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    sums = {name: torch.zeros_like(value) for name, value in weights.items()}
    one = grad(partial(_surprise, model))
    gradients = _each(one) if model.recurrent else vmap(one, in_dims=(None, 0, 0, 0, 0, 0))
    for begin in range(0, len(questions), chunk):
        rows = torch.arange(begin, min(begin + chunk, len(questions)))
        batch = TensorBatch.of(questions.take(rows.numpy()), model.device)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            shares = torch.softmax(model(batch) @ model.table().T, dim=1).double()
            labels = torch.searchsorted(shares.cumsum(1), draws[rows, None].to(model.device))
            labels = labels[:, 0].clamp(max=len(model.items) - 1)
            inputs = (batch.items, batch.types, batch.gaps, batch.asked.float())
            for name, value in gradients(weights, labels, *inputs).items():
                sums[name] += value.square().sum(0)
    return {name: value / max(1, len(questions)) for name, value in sums.items()}


def _each(one: Callable[..., Diagonal]) -> Callable[..., Diagonal]:
    """Take samples one by one: torch has no vmap of its recurrent units."""

    def gradients(weights: Diagonal, *columns: Tensor) -> Diagonal:
        found = [one(weights, *row) for row in zip(*columns, strict=True)]
        return {name: torch.stack([sample[name] for sample in found]) for name in weights}

    return gradients


def _surprise(  # noqa: PLR0917  # vmap takes arguments in order
    model: SequenceModel,
    weights: Diagonal,
    label: Tensor,
    items: Tensor,
    types: Tensor,
    gaps: Tensor,
    asked: Tensor,
) -> Tensor:
    """Return minus the log-likelihood of a label, (), after one input of columns (l,)."""
    states, table = functional_call(
        _Both(model),
        {f"model.{name}": value for name, value in weights.items()},
        (items, types, gaps),
    )
    return functional.cross_entropy(table @ (states * asked[:, None]).sum(0), label)


class _Both(nn.Module):
    """States of one input and the table of all items in one call, as `functional_call` wants."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor, types: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """Columns (l,) -> (l, d), (items, d)."""
        return self.model.states(items[None], types[None], gaps[None])[0], self.model.table()


@dataclass(slots=True)
class Consolidation:
    """The running Fisher diagonal and the weights it is anchored at."""

    fisher: Diagonal = field(default_factory=dict)
    anchor: Diagonal = field(default_factory=dict)

    def absorb(self, diagonal: Diagonal, model: SequenceModel, decay: float) -> None:
        """Fade what was important and add what is; anchor at the model as it stands."""
        for name, old in self.fisher.items():
            diagonal[name][: len(old)] += decay * old  # rows that are new were never important
        self.fisher = diagonal
        self.anchor = {name: value.detach().clone() for name, value in model.named_parameters()}

    def move(self, model: SequenceModel) -> None:
        """Anchor at another model, which may lack the newest rows."""
        weights = dict(model.named_parameters())
        self.fisher = {name: old[: len(weights[name])] for name, old in self.fisher.items()}
        self.anchor = {
            name: weights[name].detach()[: len(old)].clone() for name, old in self.fisher.items()
        }

    def renumber(self, items: Renumbering) -> None:
        """Drop the rows of items that are gone."""
        for diagonal in (self.fisher, self.anchor):
            if "items" in diagonal:
                diagonal["items"] = stay(diagonal["items"], items)

    def pull(self, model: SequenceModel, strength: float) -> None:
        """Add the gradient of strength / 2 * sum(fisher * (weights - anchor)^2)."""
        with torch.no_grad():
            for name, value in model.named_parameters():
                known = self.fisher.get(name)
                if known is None or value.grad is None:
                    continue
                moved = value[: len(known)] - self.anchor[name]
                value.grad[: len(known)].addcmul_(known, moved, value=strength)
