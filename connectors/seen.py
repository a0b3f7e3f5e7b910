"""Which users a learner has met, and since which window: which checkpoints saw somebody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from connectors.log import write_atomically
from pipeline.symbols import symbol
from pipeline.windows import Window

_FILE = "seen"
_MET = np.dtype([("user", "<u8"), ("first", "<i8")])


class Seen:
    """Users by their symbol, each with the end of the first window that had a click of theirs."""

    def __init__(self) -> None:
        """Begin with nobody met."""
        self._met: NDArray[np.void] = np.zeros(0, _MET)  # by user

    @classmethod
    def load(cls, directory: Path) -> Seen:
        """Read what `save` has written; nobody was met where there is nothing."""
        seen = cls()
        path = directory / _FILE
        if path.exists():
            seen._met = np.frombuffer(path.read_bytes(), _MET)
        return seen

    def save(self, directory: Path) -> None:
        """Write it, in one step that is seen whole or not at all."""
        write_atomically(directory / _FILE, self._met.tobytes())

    def add(self, window: Window) -> None:
        """Take a window's users."""
        users = window.clicks.user
        present = [symbol(users.values[code]) for code in np.unique(users.codes).tolist()]
        new = np.setdiff1d(np.array(present, np.uint64), self._met["user"])
        added = np.zeros(len(new), _MET)
        added["user"], added["first"] = new, window.end
        self._met = np.sort(np.concatenate([self._met, added]), order="user")

    def first(self, user: str) -> int | None:
        """Return the end of the first window that a user was met in."""
        found = self._met["first"][self._met["user"] == symbol(user)]
        return int(found[0]) if len(found) else None

    def forget(self, user: str) -> None:
        """Erase a user."""
        self._met = self._met[self._met["user"] != symbol(user)]
