"""The continual learner: evaluate, train, gate, checkpoint; window after window."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from learners import checkpoint, evaluation, gate, persistence, state, training
from learners.baselines import Markov, Personal, Popularity, recent
from learners.blend import Blend
from learners.buffer import Buffer
from learners.ewc import Consolidation, fisher
from learners.gate import Verdict
from learners.metrics import MISS, Figures, figures
from learners.model import SequenceModel
from learners.neighbours import Neighbours
from learners.report import Report
from learners.sequences import (
    Batch,
    Catalogue,
    Histories,
    Ints,
    Sequences,
    group,
    lessons,
    questions,
)
from learners.softmax import Sampler
from learners.staleness import Stale, judge
from pipeline.settings import Settings
from pipeline.windows import Window

BLENDED = ("model", "knn", "markov", "personal", "recent")
_START = np.array([0.5, 0.3, 0.1, 0.3, 0.0])
__all__ = ["Learner", "Report"]

_COMPARED = (
    "blend", "popularity", "markov", "knn", "personal", "cold_inclusive", "repeat_free"
)  # fmt: skip
_ANCHORS = 1024  # exemplars of the past that only the gate looks at
_ANCHORED = 0.1  # of a window's sequences, offered as such


def _silent(_fraction: float, _text: str) -> None:
    pass


class Learner:
    """Learns from windows in order of time.

    The same settings and the same windows give the same reports (seconds aside) and the same
    checkpoints, whether or not the learner was saved and loaded in between.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        checkpoints: Path | None = None,
        progress: training.Progress = _silent,
    ) -> None:
        """Start without any knowledge.

        Args:
            settings: of which `seed` and `learning` matter here.
            checkpoints: where checkpoints are written; none writes none.
            progress: told the share of a window's training that is done, and what is done now.
        """
        learning = settings.learning
        self.settings = settings
        self.checkpoints = checkpoints
        self.progress = progress
        self.device = torch.device(learning.device)
        self.catalogue = Catalogue()
        self.histories = Histories(learning.model.max_length)
        self.popularity = Popularity()
        self.markov = Markov(learning)
        self.neighbours = Neighbours(learning)
        self.personal = Personal(learning)
        self.blend = Blend(_START)
        self.replay = Buffer(learning.replay_capacity, learning.replay_policy, learning.half_life)
        self.anchors = Buffer(_ANCHORS, "fading", learning.half_life)
        self.consolidation = Consolidation()
        self.hits: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.sources: dict[str, int] = {}
        self.until = 0
        self.champion: SequenceModel | None = None
        self.champion_id: str | None = None

    def learn(self, window: Window) -> Report:
        """Evaluate on a window as the learner stands before it, then learn from it.

        The gate judges on the newest slice of the window, which no training has seen. What is
        replayed, and the Fisher information, come from windows whose challenger was promoted;
        the counts behind blend and baselines, and the past that the gate looks at, from all, so
        that a change that lasts is let through in the end.
        """
        with _reproducible(self.device, self.settings.learning.threads):
            known = len(self.catalogue.items)
            sequences = self._read(window)
            standing = self._evaluate(sequences, known, window.start)
            trained = self._train(sequences, window.start)
            packed = self._publish(trained, window)
            self._remember(sequences, trained, window)
        return Report(
            window_start=_iso(window.start),
            window_end=_iso(window.end),
            events=len(window.clicks),
            evaluated=standing.evaluated,
            recall=standing.figures["model"].recall,
            mrr=standing.figures["model"].mrr,
            ndcg=standing.figures["model"].ndcg,
            **{name: standing.figures[name] for name in _COMPARED},
            training_seconds=round(trained.seconds, 3),
            decision=trained.verdict.decision,
            reason=trained.verdict.reason,
            checkpoint=packed,
            champion=self.champion_id,
            items=len(self.catalogue.items),
            stale=self._judge(standing.hits),
        )

    def forget(self, user: str) -> None:
        """Erase what is kept of a user: history, exemplars, favourites."""
        self.histories.past = self.histories.past.without(user)
        self.replay.forget(user)
        self.anchors.forget(user)
        self.personal.forget(user)

    def _read(self, window: Window) -> Sequences:
        items, types = self.catalogue.read(window.clicks)
        learning = self.settings.learning
        new, lasting = group(window.clicks, items, types, learning.sequence)
        sequences = self.histories.extend(new, lasting)
        self.histories.drop(window.end - learning.forget_after)
        if self.champion is not None:
            self._grow(self.champion, window.start)
        return sequences

    def _grow(self, model: SequenceModel, start: int) -> None:
        model.grow(
            torch.from_numpy(self.catalogue.category).to(self.device),
            len(self.catalogue.categories),
            len(self.catalogue.types),
            torch.Generator().manual_seed(self._seed(start, "rows")),
        )

    def _evaluate(self, sequences: Sequences, known: int, start: int) -> _Standing:
        learning = self.settings.learning
        targets = self._draw(sequences.targets(), learning.evaluate_at_most, start, "evaluation")
        targets = targets if self.champion is not None else targets[:0]
        met = targets[sequences.items[targets] < known]
        if self.champion is None or not len(met):
            nothing = figures(np.zeros(0, np.int64))
            return _Standing(dict.fromkeys(("model", *_COMPARED), nothing), 0, self.hits[:0])
        self.progress(0.0, "evaluating")
        asked = questions(sequences, met, learning.model.max_length)
        scorers = {
            "model": evaluation.scorer(self.champion),
            "knn": self.neighbours.scores,
            "markov": self.markov.scores,
            "personal": self.personal.scores,
            "recent": recent,
            "popularity": self.popularity.scores,
        }
        ranks = evaluation.compare(scorers, self.blend, BLENDED, asked, known)
        self.blend.learn()
        cold = np.full(len(targets) - len(met), MISS)
        by_name = {name: figures(rank) for name, rank in ranks.items()}
        by_name["cold_inclusive"] = figures(np.concatenate([ranks["model"], cold]))
        by_name["repeat_free"] = figures(ranks["model"][~asked.repeats()])
        in_order = np.argsort(sequences.times[met], kind="stable")
        return _Standing(by_name, len(met), ranks["model"][in_order] <= 20)  # noqa: PLR2004 recall@20

    def _train(self, sequences: Sequences, start: int) -> _Trained:
        began = time.perf_counter()
        learning = self.settings.learning
        length = learning.model.max_length
        targets = sequences.targets()
        if not len(targets):
            return _Trained(verdict=Verdict(decision="none", reason="no sequence of two events"))
        times = sequences.times[targets]
        cutoff = np.sort(times)[int(len(times) * (1 - learning.held_out))]
        older = sequences.select(sequences.times < cutoff)
        new = lessons(older.refreshed(), length)
        if not len(new):
            return _Trained(verdict=Verdict(decision="none", reason="all events at one time"))
        newest = self._draw(targets[times >= cutoff], learning.gate_at_most, start, "gate")
        asked = questions(sequences, newest, length)

        challenger = self._challenger(start)
        wanted = round(learning.replay * len(new))
        replayed = self.replay.draw(wanted, self._random(start, "replay"))
        seen = older.counts(len(self.catalogue.items))
        sampled = len(seen) > learning.full_softmax_up_to
        training.fit(
            challenger,
            training.Lessons(new=new, replayed=lessons(replayed, length) if replayed else None),
            epochs=learning.first_epochs if self.champion is None else learning.epochs,
            settings=learning,
            sampler=Sampler(seen + self.popularity.upto(len(seen)), learning.negatives, self.device)
            if sampled
            else None,
            seed=self._seed(start, "training"),
            loss_on_held_out=lambda model: evaluation.held_out_loss(model, asked),
            progress=self.progress,
            parent=self.champion if learning.distillation > 0 else None,
            consolidation=self.consolidation if learning.ewc > 0 else None,
        )
        self.progress(1.0, "judging")
        return self._gate(challenger, asked, older, began)

    def _challenger(self, start: int) -> SequenceModel:
        if self.champion is not None:
            return copy.deepcopy(self.champion)
        seed = torch.Generator().manual_seed(self._seed(start, "weights"))
        model = SequenceModel(self.settings.learning.model, seed).to(self.device)
        self._grow(model, start)
        return model

    def _gate(
        self, challenger: SequenceModel, asked: Batch, older: Sequences, began: float
    ) -> _Trained:
        items = len(self.catalogue.items)

        def stand(model: SequenceModel, slice_: Batch) -> Figures:
            return figures(evaluation.rank(evaluation.scorer(model), slice_, items))

        newest = stand(challenger, asked)
        if self.champion is None:
            popularity = Popularity()
            popularity.learn(older, 1.0)
            other = figures(evaluation.rank(popularity.scores, asked, items))
            verdict, champion = gate.first(newest.mrr, other.mrr), None
        else:
            champion = stand(self.champion, asked)
            past = self._past()
            pair = None
            if len(past):
                pair = stand(challenger, past).mrr, stand(self.champion, past).mrr
            verdict = gate.judge((newest.mrr, champion.mrr), pair, self.settings.learning)
        return _Trained(
            verdict=verdict,
            challenger=challenger,
            metrics=newest,
            champion_metrics=champion,
            seconds=time.perf_counter() - began,
        )

    def _past(self) -> Batch:
        exemplars = self.anchors.sequences
        last = exemplars.starts[1:] - 1
        most = self.settings.learning.gate_at_most
        return questions(
            exemplars, last[exemplars.lengths > 1][:most], self.settings.learning.model.max_length
        )

    def _publish(self, trained: _Trained, window: Window) -> str | None:
        self.sources |= window.sources
        if trained.challenger is None or trained.metrics is None:
            return None
        packed = checkpoint.pack(
            checkpoint.Manifest(
                parent=self.champion_id,
                window_start=window.start,
                window_end=window.end,
                sources=dict(self.sources),
                settings=self.settings.version,
                model=self.settings.learning.model,
                items=len(self.catalogue.items),
                metrics=trained.metrics,
                champion_metrics=trained.champion_metrics,
                decision=trained.verdict.decision,
                reason=trained.verdict.reason,
            ),
            trained.challenger.state_dict(),
            checkpoint.Names.of(self.catalogue),
        )
        if self.checkpoints is not None:
            checkpoint.write(self.checkpoints, packed)
        if trained.verdict.decision == "promoted":
            self.champion, self.champion_id = trained.challenger, packed.manifest.id
            if self.checkpoints is not None:
                checkpoint.point(self.checkpoints, self.champion_id)
        return packed.manifest.id

    def _remember(self, sequences: Sequences, trained: _Trained, window: Window) -> None:
        learning = self.settings.learning
        passed = window.end - self.until if self.until else 0
        factor = 0.5 ** (passed / learning.half_life)
        for counting in (self.popularity, self.markov, self.neighbours, self.personal):
            counting.learn(sequences, factor)
        self.until = window.end
        random = self._random(window.start, "buffer")
        exemplars = sequences.tails(learning.model.max_length + 1)
        anchored = random.random(len(exemplars)) < _ANCHORED
        frequency = self.popularity.counts
        self.anchors.add(exemplars.take(np.flatnonzero(anchored)), frequency, random)
        if self.champion is None or trained.verdict.decision != "promoted":
            return
        self.replay.add(exemplars.take(np.flatnonzero(~anchored)), frequency, random)
        if learning.ewc > 0:
            drawn = self._draw(
                sequences.targets(), learning.ewc_samples, window.start, "consolidation"
            )
            asked = questions(sequences, drawn, learning.model.max_length)
            seed = self._seed(window.start, "labels")
            self.consolidation.absorb(
                fisher(self.champion, asked, seed), self.champion, learning.ewc_decay
            )

    def _judge(self, hits: NDArray[np.bool_]) -> Stale | None:
        learning = self.settings.learning
        self.hits = np.concatenate([self.hits, hits])[-learning.stale_memory :]
        stale, current = judge(self.hits, learning.stale_detector)
        self.hits = self.hits[len(self.hits) - current :]
        return stale

    def _seed(self, start: int, purpose: str) -> int:
        """Return a seed that settings, window and purpose decide alone."""
        text = f"{self.settings.seed}/{start}/{purpose}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:7])

    def _random(self, start: int, purpose: str) -> np.random.Generator:
        return np.random.default_rng(self._seed(start, purpose))

    def _draw(self, targets: Ints, most: int, start: int, purpose: str) -> Ints:
        drawn = self._random(start, purpose).permutation(targets)
        return drawn[:most] if most > 0 else drawn

    def save(self, directory: Path) -> None:
        """Write all that the learner knows, in one step that is seen whole or not at all."""
        state.write(directory, persistence.collect(self))

    @classmethod
    def load(
        cls,
        directory: Path,
        settings: Settings,
        *,
        checkpoints: Path | None = None,
        progress: training.Progress = _silent,
    ) -> Learner:
        """Go on where `save` stopped.

        Raises:
            StateError: the state is missing, damaged, or of other settings.
        """
        learner = cls(settings, checkpoints=checkpoints, progress=progress)
        persistence.restore(learner, state.read(directory), str(directory))
        return learner


@dataclass(frozen=True, slots=True)
class _Standing:
    """How the learner stood before a window."""

    figures: dict[str, Figures]
    evaluated: int
    hits: NDArray[np.bool_]  # (evaluated,) of the model, by time


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    """What came of training on a window."""

    verdict: Verdict
    challenger: SequenceModel | None = None
    metrics: Figures | None = None
    champion_metrics: Figures | None = None
    seconds: float = 0.0


@contextmanager
def _reproducible(device: torch.device, threads: int) -> Iterator[None]:
    """Keep to deterministic algorithms and leave torch's own state as it was."""
    before, threads_before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(device.type == "cpu" or before)
    try:
        with torch.random.fork_rng([] if device.type == "cpu" else [device]):
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(threads_before)


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
