"""What the rows of tables stand for: items, categories and event types, and items that expire."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from pipeline.events import NO_CODE, Clicks, Column

Ints = NDArray[np.int64]


class Renumbering:
    """Which rows of a table stay, and their new numbers: they close up, in the order they had."""

    def __init__(self, stays: NDArray[np.bool_]) -> None:
        self.stays = stays  # (rows before,)
        self.rows = np.where(stays, np.cumsum(stays) - 1, -1)  # (rows before,) -1 where gone


class Vocabulary:
    """Names by row. A row is given at first sight, and changes only where rows are dropped."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = list(names)
        self._rows = {name: row for row, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def get(self, name: str) -> int:
        """Return the row of a name, -1 where it was never seen."""
        return self._rows.get(name, -1)

    def row(self, name: str) -> int:
        """Return the row of a name, a new one at first sight."""
        row = self._rows.setdefault(name, len(self.names))
        if row == len(self.names):
            self.names.append(name)
        return row

    def rows(self, column: Column) -> Ints:
        """Return the row of each event's value, (n,); events without a value count as ""."""
        codes, first, inverse = np.unique(column.codes, return_index=True, return_inverse=True)
        table = np.empty(len(codes), np.int64)
        for at in np.argsort(first):
            code = codes[at]
            table[at] = self.row("" if code == NO_CODE else column.values[code])
        return table[inverse]

    def forget(self, name: str) -> int:
        """Erase a name; its row stays unused. Returns the row, -1 where there is none."""
        row = self._rows.pop(name, -1)
        if row >= 0:
            self.names[row] = ""
        return row

    def since(self, former: list[str]) -> Renumbering:
        """Tell what became of the rows of an earlier state; a name that went and came is new."""
        stays = np.zeros(len(former), np.bool_)
        count = 0
        for row, name in enumerate(former):  # those that stayed lie first, in the order they had
            stays[row] = self.get(name) == count
            count += stays[row]
        return Renumbering(stays)


class Catalogue:
    """The items, categories and event types seen so far, and each item's newest category.

    Items that no window has any more can be dropped; categories and types stay.
    """

    def __init__(
        self,
        items: Iterable[str] = (),
        categories: Iterable[str] = ("",),
        types: Iterable[str] = ("",),
        category: Ints | None = None,
    ) -> None:
        self.items = Vocabulary(items)
        self.categories = Vocabulary(categories)
        self.types = Vocabulary(types)
        self.category = np.zeros(0, np.int64) if category is None else category  # (items,)
        self.unseen = np.zeros_like(self.category)  # (items,) windows since the last with it

    def read(self, clicks: Clicks) -> tuple[Ints, Ints]:
        """Take in what is new in a batch; return the rows of its items and types, each (n,)."""
        items = self.items.rows(clicks.item)
        types = self.types.rows(clicks.event_type)
        categories = self.categories.rows(clicks.category)
        new = (0, len(self.items) - len(self.category))
        self.category, self.unseen = np.pad(self.category, new), np.pad(self.unseen, new)
        told = categories != self.categories.get("")
        self.category[items[told]] = categories[told]  # the last assignment, the newest, stays
        return items, types

    def pass_window(self, items: Ints) -> None:
        """Count a window, in which these items (n,) occurred."""
        self.unseen += 1
        self.unseen[items] = 0

    def expire(self, windows: int) -> Renumbering:
        """Drop the items that so many windows in a row went by without."""
        items = Renumbering(self.unseen < windows)
        self.items = Vocabulary(compress(self.items.names, items.stays))
        self.category, self.unseen = self.category[items.stays], self.unseen[items.stays]
        return items
