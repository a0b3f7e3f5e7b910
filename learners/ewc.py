"""Online elastic weight consolidation with an exact, per-sample Fisher diagonal.

Kirkpatrick et al., 2017, "Overcoming catastrophic forgetting in neural networks", equation 3;
online, with decay: Schwarz et al., 2018, "Progress & Compress", section 4. The labels are drawn
from the model, and each sample's gradient is squared on its own (Kunstner et al., 2019,
"Limitations of the empirical Fisher approximation"), so the result does not depend on how the
samples are batched.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from learners.model import SequenceModel, TensorBatch
from learners.sequences import Batch

Diagonal = dict[str, Tensor]

_CHUNK = 32


def fisher(model: SequenceModel, questions: Batch, seed: int, *, chunk: int = _CHUNK) -> Diagonal:
    """Return the mean over n questions of the squared gradient, by parameter.

    A sample is one question: the log-likelihood of one item, drawn from the model's own softmax
    over all items, after one input.

    Args:
        model: switched to evaluation.
        questions: n inputs with one target each; the targets are not looked at.
        seed: of the labels.
        chunk: how many samples are held in memory at once.
    """
    model.eval()
    device = model.items.device
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(len(questions), generator=generator, dtype=torch.float64)
    sums = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for begin in range(0, len(questions), chunk):
        rows = torch.arange(begin, min(begin + chunk, len(questions)))
        _add(
            model,
            TensorBatch.of(questions.take(rows.numpy()), device),
            draws[rows].to(device),
            sums,
        )
    return {name: value / max(1, len(questions)) for name, value in sums.items()}


def _add(model: SequenceModel, batch: TensorBatch, draws: Tensor, sums: Diagonal) -> None:
    body = {name: value.detach() for name, value in model.body.named_parameters()}

    def pulled(weights: Diagonal, x: Tensor, asked: Tensor, cotangent: Tensor) -> Tensor:
        hidden: Tensor = functional_call(model.body, weights, (x[None],))[0]  # (l, d)
        return (hidden * asked[:, None]).sum(0) @ cotangent

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        table = model.table()  # (items, d)
        x = model.embed(batch)  # (n, l, d)
        hidden = model.body(x)[batch.asked]  # (n, d)
        error = torch.softmax(hidden @ table.T, dim=1)  # (n, items), soon p - onehot(label)
        labels = torch.searchsorted(error.double().cumsum(1), draws[:, None])
        labels = labels.clamp(max=len(table) - 1)
        error.scatter_add_(1, labels, -torch.ones_like(labels, dtype=error.dtype))
        gradients, inputs = vmap(grad(pulled, argnums=(0, 1)), in_dims=(None, 0, 0, 0))(
            body, x, batch.asked.to(x.dtype), error @ table
        )
        for name, value in gradients.items():
            sums[f"body.{name}"] += value.square().sum(0)
        by_category = error.new_zeros(len(error), len(model.categories))
        by_category.index_add_(1, model.category, error)
        places = torch.arange(x.shape[1], device=x.device).expand(batch.items.shape)
        sums["items"] += _tied(batch.items, inputs, error, hidden, len(model.items))
        sums["categories"] += _tied(
            model.category[batch.items], inputs, by_category, hidden, len(model.categories)
        )
        for name, rows in (("types", batch.types), ("gaps", batch.gaps), ("positions", places)):
            none = error.new_zeros(len(error), len(sums[name]))
            sums[name] += _tied(rows, inputs, none, hidden, len(sums[name]))


def _tied(rows: Tensor, inputs: Tensor, error: Tensor, hidden: Tensor, size: int) -> Tensor:
    """Sum squared gradients of an embedding that is read at the input and at the output.

    A sample's gradient of row r is error[r] * hidden + the sum of `inputs` where r was read.
    Squared: the first term alone is a product of two matrices, and what the second term adds is
    confined to the few rows that were read, so no (n, size, d) tensor is ever made.

    Args:
        rows: (n, l) the row read at each place.
        inputs: (n, l, d) gradients of what was read.
        error: (n, size) gradients of the logits.
        hidden: (n, d).
        size: how many rows there are.
    """
    n, _, d = inputs.shape
    sample = torch.arange(n, device=rows.device)[:, None]
    keys, inverse = torch.unique(sample * size + rows, return_inverse=True)
    read = inputs.new_zeros(len(keys), d).index_add_(0, inverse.flatten(), inputs.flatten(0, 1))
    sample, row = keys // size, keys % size
    cross = 2 * error[sample, row][:, None] * hidden[sample] * read
    total = error.square().T @ hidden.square()  # (size, d)
    return total.index_add_(0, row, cross + read.square())


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

    def pull(self, model: SequenceModel, strength: float) -> None:
        """Add the gradient of strength / 2 * sum(fisher * (weights - anchor)^2)."""
        with torch.no_grad():
            for name, value in model.named_parameters():
                known = self.fisher.get(name)
                if known is None or value.grad is None:
                    continue
                moved = value[: len(known)] - self.anchor[name]
                value.grad[: len(known)].addcmul_(known, moved, value=strength)
