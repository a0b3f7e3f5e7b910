"""Stable 64-bit numbers for texts: the same on every machine, partition and run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import xxhash
from numpy.typing import NDArray


def symbol(text: str) -> int:
    """Return the number of a text; 0 is kept for "none".

    >>> symbol("books/comics")
    2743226023163425386
    """
    return xxhash.xxh3_64_intdigest(text.encode()) or 1


def prefix(category: str, depth: int) -> str:
    """Return the first levels of a category path; a depth of 0 keeps them all.

    >>> prefix("home/garden/tools", 2)
    'home/garden'
    """
    return "/".join(category.split("/")[:depth]) if depth else category


class Names(dict[int, str]):
    """Texts by symbol; one that is not at hand comes from the store."""

    def __init__(self, load: Callable[[int], str | None]) -> None:
        self._load = load

    def __missing__(self, number: int) -> str:
        text = self._load(number)
        if text is None:
            return f"#{number:016x}"
        self[number] = text
        return text


class Symbols:
    """Turns texts into symbols and back, and remembers which names have yet to be made durable.

    It forgets all that is durable when it knows `capacity` names, so that memory stays bounded; a
    name met again after that is written again, which changes nothing.
    """

    def __init__(
        self, load: Callable[[int], str | None] = lambda _: None, capacity: int = 1_000_000
    ) -> None:
        """Start from the names that a store's `load` gives."""
        self.names = Names(load)
        self._known = _Known(self.names)
        self._capacity = capacity

    def encode(self, texts: Iterable[str]) -> NDArray[np.uint64]:
        """Return the symbols of some texts, (n,)."""
        if len(self.names) > self._capacity:
            self._known.clear()
            self.names.clear()
            self.names.update(self._known.fresh)
        return np.array(list(map(self._known.__getitem__, texts)), np.uint64)

    def take_fresh(self) -> dict[int, str]:
        """Return the names met since the last call."""
        fresh, self._known.fresh = self._known.fresh, {}
        return fresh


class _Known(dict[str, int]):
    """Symbols by text; a text met for the first time is put down in `names` and `fresh`."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names
        self.fresh: dict[int, str] = {}

    def __missing__(self, text: str) -> int:
        number = self[text] = symbol(text)
        self.names[number] = self.fresh[number] = text
        return number
