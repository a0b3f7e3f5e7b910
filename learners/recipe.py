"""The ways to make a challenger of a champion, and driftline's own: replay, EWC, distillation."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from learners import evaluation, training
from learners.buffer import SEEING, Buffer, Seen
from learners.catalogue import Renumbering
from learners.ewc import Consolidation, fisher
from learners.low_rank import low_rank
from learners.model import SequenceModel
from learners.seeds import Seeds
from learners.sequences import Batch, Sequences, lessons, questions
from learners.softmax import Sampler
from pipeline.settings import Learning


class Recipe(Protocol):
    """What trains a challenger on a window, and remembers what it needs for the next one."""

    @property
    def bytes(self) -> int:
        """Memory taken by what is remembered of past windows."""

    def fit(
        self,
        challenger: SequenceModel,
        new: Batch,
        *,
        parent: SequenceModel | None,
        known: int,
        epochs: int,
        frequency: NDArray[np.float32],
        seeds: Seeds,
        score: training.Score,
        progress: training.Progress,
    ) -> SequenceModel:
        """Train a challenger, and return what came of it.

        Args:
            challenger: the parent's copy, or new; knows every item.
            new: the window's inputs.
            parent: the champion; none before the first window. It knows every item, too.
            known: items that are not new in the window; the others come behind them.
            epochs: at most so many times over the inputs.
            frequency: (items,) how often items occurred so far.
            seeds: of the window.
            score: how well a model does on the held-out slice, to keep the best epoch.
            progress: told the share of the training that is done.
        """

    def remember(
        self,
        champion: SequenceModel,
        taught: Sequences,
        *,
        frequency: NDArray[np.float32],
        seeds: Seeds,
    ) -> None:
        """Take in a window whose challenger was promoted."""

    def forget(self, owner: str) -> None:
        """Erase an owner's sequences."""

    def undo_window(self, start: int, end: int, champion: SequenceModel) -> None:
        """Take back the window start <= time < end: what it left is erased, the champion restored.

        The champion is that of before; of items that are gone since it has no rows.
        """

    def renumber(self, items: Renumbering) -> None:
        """Give items their new rows, and forget those that are gone."""


class OwnRecipe:
    """Replay, online EWC and distillation from the parent, as the settings switch them on."""

    def __init__(self, learning: Learning, device: torch.device) -> None:
        self.learning = learning
        self.device = device
        self.replay = Buffer(learning.replay_capacity, learning.replay_policy, learning.half_life)
        self.consolidation = Consolidation()

    @property
    def bytes(self) -> int:
        """Memory taken by the sequences remembered for replay."""
        return self.replay.sequences.bytes

    def fit(
        self,
        challenger: SequenceModel,
        new: Batch,
        *,
        parent: SequenceModel | None,
        known: int,
        epochs: int,
        frequency: NDArray[np.float32],
        seeds: Seeds,
        score: training.Score,
        progress: training.Progress,
    ) -> SequenceModel:
        """Train a challenger in place; see `Recipe.fit`."""
        learning = self.learning
        wanted = round(learning.replay * len(new))
        replayed = self.replay.draw(wanted, seeds.random("replay"))
        sampler = None
        if len(frequency) > learning.full_softmax_up_to:
            sampler = Sampler(frequency, learning.negatives, self.device)
        old = lessons(replayed, learning.model.max_length) if replayed else None
        bound: AbstractContextManager[None] = nullcontext()
        if learning.update_rank and parent is not None and not learning.retrain:
            bound = low_rank(challenger, learning.update_rank, known, seeds.of("updates"))
        with bound:
            training.fit(
                challenger,
                training.Lessons(new=new, replayed=old),
                epochs=epochs,
                settings=learning,
                sampler=sampler,
                seed=seeds.of("training"),
                score=score,
                progress=progress,
                parent=parent if learning.distillation > 0 else None,
                consolidation=self.consolidation if learning.ewc > 0 else None,
            )
        return challenger

    def remember(
        self,
        champion: SequenceModel,
        taught: Sequences,
        *,
        frequency: NDArray[np.float32],
        seeds: Seeds,
    ) -> None:
        """Offer the window's sequences to the buffer; measure what was important for them."""
        length = self.learning.model.max_length
        offered = taught.tails(length + 1)
        offered = offered.take(np.flatnonzero(offered.lengths > 1))
        seen = None
        if self.replay.capacity and self.replay.policy in SEEING:
            seen = _look(champion, offered, length)
        self.replay.add(offered, frequency, seeds.random("buffer"), seen)
        if self.learning.ewc > 0:
            drawn = seeds.draw(taught.targets(), self.learning.ewc_samples, "consolidation")
            found = fisher(champion, questions(taught, drawn, length), seeds.of("labels"))
            self.consolidation.absorb(found, champion, self.learning.ewc_decay)

    def forget(self, owner: str) -> None:
        """Erase an owner's sequences."""
        self.replay.forget(owner)

    def undo_window(self, start: int, end: int, champion: SequenceModel) -> None:
        """Erase the sequences that end in the window, and anchor at the champion of before."""
        self.replay.forget_window(start, end)
        self.consolidation.move(champion)

    def renumber(self, items: Renumbering) -> None:
        """Give items their new rows, and forget those that are gone."""
        self.replay.renumber(items)
        self.consolidation.renumber(items)


def _look(model: SequenceModel, sequences: Sequences, length: int) -> Seen:
    """Ask a model for the last event of each sequence."""
    asked = questions(sequences, sequences.starts[1:] - 1, length)
    targets, items = evaluation.answers(asked), len(model.items)
    score = evaluation.scorer(model, asked)
    losses = np.empty(len(asked), np.float32)
    for rows in evaluation.slices(len(asked), items):
        logits = torch.from_numpy(score(rows, items))
        losses[rows] = functional.cross_entropy(
            logits, torch.from_numpy(targets[rows]), reduction="none"
        ).numpy()
    return Seen(states=evaluation.hidden(model, asked).cpu().numpy(), losses=losses)
