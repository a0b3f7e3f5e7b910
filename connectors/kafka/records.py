"""What the bus brings: records by column, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Headers = Sequence[tuple[str, bytes]]

_OFFSET, _TIMESTAMP = attrgetter("offset"), attrgetter("timestamp")
_KEY, _VALUE, _HEADERS = attrgetter("key"), attrgetter("value"), attrgetter("headers")


class Record(Protocol):
    """A record as the client's parser has it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Records:
    """n records of one partition in log order, a column a field.

    Offsets strictly increase but may leave gaps, where a topic was compacted or transactions ended.
    """

    offsets: NDArray[np.int64]  # (n,)
    timestamps: NDArray[np.int64]  # (n,) milliseconds, the bus's time: not the event time
    keys: list[bytes | None]
    values: list[bytes | None]
    """None is a tombstone."""
    headers: list[Headers]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """Take records apart; what is left of them is freed at once."""
        return cls(
            offsets=np.fromiter(map(_OFFSET, records), np.int64, len(records)),
            timestamps=np.fromiter(map(_TIMESTAMP, records), np.int64, len(records)),
            keys=list(map(_KEY, records)),
            values=list(map(_VALUE, records)),
            headers=[headers or () for headers in map(_HEADERS, records)],
        )

    def __len__(self) -> int:
        return len(self.values)

    def slice(self, start: int, stop: int) -> Records:
        """Return the records from one place to before another."""
        rows = slice(start, stop)
        return Records(
            self.offsets[rows],
            self.timestamps[rows],
            self.keys[rows],
            self.values[rows],
            self.headers[rows],
        )

    def take(self, rows: Sequence[int]) -> Records:
        """Return some of the records, in the order given."""
        return Records(
            self.offsets[rows],
            self.timestamps[rows],
            [self.keys[row] for row in rows],
            [self.values[row] for row in rows],
            [self.headers[row] for row in rows],
        )


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """What one fetch brought from one partition: n raw records, n > 0."""

    topic: str
    partition: int
    records: Records
    highwater: int | None
    """Behind the last record of the partition, as far as was known when this was handed over."""
    turn: int = 0
    """The assignment that it was fetched under, see `Span.turn`."""

    def __len__(self) -> int:
        return len(self.records)

    @property
    def end(self) -> int:
        """The offset at which to go on after this batch."""
        return int(self.records.offsets[-1]) + 1

    @property
    def lag(self) -> int:
        """How many offsets the partition goes on behind this batch."""
        return max(0, (self.highwater or 0) - self.end)
