"""The states in use: a bounded cache of user states between the kernel and the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import interest
from pipeline.packing import decode_into, encode, words
from pipeline.symbols import symbol

AT_ONCE = 1024
"""States encoded in one go."""
FIRST = 1 << 17
"""Users for whom there is room from the beginning, at most."""
ROOM = 1 << 14
"""Users that a batch may add beyond the capacity before the array has to grow."""

Load = Callable[[Sequence[str]], Sequence[bytes | None]]
"""Gives the stored states of some users, None for a user who was never seen."""


class HotStates:
    """States of the users met lately, as rows of one array.

    Nothing leaves before it was handed over by `changed`; then, where more than `capacity` users
    have gathered, all leave at once. So memory stays bounded with no bookkeeping per event.
    """

    def __init__(self, load: Load, *, capacity: int = 100_000) -> None:
        self._load = load
        self._capacity = capacity
        self._rows: dict[str, int] = {}
        self._users: list[str] = []  # by row
        self._new = words(np.array([interest.new_state()]))[0]
        room = min(capacity, FIRST) + ROOM
        self._dirty = np.zeros(room, np.bool_)
        self.array = np.zeros(room, interest.STATE)  # takes memory as rows are used
        self.symbols = np.zeros(room, np.uint64)
        """Of the users, by row."""

    @property
    def crowded(self) -> bool:
        """Whether more users have gathered than are to stay."""
        return len(self._rows) > self._capacity

    def rows(self, users: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of some users, loaded where they were not at hand, to be changed."""
        found = list(map(self._rows.get, users))
        if None in found:
            missing = [user for user, row in zip(users, found, strict=True) if row is None]
            stored = self._load(missing)
            first = len(self._users)
            self._make_room(first + len(missing))
            known = [row for row, data in enumerate(stored, first) if data is not None]
            new = [row for row, data in enumerate(stored, first) if data is None]
            decode_into(
                self.array, np.array(known, np.int64), [data for data in stored if data is not None]
            )
            words(self.array)[new] = self._new
            self.symbols[first : first + len(missing)] = list(map(symbol, missing))
            self._rows |= {user: row for row, user in enumerate(missing, first)}
            self._users += missing
            found = list(map(self._rows.get, users))
        rows = np.array(found, np.int64)
        self._dirty[rows] = True
        return rows

    def changed(self) -> list[tuple[str, bytes]]:
        """Return users and encoded states changed since the last call."""
        rows = np.flatnonzero(self._dirty)
        states: list[tuple[str, bytes]] = []
        for some in np.split(rows, range(AT_ONCE, len(rows), AT_ONCE)):
            users = [self._users[row] for row in some.tolist()]
            states += zip(users, encode(self.array, some), strict=True)
        self._dirty[:] = False
        if self.crowded:
            self._rows.clear()
            self._users.clear()
        return states

    def forget(self, user: str) -> bool:
        """Drop a user's state; say whether it was at hand."""
        row = self._rows.pop(user, None)
        if row is None:
            return False
        words(self.array)[row] = self._new
        self._dirty[row] = False
        self._users[row] = ""
        return True

    def newest(self, user: str) -> int | None:
        """Return a user's newest event time, where the user is at hand."""
        row = self._rows.get(user)
        return None if row is None else int(self.array["time"][row])

    def _make_room(self, users: int) -> None:
        if users > len(self.array):
            more = max(users, 2 * len(self.array)) - len(self.array)
            self.array = np.concatenate([self.array, np.zeros(more, self.array.dtype)])
            self.symbols = np.concatenate([self.symbols, np.zeros(more, np.uint64)])
            self._dirty = np.concatenate([self._dirty, np.zeros(more, np.bool_)])
