"""The training loop: inputs in shuffled batches, judged on a held-out slice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from learners.distill import distillation
from learners.ewc import Consolidation
from learners.model import SequenceModel, TensorBatch
from learners.sequences import Batch, Ints, concatenate
from learners.softmax import Sampler, cross_entropy
from pipeline.settings import Learning

Progress = Callable[[float, str], None]
Score = Callable[[SequenceModel], float]

_BETAS = (0.9, 0.98)  # of Adam: steps are few


@dataclass(slots=True, kw_only=True)
class Lessons:
    """What a window teaches: new inputs and, where replay is on, old ones."""

    new: Batch
    replayed: Batch | None = None
    rows: Batch = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.new if self.replayed is None else concatenate([self.new, self.replayed])


def batches(rows: Batch, size: int, random: np.random.Generator) -> Iterator[Ints]:
    """Yield the rows of each batch: shuffled, inputs of like length together."""
    order = random.permutation(len(rows))
    order = order[np.argsort(rows.lengths[order], kind="stable")]
    parts = np.split(order, np.arange(size, len(order), size))
    for part in random.permutation(len(parts)):
        yield parts[part]


def optimiser_of(model: SequenceModel, settings: Learning) -> torch.optim.Optimizer:
    """Return Adam over all of a model's weights."""
    rate = settings.learning_rate
    return torch.optim.Adam(model.parameters(), lr=rate, betas=_BETAS, fused=True)


def rate_at(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: up over the first tenth, down to none."""
    warm = max(1, steps // 10)
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm), 1.0)


def step(
    model: SequenceModel,
    optimiser: torch.optim.Optimizer,
    batch: TensorBatch,
    *,
    sampler: Sampler | None,
    generator: torch.Generator,
    settings: Learning,
    replayed: torch.Tensor | None = None,
    parent: SequenceModel | None = None,
    consolidation: Consolidation | None = None,
) -> None:
    """Take one step down the loss of a batch.

    Args:
        model: in training.
        optimiser: of the model's weights.
        batch: b inputs.
        sampler: of negatives; none takes all items.
        generator: of the negatives.
        settings: the weights of distillation and consolidation.
        replayed: (b,) which inputs are replayed ones; they are distilled from the parent.
        parent: none leaves distillation out.
        consolidation: none leaves it out.
    """
    optimiser.zero_grad(set_to_none=True)
    hidden = model(batch)
    loss, candidates = cross_entropy(
        model, hidden, batch.targets, sampler, generator, half=settings.half_precision
    )
    if parent is not None and replayed is not None:
        old = replayed[:, None].expand(batch.asked.shape)[batch.asked]
        loss = loss + settings.distillation * distillation(
            parent, batch.take(replayed), hidden[old], candidates
        )
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if consolidation is not None:
        consolidation.pull(model, settings.ewc)
    optimiser.step()


def fit(
    model: SequenceModel,
    lessons: Lessons,
    *,
    epochs: int,
    settings: Learning,
    sampler: Sampler | None,
    seed: int,
    score: Score,
    progress: Progress,
    parent: SequenceModel | None = None,
    consolidation: Consolidation | None = None,
) -> int:
    """Train a model in place; keep the epoch that did best on the held-out slice.

    Returns the epochs that were kept.
    """
    device = model.device
    torch.manual_seed(seed)  # of dropout
    random = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    optimiser = optimiser_of(model, settings)
    steps = epochs * -(-len(lessons.rows) // settings.batch)
    best, kept, weights, taken = 0.0, 0, model.state_dict(), 0
    for epoch in range(epochs):
        model.train()
        for chosen in batches(lessons.rows, settings.batch, random):
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * rate_at(taken, steps)
            step(
                model,
                optimiser,
                TensorBatch.of(lessons.rows.take(chosen), device),
                sampler=sampler,
                generator=generator,
                settings=settings,
                replayed=torch.from_numpy(chosen >= len(lessons.new)).to(device),
                parent=parent,
                consolidation=consolidation,
            )
            taken += 1
            progress(taken / steps, "training")
        model.eval()
        found = score(model)  # on the held-out slice
        if found >= best:
            best, kept, weights = found, epoch + 1, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    model.eval()
    return kept
