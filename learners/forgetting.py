"""What a champion still knows of past windows: the matrix of checkpoints against windows.

Lopez-Paz and Ranzato, 2017, "Gradient Episodic Memory for Continual Learning", section 2: with
R[i, j] the figure on window j after learning window i, backward transfer is the mean over j of
R[i, j] - R[j, j], and the mean of R[j, j] says what was learnt of each window when it was new. A
window is asked by sequences that no training has seen, its targets ranked among the items known at
its end, so that a growing catalogue is not taken for forgetting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec
import numpy as np

from learners import evaluation
from learners.catalogue import Renumbering
from learners.metrics import Figures, figures
from learners.model import SequenceModel
from learners.sequences import Batch, Sequences, questions


class Retained(msgspec.Struct, frozen=True, kw_only=True):
    """How the champion does on one past window, and how it did right after that window."""

    window_start: str
    now: Figures
    then: Figures


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What a champion knows of the windows past and of the newest: a row of the matrix."""

    learnt: Figures | None = None
    """Of the newest window; None where nothing was held of it."""
    past: list[Retained] = []
    backward_transfer: Figures | None = None
    """The mean over `past` of now less then; None where it is empty."""
    bytes: int = 0
    """Memory taken by the sequences that are asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A past window's held sequences."""

    number: int
    """Of the windows probed, counted from 0."""
    start: int
    """Of the window, in milliseconds."""
    items: int
    """Known at its end; the targets are ranked among them."""
    sequences: Sequences
    then: Figures | None = None
    """Of the champion right after the window."""


class Probes:
    """Held sequences of at most `most` past windows, and of the newest.

    Where there are more, every second is dropped, again and again, so that those kept lie evenly
    over the past, and the cost of a window does not grow with their number.
    """

    def __init__(self, most: int, targets: int, length: int) -> None:
        """Start without any.

        Args:
            most: past windows kept; 0 asks none.
            targets: asked of a window, at most.
            length: events of an input, at most.
        """
        self.most = most
        self.targets = targets
        self.length = length
        self.kept: list[Probe] = []
        self.added = 0

    def add(self, sequences: Sequences, *, start: int, items: int) -> None:
        """Take in the newest window by the sequences held of it."""
        if not self.most or not len(sequences.targets()):
            return
        probe = Probe(number=self.added, start=start, items=items, sequences=sequences)
        stride = 1
        while -(-self.added // stride) > self.most:
            stride *= 2
        self.kept = [*(old for old in self.kept if old.number % stride == 0), probe]
        self.added += 1

    def ask(self, model: SequenceModel) -> Retention:
        """Ask a model about the past windows, and about the one added since the last time."""
        past, newest = [], None
        for place, probe in enumerate(self.kept):
            now = figures(evaluation.rank(model, self._questions(probe), probe.items))
            if probe.then is None:
                newest, self.kept[place] = now, replace(probe, then=now)
            else:
                past.append(Retained(window_start=iso(probe.start), now=now, then=probe.then))
        return Retention(
            learnt=newest,
            past=past,
            backward_transfer=_transfer(past) if past else None,
            bytes=sum(probe.sequences.bytes for probe in self.kept),
        )

    def _questions(self, probe: Probe) -> Batch:
        asked = probe.sequences.targets()[: self.targets]
        return questions(probe.sequences, asked, self.length)

    def forget(self, owner: str) -> None:
        """Erase an owner's sequences."""
        self._keep([replace(old, sequences=old.sequences.without(owner)) for old in self.kept])

    def renumber(self, items: Renumbering) -> None:
        """Give items their new rows; those that are gone are not asked for any more.

        What the champions of then did stays as it was measured, targets that are gone and all.
        """
        self._keep(
            [
                replace(
                    old,
                    items=int(items.stays[: old.items].sum()),
                    sequences=old.sequences.renumbered(items),
                )
                for old in self.kept
            ]
        )

    def _keep(self, probes: list[Probe]) -> None:
        self.kept = [probe for probe in probes if len(probe.sequences.targets())]


def _transfer(past: list[Retained]) -> Figures:
    now, then = (
        np.array([(one.recall, one.mrr, one.ndcg) for one in half])  # (windows, 3)
        for half in ([window.now for window in past], [window.then for window in past])
    )
    recall, mrr, ndcg = (now - then).mean(axis=0).tolist()
    return Figures(recall=recall, mrr=mrr, ndcg=ndcg)


def iso(milliseconds: int) -> str:
    """Return a time since the epoch as ISO text, UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
