"""Full-ranking figures: Recall@20, MRR@20, NDCG@10."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

MISS = np.iinfo(np.int64).max
"""The rank of a target that was not among the candidates."""

CUT = 20
"""The last rank that counts as a hit."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Means over targets, each 0 to 1; 0 where there was no target."""

    recall: float = msgspec.field(name="recall@20")
    mrr: float = msgspec.field(name="mrr@20")
    ndcg: float = msgspec.field(name="ndcg@10")


def ranks(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank of each target among all candidates, 1 the best.

    Ties count against the target: it stands behind every candidate of the same score, and behind
    scores that are not a number.

    Args:
        scores: (n, candidates).
        targets: (n,) columns of `scores`.
    """
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    behind: NDArray[np.int64] = scores.shape[1] - np.count_nonzero(scores < own, axis=1)
    return behind


def figures(rank: NDArray[np.int64]) -> Figures:
    """Average over ranks (n,). One relevant item a target, so NDCG is 1 / log2(1 + rank)."""
    if not len(rank):
        return Figures(recall=0.0, mrr=0.0, ndcg=0.0)
    rank = rank.astype(np.float64)
    return Figures(
        recall=float(np.mean(rank <= CUT)),
        mrr=float(np.mean(np.where(rank <= CUT, 1 / rank, 0))),
        ndcg=float(np.mean(np.where(rank <= 10, 1 / np.log2(1 + rank), 0))),  # noqa: PLR2004 the metric's name
    )
