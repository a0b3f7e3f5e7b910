"""Full ranking in bounded memory: every scorer over the same questions, a slice at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn import functional

from learners.blend import Blend, log_shares
from learners.counts import Floats
from learners.metrics import ranks
from learners.model import SequenceModel, TensorBatch
from learners.sequences import Batch, Ints

Scorer = Callable[[Batch, int], Floats]

_CELLS = 1 << 22  # scores held at once by one scorer, 4 bytes each
_OBSERVED = 512  # targets that the blend learns from in a window


def slices(questions: Batch, items: int) -> Iterator[Ints]:
    """Yield rows of questions, so many at a time that their scores stay within bounds."""
    size = max(1, min(512, _CELLS // max(1, items)))
    for begin in range(0, len(questions), size):
        yield np.arange(begin, min(begin + size, len(questions)))


def answers(questions: Batch) -> Ints:
    """Return the target of each question, (n,)."""
    return questions.targets[np.arange(len(questions)), questions.lengths - 1]


def scorer(model: SequenceModel) -> Scorer:
    """Return a model's logits as scores: (b inputs, one target each) -> (b, items)."""
    table = model.table().detach()

    def scores(batch: Batch, items: int) -> Floats:
        with torch.no_grad():
            hidden = model(TensorBatch.of(batch, table.device))
            logits: Floats = (hidden @ table[:items].T).cpu().numpy()
        return logits

    return scores


def rank(score: Scorer, questions: Batch, items: int) -> Ints:
    """Rank the targets among the first `items` items, (n,)."""
    parts = [np.zeros(0, np.int64)]
    for rows in slices(questions, items):
        batch = questions.take(rows)
        parts.append(ranks(score(batch, items), answers(batch)))
    return np.concatenate(parts)


def compare(
    scorers: dict[str, Scorer], blend: Blend, blended: tuple[str, ...], questions: Batch, items: int
) -> dict[str, Ints]:
    """Rank the targets by each scorer and by their blend; let the blend observe some of them.

    Args:
        scorers: by name; "model" among them.
        blend: weighs the experts named in `blended`; its weights are not changed here.
        blended: the experts, "model" first.
        questions: one target each, in an order that says nothing about them.
        items: how many items are ranked.

    Returns:
        Ranks (n,) by name, "blend" among them.
    """
    found: dict[str, list[Ints]] = {name: [] for name in (*scorers, "blend")}
    observed = 0
    for rows in slices(questions, items):
        batch = questions.take(rows)
        targets = answers(batch)
        scores = {name: score(batch, items) for name, score in scorers.items()}
        for name, score in scores.items():
            found[name].append(ranks(score, targets))
        experts = [scores[blended[0]], *(log_shares(scores[name]) for name in blended[1:])]
        pooled = blend.scores(experts)
        found["blend"].append(ranks(pooled, targets))
        if observed < _OBSERVED:
            blend.observe(experts, pooled, targets)
            observed += len(rows)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def held_out_loss(model: SequenceModel, questions: Batch) -> float:
    """Return the mean cross-entropy of the targets over all items."""
    total = 0.0
    with torch.no_grad():
        table = model.table()
        for rows in slices(questions, len(table)):
            batch = TensorBatch.of(questions.take(rows), table.device)
            logits = model(batch) @ table.T
            total += float(functional.cross_entropy(logits, batch.targets, reduction="sum"))
    return total / max(1, len(questions))
