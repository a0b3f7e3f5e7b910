"""The continual learner: evaluate, train, gate, checkpoint; window after window."""

from __future__ import annotations

import copy
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from learners import checkpoint, evaluation, gate, persistence, state, training
from learners.baselines import Popularity
from learners.buffer import Buffer
from learners.catalogue import Catalogue, Renumbering
from learners.ensemble import Ensemble, Exam, Standing, nothing
from learners.forgetting import Probes, Retention, iso
from learners.gate import Verdict
from learners.metrics import Figures, figures
from learners.model import SequenceModel
from learners.recipe import OwnRecipe, Recipe
from learners.report import Report, slices
from learners.reproducible import reproducible
from learners.seeds import Seeds
from learners.sequences import (
    Batch,
    Histories,
    Ints,
    Sequences,
    group,
    lessons,
    questions,
)
from learners.signing import keys
from learners.staleness import Stale, judge
from pipeline.settings import Settings, SettingsError
from pipeline.windows import Window

__all__ = ["Learner", "Report"]

_ANCHORS = 1024  # exemplars of the past that only the gate looks at
_ANCHORED = 0.1  # of a window's sequences, offered as such
_PRINTS = 200_000  # sequences known again
_FEW = 256  # so many of them at most


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
        recipe: Recipe | None = None,
    ) -> None:
        """Start without any knowledge.

        Args:
            settings: of which `seed` and `learning` matter here.
            checkpoints: where checkpoints are written; none writes none.
            progress: told the share of a window's training that is done, and what is done now.
            recipe: what trains the challengers; none takes driftline's own.

        Raises:
            SettingsError: there is no such device as `learning.device` here.
            KeyFileError: a key file that the settings name is none.
        """
        learning = settings.learning
        self.settings = settings
        self.checkpoints = checkpoints
        self.signer, self.trusted = keys(settings.signing)
        self.progress = progress
        self.device = _device(learning.device)
        self.catalogue = Catalogue()
        self.histories = Histories(learning.model.max_length)
        self.ensemble = Ensemble(learning)
        self.recipe: Recipe = OwnRecipe(learning, self.device) if recipe is None else recipe
        self.anchors = Buffer(_ANCHORS, "fading", learning.half_life)
        self.probes = Probes(learning.probes, learning.probe_targets, learning.model.max_length)
        self.prints: gate.Prints = np.zeros(0, np.uint64)
        self.hits: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.sources: dict[str, int] = {}
        self.until = 0
        self.champion: SequenceModel | None = None
        self.champion_id: str | None = None

    def learn(self, window: Window) -> Report:
        """Evaluate on a window as the learner stands before it, then learn from it.

        A window that the gate refuses as no record of interests leaves nothing but its report.
        The gate judges on the newest slice of the window, which no training has seen. What is
        replayed, and the Fisher information, come from windows whose challenger was promoted;
        the counts behind blend and baselines, and the past that the gate looks at, from all, so
        that a change that lasts is let through in the end.
        """
        seeds = Seeds(self.settings.seed, window.start)
        with reproducible(self.device, self.settings.learning.threads):
            self.follow_rollback()
            before, self.catalogue = self.catalogue, copy.deepcopy(self.catalogue)
            known = len(before.items)
            new, lasting = self._group(window)
            prints = gate.prints(new, self.catalogue.items.names)
            refused = gate.refuse(new, prints, self.prints, self.settings.learning)
            if refused:
                self.catalogue = before
                trained = _Trained(verdict=Verdict(decision="rejected", reason=refused))
                return self._report(window, nothing(), trained, None, Retention())
            self.prints = np.concatenate([self.prints, prints])[-_PRINTS:]
            sequences, teachable = self._extend(new, lasting, window)
            told = self.catalogue.category[known:]
            self._grow(self.champion, np.concatenate([before.category, told]), seeds)
            standing, absorbed = self._evaluate(sequences, known, seeds)
            self._count(sequences, window, absorbed)
            self._grow(self.champion, self.catalogue.category, seeds)
            items = self._expire(sequences)
            if items is not None:
                sequences, teachable = sequences.renumbered(items), teachable.renumbered(items)
                known = int(items.stays[:known].sum())
            held = self._held(sequences, seeds)
            rows = np.flatnonzero(~held)
            taught = sequences.take(rows)
            trained = self._train(taught, teachable.take(rows), seeds, known=known)
            with checkpoint.alone(self.checkpoints) if self.checkpoints else nullcontext():
                trained, packed = self._publish(self._unless_rolled_back(trained), window)
            self._remember(taught, sequences.take(np.flatnonzero(held)), trained, seeds)
            retention = self._ask()
        return self._report(window, standing, trained, packed, retention)

    def follow_rollback(self) -> None:
        """Go back where the champion was rolled back; what its window left for replay goes too."""
        if self.checkpoints is None:
            return
        hops = checkpoint.rolled_back(self.checkpoints)
        while self.champion_id in hops:
            gone = checkpoint.load(self.checkpoints / self.champion_id).manifest
            self.champion_id = hops[self.champion_id]
            packed = checkpoint.load(self.checkpoints / self.champion_id, self.trusted)
            model = SequenceModel.restore(packed.manifest.model, packed.tensors())
            model.renumber(self.catalogue.items.since(packed.names().items))
            self.champion = model.to(self.device)
            self.histories.unmark(gone.window_start, gone.window_end)
            self.recipe.undo_window(gone.window_start, gone.window_end, self.champion)

    def _report(
        self,
        window: Window,
        standing: Standing,
        trained: _Trained,
        packed: str | None,
        retention: Retention,
    ) -> Report:
        return Report(
            window_start=iso(window.start),
            window_end=iso(window.end),
            events=len(window.clicks),
            evaluated=standing.evaluated,
            **slices(standing),
            training_seconds=round(trained.seconds, 3),
            buffer_bytes=self.recipe.bytes,
            counts_bytes=self.ensemble.bytes,
            retention=retention,
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
        self.recipe.forget(user)
        self.probes.forget(user)
        self.anchors.forget(user)
        self.ensemble.personal.forget(user)

    def _group(self, window: Window) -> tuple[Sequences, NDArray[np.bool_]]:
        items, types = self.catalogue.read(window.clicks)
        return group(window.clicks, items, types, self.settings.learning.sequence)

    def _extend(
        self, new: Sequences, lasting: NDArray[np.bool_], window: Window
    ) -> tuple[Sequences, Sequences]:
        """Put the window's sequences behind what is known of their owners; see `Histories`."""
        learning = self.settings.learning
        extended = self.histories.extend(new.tails(learning.most_events), lasting)
        self.histories.drop(window.end - learning.forget_after)
        return extended

    def _grow(self, model: SequenceModel | None, category: Ints, seeds: Seeds) -> None:
        """Give a model rows for all that is known, and each item its category, (items,)."""
        if model is None:
            return
        model.grow(
            torch.from_numpy(category).to(self.device),
            len(self.catalogue.categories),
            len(self.catalogue.types),
            torch.Generator().manual_seed(seeds.of("rows")),
        )

    def _evaluate(self, sequences: Sequences, known: int, seeds: Seeds) -> tuple[Standing, int]:
        """Return how all stand, and the time up to which the window was absorbed."""
        learning = self.settings.learning
        if self.champion is None or not len(sequences):
            return nothing(), 0
        self.progress(0.0, "evaluating")
        exam = Exam.of(
            sequences,
            known,
            length=learning.model.max_length,
            most=learning.evaluate_at_most,
            random=seeds.random("evaluation"),
        )
        return self.ensemble.stand(self.champion, exam, sequences, known)

    def _train(
        self, sequences: Sequences, teachable: Sequences, seeds: Seeds, *, known: int
    ) -> _Trained:
        """Train a challenger; `teachable` are the sequences, fresh being what it may learn."""
        began = time.perf_counter()
        learning = self.settings.learning
        length = learning.model.max_length
        targets = sequences.targets()
        if not len(targets):
            return _Trained(verdict=Verdict(decision="none", reason="no sequence of two events"))
        times = sequences.times[targets]
        cutoff = np.sort(times)[int(len(times) * (1 - learning.held_out))]
        older = teachable.select(teachable.times < cutoff)
        new = lessons(older, length)
        if not len(new):
            return _Trained(verdict=Verdict(decision="none", reason="all events at one time"))
        newest = seeds.draw(targets[times >= cutoff], learning.gate_at_most, "gate")
        asked = questions(sequences, newest, length)
        fresh = self.champion is None or learning.retrain
        items = len(self.catalogue.items)
        challenger = self.recipe.fit(
            self._challenger(seeds),
            new,
            parent=self.champion,
            known=known,
            epochs=learning.first_epochs if fresh else learning.epochs,
            frequency=self.ensemble.popularity.upto(items),
            seeds=seeds,
            score=lambda model: figures(evaluation.rank(model, asked, items)).mrr,
            progress=self.progress,
        )
        self.progress(1.0, "judging")
        return self._gate(challenger, asked, older, began)

    def _challenger(self, seeds: Seeds) -> SequenceModel:
        if self.champion is not None and not self.settings.learning.retrain:
            return copy.deepcopy(self.champion)
        generator = torch.Generator().manual_seed(seeds.of("weights"))
        model = SequenceModel(self.settings.learning.model, generator).to(self.device)
        self._grow(model, self.catalogue.category, seeds)
        return model

    def _gate(
        self, challenger: SequenceModel, asked: Batch, older: Sequences, began: float
    ) -> _Trained:
        items = len(self.catalogue.items)

        def stand(model: SequenceModel, slice_: Batch) -> Figures:
            return figures(evaluation.rank(model, slice_, items))

        newest = stand(challenger, asked)
        if self.champion is None:
            popularity = Popularity()
            popularity.learn(older, 1.0)
            other = figures(popularity.ranks(evaluation.answers(asked), items))
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

    def _unless_rolled_back(self, trained: _Trained) -> _Trained:
        """Reject a challenger whose parent was rolled back while it was trained."""
        if trained.challenger is None or not self._was_rolled_back(self.champion_id):
            return trained
        reason = f"{self.champion_id}, which it was trained from, was rolled back meanwhile"
        return replace(trained, verdict=Verdict(decision="rejected", reason=reason))

    def _was_rolled_back(self, number: str | None) -> bool:
        return self.checkpoints is not None and number in checkpoint.rolled_back(self.checkpoints)

    def _past(self) -> Batch:
        exemplars = self.anchors.sequences
        last = exemplars.starts[1:] - 1
        most = self.settings.learning.gate_at_most
        return questions(
            exemplars, last[exemplars.lengths > 1][:most], self.settings.learning.model.max_length
        )

    def _publish(self, trained: _Trained, window: Window) -> tuple[_Trained, str | None]:
        """Write the checkpoint, if there is one, and promote it; return its id.

        A window that is learnt again after a crash gives the same id: where that was rolled back
        since, it is rejected, under that same id.
        """
        self.sources |= window.sources
        if trained.challenger is None or trained.metrics is None:
            return trained, None
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
            self.signer,
        )
        if self.checkpoints is not None:
            checkpoint.write(self.checkpoints, packed)
        number = packed.manifest.id
        if self._was_rolled_back(number):
            verdict = Verdict(decision="rejected", reason=f"{number} was rolled back")
            return replace(trained, verdict=verdict), number
        if trained.verdict.decision == "promoted":
            self.champion, self.champion_id = trained.challenger, number
            if self.checkpoints is not None:
                checkpoint.point(self.checkpoints, number)
        return trained, number

    def _count(self, sequences: Sequences, window: Window, absorbed: int) -> None:
        passed = window.end - self.until if self.until else 0
        factor = 0.5 ** (passed / self.settings.learning.half_life)
        self.ensemble.learn(sequences, absorbed, factor)
        self.until = window.end

    def _expire(self, sequences: Sequences) -> Renumbering | None:
        """Drop the items that too many windows went by without; tell which, where there are any.

        Neither training nor gate nor checkpoint sees their rows or events any more. A window that
        teaches nothing, as when a source fails, does not count.
        """
        most = self.settings.learning.item_windows
        if not len(sequences.targets()):
            return None
        self.catalogue.pass_window(sequences.items[sequences.fresh])
        if not most or self.catalogue.unseen.max() < most:
            return None
        items = self.catalogue.expire(most)
        self.histories.past = self.histories.past.renumbered(items)
        for holder in (self.ensemble, self.recipe, self.anchors, self.probes, self.champion):
            if holder is not None:
                holder.renumber(items)
        return items

    def _held(self, sequences: Sequences, seeds: Seeds) -> NDArray[np.bool_]:
        """Draw the sequences that no training sees, only the gate and the probes, (n,)."""
        share = min(_ANCHORED, _FEW / max(1, len(sequences)))
        return seeds.random("anchors").random(len(sequences)) < share

    def _remember(
        self, taught: Sequences, held: Sequences, trained: _Trained, seeds: Seeds
    ) -> None:
        items = len(self.catalogue.items)
        frequency = self.ensemble.popularity.upto(items)
        held = held.tails(self.settings.learning.model.max_length + 1)
        self.anchors.add(held, frequency, seeds.random("past"))
        self.probes.add(held, start=seeds.start, items=items)
        if self.champion is not None and trained.verdict.decision == "promoted":
            self.recipe.remember(self.champion, taught, frequency=frequency, seeds=seeds)
            self.histories.mark(set(taught.owners), seeds.start)

    def _ask(self) -> Retention:
        if self.champion is None:
            return Retention()
        self.progress(1.0, "asking about the past")
        return self.probes.ask(self.champion)

    def _judge(self, hits: NDArray[np.bool_]) -> Stale | None:
        learning = self.settings.learning
        self.hits = np.concatenate([self.hits, hits])[-learning.stale_memory :]
        stale, current = judge(self.hits, learning.stale_detector)
        self.hits = self.hits[len(self.hits) - current :]
        return stale

    def save(self, directory: Path) -> None:
        """Write all that the learner knows, in one step that is seen whole or not at all."""
        state.write(directory, persistence.collect(self))

    @classmethod
    def load(
        cls,
        directory: Path,
        settings: Settings | None = None,
        *,
        checkpoints: Path | None = None,
        progress: training.Progress = _silent,
    ) -> Learner:
        """Go on where `save` stopped; without settings under those that it was saved under.

        Raises:
            StateError: the state is missing, damaged, or of other settings.
        """
        kept = state.read(directory)
        if settings is None:
            settings = persistence.settings_of(kept, str(directory))
        learner = cls(settings, checkpoints=checkpoints, progress=progress)
        persistence.restore(learner, kept, str(directory))
        return learner


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    """What came of training on a window."""

    verdict: Verdict
    challenger: SequenceModel | None = None
    metrics: Figures | None = None
    champion_metrics: Figures | None = None
    seconds: float = 0.0


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise SettingsError(
            f'learning.device = "{name}" cannot be used here: {reason}; write "cpu", or "cuda" '
            "where there is a GPU"
        ) from None
    return device
