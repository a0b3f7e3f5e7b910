"""Stable 64-bit numbers for texts: the same on every machine, partition and run."""

from __future__ import annotations

from collections.abc import Sequence

import xxhash


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


class Symbols:
    """Turns texts into symbols, and remembers which names have yet to be made durable.

    The cache is emptied when it holds `capacity` texts, so that memory stays bounded; a name met
    again after that is written again, which changes nothing.
    """

    def __init__(self, capacity: int = 1_000_000) -> None:
        self._known: dict[str, int] = {}
        self._capacity = capacity
        self.fresh: dict[int, str] = {}

    def encode(self, texts: Sequence[str]) -> list[int]:
        """Return the symbols of some texts."""
        if len(self._known) > self._capacity:
            self._known.clear()
        known = self._known
        numbers = []
        for text in texts:
            number = known.get(text)
            if number is None:
                number = known[text] = symbol(text)
                self.fresh[number] = text
            numbers.append(number)
        return numbers
