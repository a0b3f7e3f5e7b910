"""What the bus brings: records, and batches of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Record(Protocol):
    """A record as the client's parser has it."""

    offset: int
    timestamp: int
    """The bus's time, in milliseconds: not the event time."""
    key: bytes | None
    value: bytes | None
    """None is a tombstone."""
    headers: Iterable[tuple[str, bytes]]


_OFFSET, _TIMESTAMP = attrgetter("offset"), attrgetter("timestamp")


def offsets_of(records: Sequence[Record]) -> NDArray[np.int64]:
    """Return the offsets of n records, (n,)."""
    return np.fromiter(map(_OFFSET, records), np.int64, len(records))


def timestamps_of(records: Sequence[Record]) -> NDArray[np.int64]:
    """Return the bus's times of n records, milliseconds, (n,)."""
    return np.fromiter(map(_TIMESTAMP, records), np.int64, len(records))


@dataclass(frozen=True)
class RecordBatch:
    """What one fetch brought from one partition: n raw records, n > 0, in log order.

    Offsets strictly increase but may leave gaps, where a topic was compacted or transactions ended.
    """

    topic: str
    partition: int
    records: list[Record]
    highwater: int | None
    """Behind the last record of the partition, as far as was known when this was handed over."""
    turn: int = 0
    """The assignment that it was fetched under, see `Span.turn`."""

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """The place of every record in its partition (n,)."""
        return offsets_of(self.records)

    @property
    def values(self) -> list[bytes | None]:
        """The value of every record."""
        return [record.value for record in self.records]

    @property
    def end(self) -> int:
        """The offset at which to go on after this batch."""
        return int(self.records[-1].offset) + 1

    @property
    def lag(self) -> int:
        """How many offsets the partition goes on behind this batch."""
        return max(0, (self.highwater or 0) - self.end)
