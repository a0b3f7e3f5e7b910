"""What would be shown next: the best items after a history, by a model or by a learner's blend.

A checkpoint holds the model alone. The blend is what the learner's reports call so: the model and
all that the learner counts, with users' histories, out of the learner's state.

Of a small catalogue every item is scored. Of a large one those are whose group lies near: an
inverted file over k-means groups (Jégou, Douze & Schmid 2011, "Product Quantization for Nearest
Neighbor Search", section IV; Douze et al. 2024, "The Faiss Library"), for which
`driftline[index]` has to be installed. Without it every item is scored, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.checkpoint import Checkpoint, Names
from learners.continual import Learner
from learners.evaluation import hidden, scorer
from learners.model import SequenceModel
from learners.sequences import Batch, Ints, Sequences, empty, join, questions
from learners.state import StateError

EXACT = 100_000
"""Up to so many items all are scored: the index of as many takes seconds to make."""

_MINUTE = 60_000  # milliseconds
_GROUPS_A_ROOT = 4  # groups for each unit of the root of the number of items
_NEAR = 32  # groups that are looked into
_LEAST, _MOST = 39, 64  # items that a group is made from

_Search = Callable[[Tensor, int], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Takes what a model knows (d,) and how many items are wanted; gives logits and rows, (n,) each."""


class UnknownItemsError(LookupError):
    """Nothing is known of a history: neither of its items nor of its user."""


class _Shown:
    """The items that can be shown, and histories of them."""

    def __init__(self, names: Names, rows: Mapping[str, int], category: Ints | Tensor) -> None:
        """Take what rows stand for, those of the items to be shown, and all items' categories."""
        self._names = names
        self._rows = rows
        self._category = category

    def __len__(self) -> int:
        """The number of items that can be shown."""
        return len(self._rows)

    def category(self, item: str) -> str:
        """Return the category of an item that is known, "" where it has none."""
        return self._names.categories[int(self._category[self._rows[item]])]

    def unknown(self, items: Sequence[str]) -> list[str]:
        """Return those of some items that are not known."""
        return [item for item in items if item not in self._rows]

    def _history(
        self, items: Sequence[str], times: Sequence[int] | None, kind: str, first: int = 0
    ) -> Sequences:
        """Return a history of the items known; by default a minute apart, from `first` on."""
        if times is None:
            times = [first + _MINUTE * at for at in range(len(items))]
        rows = self._rows
        known = [(rows[item], at) for item, at in zip(items, times, strict=True) if item in rows]
        if not known:
            return empty()
        found, at = np.array(known, np.int64).T
        return Sequences(
            owners=[""],
            starts=np.array([0, len(known)]),
            items=found,
            types=np.full(len(known), self._type(kind)),
            times=at,
            fresh=np.ones(len(known), np.bool_),
        )

    def _type(self, kind: str) -> int:
        """Return a type's row; of one unknown that of the type met first, behind that for none."""
        kinds = self._names.types
        return kinds.index(kind) if kind and kind in kinds else min(1, len(kinds) - 1)


class Recommender(_Shown):
    """The best items after a history, by one model."""

    def __init__(self, model: SequenceModel, names: Names, *, exact_up_to: int = EXACT) -> None:
        """Take a model, and what its rows stand for."""
        rows = {name: row for row, name in enumerate(names.items) if name}
        super().__init__(names, rows, model.category)
        self._model = model
        self._length = len(model.positions)
        self._shown = list(rows)
        table = model.table().detach()[list(rows.values())]
        self._best = (_by_index(table) if len(table) > exact_up_to else None) or _by_all(table)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Recommender:
        """Take the model of a checkpoint."""
        model = SequenceModel.restore(checkpoint.manifest.model, checkpoint.tensors())
        return cls(model, checkpoint.names())

    def top(
        self,
        items: Sequence[str],
        *,
        times: Sequence[int] | None = None,
        event_type: str = "",
        count: int = 20,
    ) -> list[tuple[str, float]]:
        """Return the best items, each with its logit, the best first.

        Args:
            items: The history, oldest first; those unknown are left out.
            times: Of the history, in milliseconds; else a minute lies between two events.
            event_type: Of all its events; else the type that the model met first.
            count: How many, at most.

        Raises:
            UnknownItemsError: none of the items is known.
        """
        history = self._history(items, times, event_type)
        if not len(history):
            raise UnknownItemsError(f"none of {', '.join(items)} is among the {len(self):,} items")
        state = hidden(self._model, _question(history, "", self._length))[0]
        scores, places = self._best(state, min(count, len(self)))
        found = zip(places.tolist(), scores.tolist(), strict=True)
        return [(self._shown[place], score) for place, score in found if place >= 0]


class Blended(_Shown):
    """The best items after a history, by a learner's blend; it knows its users' histories, too."""

    def __init__(self, learner: Learner) -> None:
        """Take a learner that has a champion.

        Raises:
            StateError: it has learnt nothing yet.
        """
        if learner.champion is None:
            raise StateError("the learner has no champion yet: nothing was learnt")
        self._model = learner.champion.eval()
        self._ensemble = learner.ensemble
        self._past = learner.histories.past
        names = Names.of(learner.catalogue)
        rows = {name: row for row, name in enumerate(names.items[: len(self._model.items)])}
        super().__init__(names, rows, learner.catalogue.category)

    @classmethod
    def of(cls, directory: Path, checkpoints: Path) -> Blended:
        """Take a learner's state, and a champion that was rolled back since.

        Raises:
            StateError: the state is missing, damaged, or of another release; or without champion.
            CheckpointError: the champion that stands in another's place is damaged.
        """
        learner = Learner.load(directory, checkpoints=checkpoints)
        learner.follow_rollback()
        return cls(learner)

    def top(
        self,
        items: Sequence[str],
        *,
        user: str = "",
        times: Sequence[int] | None = None,
        event_type: str = "",
        count: int = 20,
    ) -> list[tuple[str, float]]:
        """Return the best items, each with its score, the best first.

        Args:
            items: What came behind what is known of the user, oldest first; those unknown are left
                out.
            user: Whose history it is; its events up to the newest window learnt come before.
            times: Of the items, in milliseconds; else each comes a minute after the event before.
            event_type: Of all items; else the type that the learner met first.
            count: How many, at most.

        Raises:
            UnknownItemsError: none of the items is known, and nothing of the user.
        """
        past = self._past.take(np.flatnonzero([owner == user for owner in self._past.owners]))
        past = past.select(past.items < len(self))
        past = replace(past, fresh=np.zeros_like(past.fresh))
        first = int(past.times[-1]) + _MINUTE if len(past) else 0
        history = join([past, self._history(items, times, event_type, first)])
        if not len(history):
            named = ", ".join(filter(None, [user, *items]))
            raise UnknownItemsError(f"nothing is known of {named}")
        batch = _question(history, user, len(self._model.positions))
        scores = self._ensemble.mix(batch, scorer(self._model, batch)(np.array([0]), len(self)))[0]
        best = np.argsort(-scores, kind="stable")[:count]
        return [(self._names.items[row], float(scores[row])) for row in best.tolist()]


def _question(events: Sequences, owner: str, length: int) -> Batch:
    """Ask what comes after events, all of one owner; the newest `length` of them are the input."""
    asked = len(events.items)
    every = np.append(np.arange(asked), asked - 1)  # whatever the event asked about is
    sequence = Sequences(
        owners=[owner],
        starts=np.array([0, asked + 1]),
        items=events.items[every],
        types=events.types[every],
        times=events.times[every],
        fresh=events.fresh[every],
    )
    return questions(sequence, np.array([asked]), length)


def _by_all(table: Tensor) -> _Search:
    """Score every item of a table (items, d)."""

    def search(state: Tensor, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        best = torch.topk(table @ state, count)
        return best.values.numpy(), best.indices.numpy()

    return search


def _by_index(table: Tensor) -> _Search | None:
    """Make an index of items (items, d) by inner product; None where Faiss is not installed."""
    try:
        import faiss  # noqa: PLC0415  not needed for small catalogues
    except ImportError:
        return None
    items, dim = table.shape
    groups = max(1, min(int(_GROUPS_A_ROOT * items**0.5), items // _LEAST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, groups, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 10
    index.cp.max_points_per_centroid = _MOST
    index.train(table.numpy())
    index.add(table.numpy())
    index.nprobe = _NEAR

    def search(state: Tensor, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores, places = index.search(state.numpy()[None], count)
        return scores[0], places[0]

    return search
