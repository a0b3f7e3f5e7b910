"""Strategies of Avalanche as recipes: the same model, inputs, steps and early stop, other memories.

Lomonaco et al., 2021, "Avalanche: an End-to-End Library for Continual Learning". Next-item
prediction is class-incremental learning: items are classes, a window is an experience. An example
is a sequence with all its targets, as in driftline's own training; where a strategy balances
classes, a sequence belongs to the item that it ends on. The softmax runs over all items.

Avalanche's import takes seconds and its state has no file format but pickle, so this module is
imported only where a strategy of Avalanche's is named, and its learners cannot be saved.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.scenarios import DatasetExperience
from avalanche.benchmarks.utils import (
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
)
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    GDumbPlugin,
    LwFPlugin,
    MASPlugin,
    ReplayPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.plugins.evaluation import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.utils import ParamData
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from learners import training
from learners.catalogue import Renumbering
from learners.model import SequenceModel
from learners.seeds import Seeds
from learners.sequences import Batch, Sequences
from pipeline.settings import Learning

_EWC = 100.0  # strength where the settings leave EWC out
_LWF = 1.0
_SI = 1.0
_MAS = 1.0
_UNUSED = ["model.scale", "model.body.weighing"]  # where output is "state": they get no gradient


def _memory(learning: Learning) -> int:
    return max(1, round(learning.replay * learning.batch))  # replayed inputs in a step


def _synaptic(learning: Learning) -> list[Any]:
    unused = _UNUSED if learning.model.output == "state" else None
    plugin = SynapticIntelligencePlugin(_SI, excluded_parameters=unused)
    return [plugin, _Copies(plugin)]


_PLUGINS: dict[str, Callable[[Learning], list[Any]]] = {
    "naive": lambda _: [],
    "replay": lambda learning: [
        ReplayPlugin(learning.replay_capacity, batch_size_mem=_memory(learning))
    ],
    "ewc": lambda learning: [
        EWCPlugin(learning.ewc or _EWC, "online", decay_factor=learning.ewc_decay)
    ],
    "lwf": lambda _: [LwFPlugin(_LWF)],
    "agem": lambda learning: [AGEMPlugin(learning.replay_capacity, _memory(learning))],
    "gdumb": lambda learning: [GDumbPlugin(learning.replay_capacity)],
    "si": _synaptic,
    "mas": lambda _: [MASPlugin(_MAS)],
}


class Adapter:
    """A recipe (see `learners.recipe.Recipe`) that trains with a strategy of Avalanche's."""

    def __init__(self, name: str, learning: Learning) -> None:
        """Start without memories.

        Args:
            name: of the strategy, a key of `learners.strategies.AVALANCHE`.
            learning: its batch, learning rate, replay, replay capacity and EWC decay count here.
        """
        self.learning = learning
        self.plugins = _PLUGINS[name](learning)
        self.course = _Course()
        self.strategy: Any = None
        self.windows = 0

    @property
    def bytes(self) -> int:
        """Memory taken by the exemplars alone; Avalanche holds the windows that they lie in."""
        found = [held for plugin in self.plugins for held in exemplars(plugin)]
        return sum(
            len(held) * sum(part.nbytes for part in held[0][:2]) for held in found if len(held)
        )

    def fit(
        self,
        challenger: SequenceModel,
        new: Batch,
        *,
        parent: SequenceModel | None,  # noqa: ARG002  Avalanche keeps its own
        known: int,  # noqa: ARG002  all rows are trained alike
        epochs: int,
        frequency: NDArray[np.float32],  # noqa: ARG002  its softmax runs over all items
        seeds: Seeds,
        score: training.Score,
        progress: training.Progress,
    ) -> SequenceModel:
        """Train a challenger, or what the strategy takes in its place; see `Recipe.fit`."""
        torch.manual_seed(seeds.of("training"))  # of dropout and batches
        random.seed(seeds.of("memory"))
        model = Classifier(challenger)
        if self.strategy is None:
            self.strategy = SupervisedTemplate(
                model=model,
                optimizer=training.optimiser_of(challenger, self.learning),
                criterion=cross_entropy,
                train_mb_size=self.learning.batch,
                device=challenger.device,
                plugins=[*self.plugins, self.course],
                evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
            )
        self._prepare(challenger, seeds)
        self.course.begin(epochs, self.learning.learning_rate, score, progress)
        self.strategy.model = model
        self.strategy.optimizer = training.optimiser_of(challenger, self.learning)
        self.strategy.optimized_param_id = None
        self.strategy.train_epochs = epochs
        data = dataset(new, self.learning.model.max_length)
        experience = DatasetExperience(dataset=data, current_experience=self.windows)
        with warnings.catch_warnings(record=True, action="ignore"):  # it warns of itself
            self.strategy.train(experience, eval_streams=[])
        self.windows += 1
        trained: SequenceModel = self.strategy.model.model
        return trained.eval()

    def _prepare(self, challenger: SequenceModel, seeds: Seeds) -> None:
        """Let what the plugins keep grow with the catalogue, and share out the memory anew."""
        shapes = {name: value.shape for name, value in Classifier(challenger).named_parameters()}
        for plugin in self.plugins:
            for model in _models(plugin):
                model.grow(
                    challenger.category,
                    len(challenger.categories),
                    len(challenger.types),
                    torch.Generator().manual_seed(seeds.of("rows")),
                )
            for kept in _parameters(plugin):
                for name, value in kept.items():
                    _grow(value, shapes[name])
            if isinstance(plugin, AGEMPlugin):
                share = self.learning.replay_capacity // (self.windows + 1)
                plugin.patterns_per_experience = share
                plugin.buffers = [
                    held.subset(range(min(share, len(held)))) for held in plugin.buffers
                ]

    def remember(
        self,
        champion: SequenceModel,
        taught: Sequences,
        *,
        frequency: NDArray[np.float32],
        seeds: Seeds,
    ) -> None:
        """Do nothing: the plugins remember at the end of `fit`."""

    def forget(self, owner: str) -> None:
        """Refuse: Avalanche's exemplars have no owners.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"cannot erase {owner!r}: the exemplars of Avalanche have no owners")

    def undo_window(self, start: int, end: int, champion: SequenceModel) -> None:  # noqa: ARG002  the protocol's
        """Refuse: Avalanche's memories cannot be rolled back.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"cannot erase {start} to {end}: Avalanche's memories hold no times")

    def renumber(self, items: Renumbering) -> None:
        """Refuse: items are classes, and Avalanche's memories cannot be told of others.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"cannot drop {np.sum(~items.stays)} items: Avalanche's classes stay")


class Classifier(nn.Module):
    """The model as Avalanche sees one: input in, logits of all classes out."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Items, types, gaps and whether a target is asked (b, 4, l) -> (targets, items)."""
        asked = x[:, 3] > 0
        width = int(asked.any(0).nonzero().max()) + 1  # no batch is wider than its longest input
        items, types, gaps, _ = x[:, :, :width].long().unbind(1)
        hidden = self.model.states(items, types, gaps)[asked[:, :width]]
        logits: Tensor = hidden @ self.model.table().T
        return logits


def cross_entropy(logits: Tensor, following: Tensor) -> Tensor:
    """Return the mean loss over the targets asked for, (): (targets, items), (b, l), -1 if none."""
    return functional.cross_entropy(logits, following[following >= 0].long())


def dataset(batch: Batch, length: int) -> Any:
    """Return inputs of at most `length` events as a data set of Avalanche's.

    An example is ((4, length), (length,)): see `Classifier.forward` and `cross_entropy`. Its class
    is the last item asked for.
    """
    wide = length - batch.items.shape[1]
    columns = (batch.items, batch.types, batch.gaps, batch.targets >= 0)
    x = np.pad(np.stack(columns, axis=1).astype(np.int32), ((0, 0), (0, 0), (0, wide)))
    y = np.pad(batch.targets.astype(np.int32), ((0, 0), (0, wide)), constant_values=-1)
    last = length - 1 - np.argmax(y[:, ::-1] >= 0, axis=1)
    classes = y[np.arange(len(y)), last].tolist()
    return TaskAwareSupervisedClassificationDataset(
        [TensorDataset(torch.from_numpy(x), torch.from_numpy(y))],
        data_attributes=[DataAttribute(classes, "targets"), TaskLabels([0] * len(classes))],
    )


class _Course(SupervisedPlugin):  # type: ignore[misc]  # avalanche ships no types
    """The rest of driftline's training: its learning rate, and the epoch that did best."""

    def begin(
        self, epochs: int, rate: float, score: training.Score, progress: training.Progress
    ) -> None:
        """Get ready for a window."""
        self.epochs, self.rate, self.score, self.progress = epochs, rate, score, progress
        self.done, self.taken, self.best = 0, 0, 0.0
        self.weights: dict[str, Tensor] = {}

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Set the learning rate of a step."""
        steps = self.epochs * len(strategy.dataloader)
        for group in strategy.optimizer.param_groups:
            group["lr"] = self.rate * training.rate_at(self.taken, steps)
        self.taken += 1
        self.progress(self.taken / steps, "training")

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Keep the weights where they did best; take them after the last epoch."""
        self.done += 1
        model = strategy.model.eval()
        found = self.score(model.model)
        if found >= self.best:
            self.best, self.weights = found, copy.deepcopy(model.state_dict())
        if self.done == self.epochs:
            model.load_state_dict(self.weights)
        else:
            model.train()


class _Copies(SupervisedPlugin):  # type: ignore[misc]  # avalanche ships no types
    """Copies of the weights that synaptic intelligence starts from.

    On the CPU it keeps views of the weights themselves, which never differ from them, so that it
    finds nothing important. To be called after it.
    """

    def __init__(self, plugin: Any) -> None:
        super().__init__()
        self.plugin = plugin

    def before_training_exp(self, _: Any, **__: Any) -> None:
        """Copy the weights before a window."""
        _copy(self.plugin.ewc_data[0])

    def before_training_iteration(self, _: Any, **__: Any) -> None:
        """Copy the weights before a step."""
        _copy(self.plugin.syn_data["old_theta"])


def _copy(kept: dict[str, ParamData]) -> None:
    for value in kept.values():
        value.data = value.data.clone()


def exemplars(plugin: Any) -> list[Any]:
    """Return the data sets that a plugin replays from."""
    if isinstance(plugin, AGEMPlugin):
        return list(plugin.buffers)
    policy = getattr(plugin, "storage_policy", None)
    return [] if policy is None else [policy.buffer]


def _models(plugin: Any) -> list[SequenceModel]:
    """Return the models that a plugin keeps."""
    kept = None
    if isinstance(plugin, LwFPlugin):
        kept = plugin.lwf.prev_model
    elif isinstance(plugin, GDumbPlugin):
        kept = plugin.init_model
    return [] if kept is None else [kept.model]


def _parameters(plugin: Any) -> list[dict[str, ParamData]]:
    """Return what a plugin keeps of parameters, by their name."""
    if isinstance(plugin, EWCPlugin):
        return [*plugin.importances.values(), *plugin.saved_params.values()]
    if isinstance(plugin, MASPlugin):
        return [plugin.importance or {}, plugin.params or {}]
    if isinstance(plugin, SynapticIntelligencePlugin):
        return [*plugin.ewc_data, *plugin.syn_data.values()]
    return []


def _grow(kept: ParamData, shape: torch.Size) -> None:
    """Pad with zeros: Avalanche's own `expand` indexes as torch will soon refuse."""
    old = kept.data
    wanted = shape if old.dim() == len(shape) else torch.Size([shape.numel()])
    if old.shape != wanted:
        padded = old.new_zeros(wanted)
        padded[: len(old)] = old
        kept.reset_like(wanted)
        kept.data = padded
