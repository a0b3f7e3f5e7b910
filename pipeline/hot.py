"""The states in use: a bounded cache of user states between the kernel and the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import interest

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
        self._new = interest.new_state()
        self._dirty = np.zeros(1024, np.bool_)
        self.array = np.zeros(1024, interest.STATE)

    @property
    def crowded(self) -> bool:
        """Whether more users have gathered than are to stay."""
        return len(self._rows) > self._capacity

    def rows(self, users: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of some users, loaded where they were not at hand, to be changed."""
        missing = [user for user in users if user not in self._rows]
        if missing:
            self._make_room(len(self._users) + len(missing))
            for user, data in zip(missing, self._load(missing), strict=True):
                row = self._rows[user] = len(self._users)
                self._users.append(user)
                self.array[row] = self._new
                if data is not None:
                    interest.decode_into(self.array, row, data)
        rows = np.fromiter((self._rows[user] for user in users), np.int64, len(users))
        self._dirty[rows] = True
        return rows

    def changed(self) -> list[tuple[str, bytes]]:
        """Return users and encoded states changed since the last call."""
        rows = np.flatnonzero(self._dirty).tolist()
        states = [(self._users[row], interest.encode(self.array[row])) for row in rows]
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
        self.array[row] = self._new
        self._dirty[row] = False
        self._users[row] = ""
        return True

    def newest(self, user: str) -> int | None:
        """Return a user's newest event time, where the user is at hand."""
        row = self._rows.get(user)
        return None if row is None else int(self.array["time"][row])

    def _make_room(self, users: int) -> None:
        if users > len(self.array):
            size = 1 << (users - 1).bit_length()
            self.array = np.concatenate(
                [self.array, np.zeros(size - len(self.array), self.array.dtype)]
            )
            self._dirty = np.concatenate([self._dirty, np.zeros(size - len(self._dirty), np.bool_)])
