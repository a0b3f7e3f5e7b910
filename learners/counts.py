"""Decayed sparse counts with bounded rows: what every counting recommender stands on."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from learners.catalogue import Renumbering
from learners.shares import Shares

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_COLUMN = 0xFFFFFFFF  # of a key
_FAINT = 1e-3
"""A count that has decayed below this is dropped."""


class Table:
    """Weights by (row, column), sorted by key: row << 32 | column."""

    def __init__(self) -> None:
        self.keys = np.zeros(0, np.int64)  # (e,) ascending
        self.values = np.zeros(0, np.float32)  # (e,)

    def add(self, keys: Ints, values: Floats) -> None:
        """Add values (m,) to keys (m,), ascending and each once."""
        at = np.asarray(np.searchsorted(self.keys, keys))
        known = np.append(self.keys, -1)[at] == keys
        self.values[at[known]] += values[known]
        self.keys = np.insert(self.keys, at[~known], keys[~known])
        self.values = np.insert(self.values, at[~known], values[~known])

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Drop all that is not chosen, (e,)."""
        self.keys, self.values = self.keys[chosen], self.values[chosen]

    def renumber(self, rows: Renumbering, columns: Renumbering) -> None:
        """Give rows and columns their new numbers; what one of them is gone of is dropped."""
        self.keys = rows.rows[self.keys >> 32] << 32 | columns.rows[self.keys & _COLUMN]
        self.keep(self.keys >= 0)  # -1 on either side makes a key negative

    def spans(self, rows: Ints) -> tuple[Ints, Ints]:
        """Return where the entries of rows (...) begin and end; rows below 0 have none."""
        begins = np.searchsorted(self.keys, rows << 32)
        ends = np.searchsorted(self.keys, (rows + 1) << 32)
        return begins.astype(np.int64), np.where(rows >= 0, ends, begins).astype(np.int64)


class Counts:
    """Weights of (row, column) pairs; each row keeps its `width` heaviest columns.

    What is added counts at once and lies apart until it is settled, so that adding costs what is
    added and not what there is. Memory is bounded by rows x width entries of 12 bytes, and what a
    window adds.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.settled = Table()
        self.fresh = Table()

    @property
    def bytes(self) -> int:
        """Memory taken."""
        return 12 * (len(self.settled.keys) + len(self.fresh.keys))

    def add(self, rows: Ints, columns: Ints, weights: Floats) -> None:
        """Add weights (n,) to pairs (n,)."""
        keys, inverse = np.unique(rows << 32 | columns, return_inverse=True)
        self.fresh.add(keys, np.bincount(inverse, weights, len(keys)).astype(np.float32))

    def settle(self, factor: float) -> None:
        """Multiply what was settled before by a factor, settle the rest, bound the rows."""
        self.settled.values = self.settled.values * np.float32(factor)
        self.settled.keep(self.settled.values >= _FAINT)
        self.settled.add(self.fresh.keys, self.fresh.values)
        self.fresh = Table()
        self._prune()

    def drop(self, row: int) -> None:
        """Erase a row."""
        for table in (self.settled, self.fresh):
            table.keep(table.keys >> 32 != row)

    def close_up(self, rows: int) -> Renumbering:
        """Drop those of so many rows that have no entry, all being settled; tell which are left."""
        table = self.settled
        row, column = table.keys >> 32, table.keys & _COLUMN
        stays = np.zeros(rows, np.bool_)
        stays[row] = True
        left = Renumbering(stays)
        table.keys = left.rows[row] << 32 | column
        return left

    def renumber(self, rows: Renumbering, columns: Renumbering) -> None:
        """Give rows and columns their new numbers; pairs that lost one of the two are dropped."""
        for table in (self.settled, self.fresh):
            table.renumber(rows, columns)

    def _prune(self) -> None:
        keys, values = self.settled.keys, self.settled.values
        rows = keys >> 32
        full = np.flatnonzero(np.bincount(rows)[rows] > self.width) if len(rows) else rows
        order = full[np.lexsort((keys[full], -values[full], rows[full]))]
        ordered = rows[order]
        place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        keep = np.ones(len(keys), np.bool_)
        keep[order[place >= self.width]] = False
        self.settled.keep(keep)

    def shares(self, rows: Ints, weights: Floats, columns: int) -> Shares:
        """Return the sums over a query's rows of weight x counts: (n, l), (n, l) -> n inputs.

        Rows below 0 or of weight 0 and columns beyond `columns` are passed over.
        """
        rows = np.where(weights > 0, rows, -1)
        spans = (*self.settled.spans(rows), *self.fresh.spans(rows))
        most = int((spans[1] - spans[0]).sum() + (spans[3] - spans[2]).sum())
        starts = np.zeros(len(rows) + 1, np.int64)
        items, values = np.empty(most, np.int64), np.empty(most, np.float32)
        _gather(
            (spans[0], spans[2]),
            (spans[1], spans[3]),
            weights,
            (self.settled.keys, self.fresh.keys),
            (self.settled.values, self.fresh.values),
            np.full(columns, -1, np.int64),
            starts,
            items,
            values,
        )
        return Shares(starts, items[: starts[-1]], values[: starts[-1]])


def _gather_rows(  # noqa: PLR0917  # compiled functions take arrays in order
    begins: tuple[Ints, Ints],
    ends: tuple[Ints, Ints],
    weights: Floats,
    keys: tuple[Ints, Ints],
    counts: tuple[Floats, Floats],
    place: Ints,
    starts: Ints,
    items: Ints,
    values: Floats,
) -> None:
    """Sum up each query's rows; `place` (columns,) is -1 and says where a column's sum stands."""
    total = 0
    for query in range(weights.shape[0]):
        for row in range(weights.shape[1]):
            for table in range(2):
                for entry in range(begins[table][query, row], ends[table][query, row]):
                    column = keys[table][entry] & _COLUMN
                    if column >= len(place):
                        continue
                    if place[column] < starts[query]:
                        place[column] = total
                        items[total] = column
                        values[total] = 0
                        total += 1
                    values[place[column]] += weights[query, row] * counts[table][entry]
        starts[query + 1] = total


_gather = numba.njit(cache=True)(_gather_rows)
