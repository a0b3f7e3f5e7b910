"""Softmax cross-entropy over all items, or over sampled ones where there are too many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from learners.model import SequenceModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The k items that a batch's softmax runs over: all of them, or drawn ones."""

    table: Tensor  # (k, d) embeddings
    ids: Tensor | None  # (k,) where drawn
    expected: Tensor | None  # (k,) log of how often each is expected, where drawn

    def logits(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Return log weights of the candidates: (n, d), (k, d) -> (n, k)."""
        logits = hidden @ table.T
        return logits if self.expected is None else logits - self.expected


class Sampler:
    """Draws negatives in proportion to what was seen of each item, plus one."""

    def __init__(self, seen: NDArray[np.float32], count: int, device: torch.device) -> None:
        shares = seen.astype(np.float64) + 1  # (items,)
        shares /= shares.sum()
        self.count = count
        self.cumulative = torch.from_numpy(np.cumsum(shares)).to(device)
        self.expected = torch.from_numpy(np.log(shares * count).astype(np.float32)).to(device)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return items (count,), repeats among them."""
        at = torch.rand(self.count, generator=generator, dtype=torch.float64)
        ids = torch.searchsorted(self.cumulative, at.to(self.cumulative.device))
        return ids.clamp(max=len(self.expected) - 1)


class HalfCrossEntropy(torch.autograd.Function):
    """The mean cross-entropy over all items, with products in bfloat16 and sums in float32.

    A row of logits is as long as the catalogue: it is kept once, in half the bytes.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """(n, d), (items, d), (n,) -> ()."""
        hidden, table = hidden.bfloat16(), table.bfloat16()
        own = (hidden.float() * table[targets].float()).sum(1)  # (n,)
        weights = hidden @ table.T  # (n, items)
        most = weights.amax(1, keepdim=True)
        weights.sub_(most).exp_()
        total = weights.sum(1, dtype=torch.float32)  # (n,)
        ctx.save_for_backward(hidden, table, targets, weights, total)
        return (total.log() + most[:, 0].float() - own).mean()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients for hidden states, (n, d), and table, (items, d)."""
        hidden, table, targets, weights, total = ctx.saved_tensors
        share = gradient[0] / len(targets)
        by_row = (share / total)[:, None]  # (n, 1)
        for_hidden = (weights @ table).float() * by_row - table[targets].float() * share
        for_table = (weights.T @ (hidden.float() * by_row).bfloat16()).float()
        for_table.index_add_(0, targets, hidden.float() * -share)
        return for_hidden, for_table, None


def cross_entropy(
    model: SequenceModel,
    hidden: Tensor,
    targets: Tensor,
    sampler: Sampler | None,
    generator: torch.Generator,
    *,
    half: bool = False,
) -> tuple[Tensor, Candidates]:
    """Return the mean loss over n targets, (), and the candidates it ran over.

    With a sampler, the sum over all items but the target is estimated by importance sampling: a
    negative weighs one over how often it is expected (Bengio and Senecal, 2008, "Adaptive
    Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model"), a draw
    of the target itself counts for nothing, and the target, which is always there, weighs one.

    Args:
        model: whose output embedding is used.
        hidden: (n, d).
        targets: (n,) items.
        sampler: of negatives; none takes all items.
        generator: of the draws.
        half: multiply in bfloat16 where the softmax runs over all items.
    """
    if sampler is None:
        everything = Candidates(table=model.table(), ids=None, expected=None)
        if half:
            loss: Tensor = HalfCrossEntropy.apply(hidden, everything.table, targets)
            return loss, everything
        return functional.cross_entropy(hidden @ everything.table.T, targets), everything
    ids = sampler.draw(generator)
    rows = model.rows(torch.cat([targets, ids]))  # one look-up, one pass over its gradient
    own = (hidden * rows[: len(targets)]).sum(1)  # (n,)
    drawn = Candidates(table=rows[len(targets) :], ids=ids, expected=sampler.expected[ids])
    logits = drawn.logits(hidden, drawn.table).masked_fill(targets[:, None] == ids, -math.inf)
    total = torch.logsumexp(torch.cat([own[:, None], logits], dim=1), dim=1)
    return (total - own).mean(), drawn
