"""What of users' states their profiles tell, from the kernel to those who put it into words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress, count

import numpy as np
from numpy.typing import NDArray

from pipeline.interest import RECENT

TOP = 10
"""Interests of a profile."""

_HEAVIEST = np.dtype([("category", "<u8"), ("share", "<f8")])
SNAPSHOT = np.dtype(
    [
        ("event", "<i8"),  # which event of the batch it was taken after
        ("position", "<i8"),  # as in the state; and so on
        ("time", "<i8"),
        ("events", "<i8"),
        ("short", _HEAVIEST, (TOP,)),  # the heaviest categories first; a share of 0: none
        ("long", _HEAVIEST, (TOP,)),
        ("recent_item", "<u8", (RECENT,)),  # newest first
    ]
)
"""What of a state a profile tells, see `kernel.snapshots`."""
_WORDS = np.dtype(("<u8", (SNAPSHOT.itemsize // 8,)))  # copied in a piece, not field by field


@dataclass(frozen=True, slots=True)
class Snapshots:
    """What the profiles of n users tell, in the order in which they were due."""

    users: list[str]
    taken: NDArray[np.void]
    """Records of dtype `SNAPSHOT`, shape (n,)."""

    def __len__(self) -> int:
        return len(self.users)

    def where(self, kept: NDArray[np.bool_]) -> Snapshots:
        """Return some of them."""
        return Snapshots(list(compress(self.users, kept)), self.taken[kept])

    def parts(self, size: int) -> Iterator[Snapshots]:
        """Return them in parts of so many."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield Snapshots(self.users[rows], self.taken[rows])


class NewestSnapshots:
    """Gathers snapshots: of a user's, the newest stays."""

    def __init__(self) -> None:
        self._rows: defaultdict[str, int] = defaultdict(count().__next__)  # the next for a new one
        self._taken = np.empty(0, SNAPSHOT)

    def put(self, snapshots: Snapshots) -> None:
        """Take further ones, newer than those before them."""
        rows = list(map(self._rows.__getitem__, snapshots.users))
        lacking = max(rows, default=-1) + 1 - len(self._taken)
        if lacking > 0:
            room = np.empty(max(lacking, len(self._taken)), SNAPSHOT)
            self._taken = np.concatenate([self._taken, room])
        self._taken.view(_WORDS)[rows] = snapshots.taken.view(_WORDS)

    def forget(self, user: str) -> None:
        """Drop a user's."""
        self._rows.pop(user, None)

    def all(self) -> Snapshots:
        """Return a snapshot of each user."""
        rows = list(self._rows.values())
        return Snapshots(list(self._rows), self._taken.view(_WORDS)[rows].view(SNAPSHOT)[:, 0])
