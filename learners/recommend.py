"""What a checkpoint's model would show next: the best items after a history.

Of a small catalogue every item is scored. Of a large one those are whose group lies near: an
inverted file over k-means groups (Jégou, Douze & Schmid 2011, "Product Quantization for Nearest
Neighbor Search", section IV; Douze et al. 2024, "The Faiss Library"), for which
`driftline[index]` has to be installed. Without it every item is scored, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.checkpoint import Checkpoint, Names
from learners.evaluation import hidden
from learners.model import SequenceModel
from learners.sequences import Sequences, questions

EXACT = 100_000
"""Up to so many items all are scored: the index of as many takes seconds to make."""

_MINUTE = 60_000  # milliseconds
_GROUPS_A_ROOT = 4  # groups for each unit of the root of the number of items
_NEAR = 32  # groups that are looked into
_LEAST, _MOST = 39, 64  # items that a group is made from

_Search = Callable[[Tensor, int], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Takes what a model knows (d,) and how many items are wanted; gives logits and rows, (n,) each."""


class UnknownItemsError(LookupError):
    """A model knows none of the items of a history."""


class Recommender:
    """The best items after a history, by one model."""

    def __init__(self, model: SequenceModel, names: Names, *, exact_up_to: int = EXACT) -> None:
        """Take a model, and what its rows stand for."""
        self._model = model
        self._names = names
        self._length = len(model.positions)
        self._rows = {name: row for row, name in enumerate(names.items) if name}
        self._shown = list(self._rows)
        table = model.table().detach()[list(self._rows.values())]
        self._best = (_by_index(table) if len(table) > exact_up_to else None) or _by_all(table)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Recommender:
        """Take the model of a checkpoint."""
        model = SequenceModel.restore(checkpoint.manifest.model, checkpoint.tensors())
        return cls(model, checkpoint.names())

    def __len__(self) -> int:
        """The number of items that can be shown."""
        return len(self._shown)

    def category(self, item: str) -> str:
        """Return the category of an item that is known, "" where it has none."""
        return self._names.categories[int(self._model.category[self._rows[item]])]

    def unknown(self, items: Sequence[str]) -> list[str]:
        """Return those of some items that the model does not know."""
        return [item for item in items if item not in self._rows]

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
        if times is None:
            times = [_MINUTE * at for at in range(len(items))]
        known = [
            (self._rows[item], time)
            for item, time in zip(items, times, strict=True)
            if item in self._rows
        ]
        if not known:
            raise UnknownItemsError(f"none of {', '.join(items)} is among the {len(self):,} items")
        kinds = self._names.types
        kind = kinds.index(event_type) if event_type in kinds else 0
        state = self._state(np.array(known, np.int64), kind)
        scores, places = self._best(state, min(count, len(self)))
        found = zip(places.tolist(), scores.tolist(), strict=True)
        return [(self._shown[place], score) for place, score in found if place >= 0]

    def _state(self, history: NDArray[np.int64], kind: int) -> Tensor:
        """Return what the model knows after rows and times (n, 2): (d,)."""
        asked = len(history)
        rows, times = np.vstack([history, history[-1]]).T  # whatever the event asked about is
        sequence = Sequences(
            owners=[""],
            starts=np.array([0, asked + 1]),
            items=rows,
            types=np.full(asked + 1, kind),
            times=times,
            fresh=np.ones(asked + 1, np.bool_),
        )
        return hidden(self._model, questions(sequence, np.array([asked]), self._length))[0]


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
