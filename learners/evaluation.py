"""Full ranking in bounded memory: the model's logits, a slice of questions at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from learners.metrics import ranks
from learners.model import SequenceModel, TensorBatch
from learners.sequences import Batch, Ints
from learners.shares import Floats

Logits = Callable[[Ints, int], Floats]
"""Takes rows of the questions, and how many items count: (n,) -> (n, items)."""

_CELLS = 1 << 22  # logits held at once, 4 bytes each
_INPUTS = 512  # inputs that pass through the model at once


def slices(count: int, items: int) -> Iterator[Ints]:
    """Yield rows of `count` questions, so many at a time that logits stay within bounds."""
    size = max(1, min(256, _CELLS // max(1, items)))
    for begin in range(0, count, size):
        yield np.arange(begin, min(begin + size, count))


def answers(questions: Batch) -> Ints:
    """Return the target of each question, (n,)."""
    return questions.targets[np.arange(len(questions)), questions.lengths - 1]


def hidden(model: SequenceModel, questions: Batch) -> Tensor:
    """Return what a model knows after each question, one target each: (n, d)."""
    order = np.argsort(questions.lengths, kind="stable")  # inputs of like length together
    with torch.no_grad():
        parts = [
            model(TensorBatch.of(questions.take(order[begin : begin + _INPUTS]), model.device))
            for begin in range(0, len(order), _INPUTS)
        ]
        known = torch.cat(parts) if parts else torch.zeros(0)
        return known[torch.from_numpy(np.argsort(order)).to(known.device)]


def scorer(model: SequenceModel, questions: Batch) -> Logits:
    """Return what gives a model's logits of some of the questions."""
    table = model.table().detach()
    known = hidden(model, questions)

    def logits(rows: Ints, items: int) -> Floats:
        found: Floats = (known[torch.from_numpy(rows)] @ table[:items].T).cpu().numpy()
        return found

    return logits


def rank(model: SequenceModel, questions: Batch, items: int) -> Ints:
    """Rank the targets among the first `items` items, (n,)."""
    score = scorer(model, questions)
    targets = answers(questions)
    parts = [ranks(score(rows, items), targets[rows]) for rows in slices(len(questions), items)]
    return np.concatenate([np.zeros(0, np.int64), *parts])
