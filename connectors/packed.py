"""Many byte strings as parts of one: a batch of them is one object, not thousands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Packed(Sequence[bytes | None]):
    """n byte strings or None, from place to place of `data`.

    None begins at -1.
    """

    data: bytes
    starts: Places  # (n,)
    stops: Places  # (n,)

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> Packed:
        """Pack byte strings, where they are not."""
        if isinstance(values, Packed):
            return values
        present = [value or b"" for value in values]
        lengths = np.fromiter(map(len, present), np.int64, len(present))
        stops = np.cumsum(lengths)
        starts = stops - lengths
        starts[[row for row, value in enumerate(values) if value is None]] = -1
        return cls(b"".join(present), starts, stops)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, row: int) -> bytes | None: ...
    @overload
    def __getitem__(self, row: slice | Sequence[int]) -> Packed: ...
    def __getitem__(self, row: int | slice | Sequence[int]) -> bytes | Packed | None:
        if not isinstance(row, int | np.integer):
            return Packed(self.data, self.starts[row], self.stops[row])
        start = int(self.starts[row])
        return None if start < 0 else self.data[start : int(self.stops[row])]

    def __iter__(self) -> Iterator[bytes | None]:
        for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True):
            yield None if start < 0 else self.data[start:stop]
