"""What a checkpoint's model would show next: the best items after a history.

Of a small catalogue every item is scored. Of a large one those are whose group lies near: an
inverted file over k-means groups (Jégou, Douze & Schmid 2011, "Product Quantization for Nearest
Neighbor Search", section IV; Douze et al. 2024, "The Faiss Library"), for which
`driftline[index]` has to be installed. Without it every item is scored, however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.checkpoint import Checkpoint, Names
from learners.model import SequenceModel
from learners.sequences import Sequences

EXACT = 100_000
"""Up to so many items all are scored: the index of as many takes seconds to make."""
MINUTE = 60_000

_GROUPS_A_ROOT = 4  # groups for each unit of the root of the number of items
_NEAR = 32  # groups that are looked into
_LEAST, _MOST = 39, 64  # items that a group is made from


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
        with torch.inference_mode():
            table = model.table()[list(self._rows.values())]
        self._table = table
        self._index = _index(table.numpy()) if len(table) > exact_up_to else None

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
            times = [MINUTE * at for at in range(len(items))]
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
        rows, times = history.T
        gaps = Sequences(
            owners=[""],
            starts=np.array([0, len(rows)]),
            items=rows,
            types=np.full(len(rows), kind),
            times=times,
            fresh=np.ones(len(rows), np.bool_),
        ).gaps
        columns = (rows, np.full(len(rows), kind), gaps)
        newest = (torch.from_numpy(column[None, -self._length :].copy()) for column in columns)
        with torch.inference_mode():
            state: Tensor = self._model.states(*newest)[0, -1]
        return state

    def _best(self, state: Tensor, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self._index is not None:
            scores, places = self._index.search(state.numpy()[None], count)
            return scores[0], places[0]
        with torch.inference_mode():
            best = torch.topk(self._table @ state, count)
        return best.values.numpy(), best.indices.numpy()


def _index(table: NDArray[np.float32]) -> Any:
    """Return an index of items (n, d) by inner product, or None where Faiss is not installed."""
    try:
        import faiss  # noqa: PLC0415  not needed for small catalogues
    except ImportError:
        return None
    groups = max(1, min(int(_GROUPS_A_ROOT * len(table) ** 0.5), len(table) // _LEAST))
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(table.shape[1]), table.shape[1], groups, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.niter = 10
    index.cp.max_points_per_centroid = _MOST
    index.train(table)
    index.add(table)
    index.nprobe = _NEAR
    return index
