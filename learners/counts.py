"""Decayed sparse counts with bounded rows: what every counting recommender stands on."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_FAINT = 1e-3
"""A count that has decayed below this is dropped."""


class Counts:
    """Weights of (row, column) pairs; each row keeps its `width` heaviest columns.

    Memory is bounded by rows x width entries of 12 bytes.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.keys = np.zeros(0, np.int64)  # (e,) row << 32 | column, ascending
        self.values = np.zeros(0, np.float32)  # (e,)

    def decay(self, factor: float) -> None:
        """Multiply all counts by a factor; drop those that have grown faint."""
        self.values = self.values * np.float32(factor)
        keep = self.values >= _FAINT
        self.keys, self.values = self.keys[keep], self.values[keep]

    def add(self, rows: Ints, columns: Ints, weights: Floats) -> None:
        """Add weights (n,) to pairs (n,), then let each row keep its heaviest."""
        keys, inverse = np.unique(rows << 32 | columns, return_inverse=True)
        sums = np.bincount(inverse, weights, len(keys)).astype(np.float32)
        at = np.asarray(np.searchsorted(self.keys, keys))
        known = np.append(self.keys, -1)[at] == keys
        self.values[at[known]] += sums[known]
        self.keys = np.insert(self.keys, at[~known], keys[~known])
        self.values = np.insert(self.values, at[~known], sums[~known])
        self._prune()

    def drop(self, row: int) -> None:
        """Erase a row."""
        keep = self.keys >> 32 != row
        self.keys, self.values = self.keys[keep], self.values[keep]

    def _prune(self) -> None:
        rows = self.keys >> 32
        full = np.flatnonzero(np.bincount(rows)[rows] > self.width) if len(rows) else rows
        order = full[np.lexsort((self.keys[full], -self.values[full], rows[full]))]
        ordered = rows[order]
        place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        keep = np.ones(len(self.keys), np.bool_)
        keep[order[place >= self.width]] = False
        self.keys, self.values = self.keys[keep], self.values[keep]

    def scores(self, rows: Ints, weights: Floats, columns: int) -> Floats:
        """Return the sums over a query's rows of weight x counts: (n, l), (n, l) -> (n, columns).

        Rows of weight 0 and columns beyond `columns` are passed over.
        """
        out = np.zeros((len(rows), columns), np.float32)
        used = np.maximum(rows, 0)
        begins = np.searchsorted(self.keys, used << 32)
        ends = np.searchsorted(self.keys, (used + 1) << 32)
        ends = np.where((rows >= 0) & (weights != 0), ends, begins)
        _scatter(begins, ends, weights, self.keys, self.values, out)
        return out


def _scatter_rows(  # noqa: PLR0917  # compiled functions take arrays in order
    begins: Ints, ends: Ints, weights: Floats, keys: Ints, values: Floats, out: Floats
) -> None:
    columns = out.shape[1]
    for query in range(begins.shape[0]):
        for place in range(begins.shape[1]):
            weight = weights[query, place]
            for entry in range(begins[query, place], ends[query, place]):
                column = keys[entry] & 0xFFFFFFFF
                if column < columns:
                    out[query, column] += weight * values[entry]


_scatter = numba.njit(cache=True)(_scatter_rows)
