"""What the bus brings: records by column, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from connectors.packed import Packed

Headers = Sequence[tuple[str, bytes | None]]


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
    keys: Packed
    values: Packed
    """None is a tombstone."""
    headers: Mapping[int, Headers]
    """By row, of the records that have any."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """Take records apart."""
        return cls(
            offsets=np.array([record.offset for record in records], np.int64),
            timestamps=np.array([record.timestamp for record in records], np.int64),
            keys=Packed.of([record.key for record in records]),
            values=Packed.of([record.value for record in records]),
            headers={row: record.headers for row, record in enumerate(records) if record.headers},
        )

    def __len__(self) -> int:
        return len(self.offsets)

    def slice(self, start: int, stop: int) -> Records:
        """Return the records from one place to before another."""
        rows = slice(start, stop)
        return Records(
            self.offsets[rows],
            self.timestamps[rows],
            self.keys[rows],
            self.values[rows],
            {row - start: told for row, told in self.headers.items() if start <= row < stop},
        )

    def take(self, rows: Sequence[int]) -> Records:
        """Return some of the records, in the order given."""
        told = enumerate(rows)
        return Records(
            self.offsets[rows],
            self.timestamps[rows],
            self.keys[rows],
            self.values[rows],
            {place: self.headers[row] for place, row in told if row in self.headers},
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
