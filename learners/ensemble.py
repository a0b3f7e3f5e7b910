"""The recommenders beside the model, their blend with it, and how all of them stand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from learners import evaluation
from learners.baselines import Markov, Personal, Popularity
from learners.blend import Blend
from learners.catalogue import Renumbering
from learners.metrics import CUT, MISS, Figures, figures
from learners.model import SequenceModel
from learners.neighbours import Neighbours
from learners.sequences import Batch, Ints, Sequences, concatenate, questions
from learners.shares import Floats, Shares
from pipeline.settings import Learning

BLENDED = ("model", "knn", "markov", "personal", "again")
COMPARED = ("model", "blend", "knn", "markov", "personal", "popularity")
_START = np.array([0.1, 0.7, 0.0, 0.1, 0.0])  # weights before any window
_OBSERVED = 4096  # targets that the blend learns from in a window


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """A window's n questions, by time.

    A sequence in which no item is new is asked about as it is. Of one in which some are, the
    targets are asked twice: as the protocol has it, new items left out, and as it happened.
    """

    questions: Batch
    times: Ints  # (n,) of the targets
    protocol: NDArray[np.bool_]  # (n,) without what is new
    happened: NDArray[np.bool_]  # (n,) nothing left out

    @classmethod
    def of(
        cls,
        sequences: Sequences,
        known: int,
        *,
        length: int,
        most: int,
        random: np.random.Generator,
    ) -> Exam:
        """Ask for the fresh events of sequences.

        Args:
            sequences: of the window, with the history before it.
            known: items seen before the window.
            length: events of an input, at most.
            most: targets drawn where there are more; 0 takes all.
            random: of the draw.
        """
        new = np.bincount(
            np.repeat(np.arange(len(sequences)), sequences.lengths)[sequences.items >= known],
            minlength=len(sequences),
        )
        plain = sequences.take(np.flatnonzero(new == 0))
        mixed = sequences.take(np.flatnonzero(new))
        cut = mixed.select(mixed.items < known)
        parts = [part.targets() for part in (plain, cut, mixed)]
        share = min(1.0, most / max(1, len(parts[0]) + len(parts[1]))) if most else 1.0
        drawn = [
            random.permutation(part)[: round(share * len(part))] if share < 1 else part
            for part in parts
        ]
        asked = concatenate(
            [
                questions(part, targets, length)
                for part, targets in zip((plain, cut, mixed), drawn, strict=True)
            ]
        )
        times = np.concatenate(
            [part.times[at] for part, at in zip((plain, cut, mixed), drawn, strict=True)]
        )
        kind = np.repeat(np.arange(3), [len(at) for at in drawn])
        order = np.argsort(times, kind="stable")
        return cls(
            questions=asked.take(order),
            times=times[order],
            protocol=kind[order] <= 1,
            happened=kind[order] != 1,
        )

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the recommenders stood before a window."""

    figures: dict[str, Figures]
    """By recommender: targets known before, ranked among the items known before."""
    repeat_free: dict[str, Figures]
    """The same over the targets that are not in their own input."""
    cold_inclusive: dict[str, Figures]
    """Nothing left out, ranked among all items; an item never seen before counts as a miss."""
    evaluated: int
    hits: NDArray[np.bool_]  # (evaluated,) of the model, by time


class Ensemble:
    """Everything that counts rather than trains, and the blend."""

    def __init__(self, settings: Learning) -> None:
        self.settings = settings
        self.popularity = Popularity()
        self.markov = Markov(settings)
        self.neighbours = Neighbours(settings)
        self.personal = Personal(settings)
        self.blend = Blend(_START)

    @property
    def bytes(self) -> int:
        """Memory taken by pairs counted."""
        return sum(part.counts.bytes for part in (self.markov, self.neighbours, self.personal))

    def learn(self, sequences: Sequences, since: int, factor: float) -> None:
        """Count a window's events; what was counted before it fades by a factor.

        The neighbours have absorbed the fresh events before `since` already.
        """
        for counting in (self.popularity, self.markov, self.personal):
            counting.learn(sequences, factor)
        left = sequences.fresh & (sequences.times >= since)
        self.neighbours.absorb(replace(sequences, fresh=left))
        self.neighbours.settle(factor)

    def renumber(self, items: Renumbering) -> None:
        """Give items their new rows, and forget those that are gone."""
        for counting in (self.popularity, self.markov, self.neighbours, self.personal):
            counting.renumber(items)

    def stand(
        self, model: SequenceModel, exam: Exam, sequences: Sequences, known: int
    ) -> tuple[Standing, int]:
        """Rank an exam's targets; let the neighbours absorb the window as far as it is over.

        Every question is answered with what lies before its part of the window: the model and
        the baselines as they stood before all of it, the neighbours with the events before the
        part too. The blend's weights are those of past windows, and learnt at the end.

        Returns:
            How all stand, and the time before which the neighbours have absorbed all events.
        """
        asked, items = exam.questions, len(model.items)
        targets = evaluation.answers(asked)
        found = {name: np.empty((2, len(exam)), np.int64) for name in COMPARED}
        found["popularity"][:] = [self.popularity.ranks(targets, n) for n in (known, items)]
        score = evaluation.scorer(model, asked)
        unheard = targets >= known
        since, observed = 0, 0
        for part in np.array_split(np.arange(len(exam)), max(1, self.settings.absorptions)):
            if self.settings.absorptions and len(part):
                until = int(exam.times[part[0]])
                self._absorb(sequences, since, until)
                since = until
            unheard[part] &= ~self.neighbours.met(targets[part])
            for rows in (part[at] for at in evaluation.slices(len(part), items)):
                observe = observed * len(exam) <= _OBSERVED * int(rows[0])
                observed += observe * len(rows)
                ranked = self._rank(
                    asked.take(rows), targets[rows], score(rows, items), known, observe=observe
                )
                for name, pair in ranked.items():
                    found[name][:, rows] = pair
        self.blend.learn()
        return _standing(exam, found, unheard), since

    def mix(self, batch: Batch, logits: Floats) -> Floats:
        """Turn the model's logits for b inputs, (b, items), into the blend's scores, in place."""
        experts = self._experts(batch, logits.shape[1])
        return self.blend.mix(logits, [experts[name].logs() for name in BLENDED[1:]])

    def _experts(self, batch: Batch, items: int) -> dict[str, Shares]:
        """Return by name what those beside the model say of the first `items` items."""
        return {
            "knn": self.neighbours.scores(batch, items),
            "markov": self.markov.scores(batch, items),
            "personal": self.personal.scores(batch, items),
            "again": self.neighbours.returns(batch, items),
        }

    def _absorb(self, sequences: Sequences, since: int, until: int) -> None:
        now = sequences.fresh & (sequences.times >= since) & (sequences.times < until)
        self.neighbours.absorb(replace(sequences, fresh=now))

    def _rank(
        self, batch: Batch, targets: Ints, logits: Floats, known: int, *, observe: bool
    ) -> dict[str, Ints]:
        """Rank targets (b,) by all that see the input; `logits` (b, items) are overwritten.

        Returns:
            By name (2, b): ranks among the known items, and among all.
        """
        items = logits.shape[1]
        others = self._experts(batch, items)
        found = {
            name: np.stack([shares.ranks(targets, n) for n in (known, items)])
            for name, shares in others.items()
            if name in COMPARED
        }
        found["model"] = _both(logits, targets, known)
        logs = [others[name].logs() for name in BLENDED[1:]]
        experts = [logits.copy(), *(shares.dense(items) for shares in logs)] if observe else []
        pooled = self.blend.mix(logits, logs)
        found["blend"] = _both(pooled, targets, known)
        if observe:
            cut = min(CUT, items)
            best = np.argpartition(pooled, -cut, axis=1)[:, -cut:]
            shown = [np.take_along_axis(expert, best, axis=1) for expert in experts]
            self.blend.observe(np.stack(shown, axis=2), best == targets[:, None])
        return found


def nothing() -> Standing:
    """Return how one stands who was asked nothing."""
    none = dict.fromkeys(COMPARED, figures(np.zeros(0, np.int64)))
    return Standing(
        figures=none,
        repeat_free=none,
        cold_inclusive=none,
        evaluated=0,
        hits=np.zeros(0, np.bool_),
    )


def _both(scores: Floats, targets: Ints, known: int) -> Ints:
    """Rank targets among the first `known` items and among all, (2, n); see `metrics.ranks`."""
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    behind = np.count_nonzero(scores[:, :known] < own, axis=1)
    behind_new = np.count_nonzero(scores[:, known:] < own, axis=1)
    return np.stack([known - behind, scores.shape[1] - behind - behind_new])


def _standing(exam: Exam, found: dict[str, Ints], unheard: NDArray[np.bool_]) -> Standing:
    strict, happened = exam.protocol, exam.happened
    other = strict & ~exam.questions.repeats()
    return Standing(
        figures={name: figures(pair[0, strict]) for name, pair in found.items()},
        repeat_free={name: figures(pair[0, other]) for name, pair in found.items()},
        cold_inclusive={
            name: figures(np.where(unheard, MISS, pair[1])[happened])
            for name, pair in found.items()
        },
        evaluated=int(strict.sum()),
        hits=found["model"][0, strict] <= CUT,
    )
