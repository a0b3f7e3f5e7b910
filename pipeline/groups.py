"""Groups of items that the same people take: categories for items that bear none.

Items are placed by a truncated singular value decomposition of who took them, each person and item
weighing alike (correspondence analysis, Benzécri 1973), and gathered by spherical k-means
(Dhillon & Modha 2001, "Concept decompositions for large sparse text data").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array
from scipy.sparse.linalg import aslinearoperator, svds

from pipeline.events import NO_CODE, Clicks
from pipeline.settings import Settings

GROUPS = 4
"""Coarse ones: of finer groups, people move to others by chance."""
LEAST_ITEMS = 64
DIMENSIONS = 8
ROUNDS = 25
LEAST_USERS = 5
"""An item taken by fewer says too little, and stands for itself."""
NAME = "like "
"""Before the item that a group is named after: its most frequent one."""

Vectors = NDArray[np.float64]


def group_items(clicks: Clicks, settings: Settings) -> dict[str, str]:
    """Return the group of each item that has no category, where enough people took it.

    Empty where there are too few items, or users, to tell groups apart.
    """
    lone = np.flatnonzero(clicks.category.codes == NO_CODE)
    items = len(clicks.item.values)
    pairs = np.unique(clicks.user.codes[lone].astype(np.int64) * items + clicks.item.codes[lone])
    users, taken = np.divmod(pairs, items)
    times = np.bincount(taken, minlength=items)
    kept = np.flatnonzero(times >= LEAST_USERS)
    if len(kept) < LEAST_ITEMS or users.max() <= DIMENSIONS:
        return {}
    whole = csr_matrix((np.ones(len(pairs)), (users, taken)), (users.max() + 1, items))
    random = np.random.default_rng(settings.seed)
    group = _gather(_place(whole[:, kept], random), times[kept], random)
    names = [clicks.item.values[item] for item in kept]
    heads = {
        g: names[max(np.flatnonzero(group == g), key=lambda i: (times[kept[i]], names[i]))]
        for g in np.unique(group)
    }
    return {name: NAME + heads[g] for name, g in sorted(zip(names, group.tolist(), strict=True))}


def _place(taken: csr_matrix, random: np.random.Generator) -> Vectors:
    """Return a direction for each item: (items, `DIMENSIONS`), each of length 1.

    What frequencies alone would have is taken off: left to be the first of the vectors, it could
    not be told from another one where some people and items have nothing to do with the others.
    """
    by_user, by_item = taken.sum(axis=1).A1, taken.sum(axis=0).A1
    user_weight, item_weight = (diags_array(np.maximum(by, 1) ** -0.5) for by in (by_user, by_item))
    scaled = aslinearoperator(user_weight @ taken @ item_weight)
    user_share, item_share = (np.sqrt(by / by.sum()) for by in (by_user, by_item))
    expected = aslinearoperator(user_share[:, None]) @ aslinearoperator(item_share[None, :])
    start = random.normal(size=min(scaled.shape))
    _, strengths, rows = svds(scaled - expected, k=DIMENSIONS, v0=start)
    order = np.argsort(-strengths)
    vectors: Vectors = rows[order].T * strengths[order]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: Vectors = vectors / np.maximum(lengths, 1e-12)
    return directions


def _gather(
    vectors: Vectors, times: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    """Return the group of each vector, frequent items weighing more: (n,)."""
    centres = vectors[random.choice(len(vectors), GROUPS, replace=False)]
    weights = np.sqrt(times)[:, None]
    group = np.zeros(len(vectors), np.int64)
    for _ in range(ROUNDS):
        group = (vectors @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, group, vectors * weights)
        empty = ~sums.any(axis=1)
        sums[empty] = vectors[random.choice(len(vectors), int(empty.sum()))]
        centres = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return group
