"""Batches as they stand in the log -> records by column, compiled.

https://kafka.apache.org/documentation/#messageformat, version 2. To make an object of each record
and to take it apart again takes ten times as long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numba
import numpy as np
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from numpy.typing import NDArray

from connectors.kafka.records import Records
from connectors.packed import Packed

_compile = numba.njit(cache=True, nogil=True)
_inline = numba.njit(cache=False, nogil=True, forceinline=True)

MAGIC, MAGIC_AT = 2, 16
"""The version of the format, and where a batch of any version has its own."""
_HEAD = Struct(">qiibIhiqqqhii")
_OFFSET, _ATTRIBUTES, _FIRST_TIME, _NEWEST_TIME, _COUNT = 0, 5, 7, 8, 12
"""Places among the fields of a head."""
_UP_TO_LENGTH = Struct(">qi")
_BYTES, _RECORDS, _FIRST_OFFSET, _FIRST, _ALL_TIMES = range(5)
"""Places among what the kernel is told of a batch."""
_HEAD_FIELDS, _RECORD_FIELDS, _HEADER_FIELDS = 5, 6, 5
_BITS, _GOES_ON = 64, 0x80
_CODEC, _APPEND_TIME = 0x07, 0x08
"""Bits of a batch's attributes: how it is compressed; that its time is the broker's."""
_DECODERS: dict[int, Callable[[Any], bytes | memoryview]] = {
    0: memoryview,
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}


@dataclass(frozen=True, slots=True)
class LogBatch:
    """A batch of the log, decompressed."""

    records: bytes | memoryview
    count: int
    base_offset: int
    base_time: int
    append_time: int
    """The time of every record; -1 where each has its own."""
    wanted: int
    """The offset from which on records are wanted; those before it may be there, too."""

    @classmethod
    def of(cls, written: bytes | bytearray | memoryview, wanted: int) -> LogBatch:
        """Take all the bytes of a batch of version `MAGIC`.

        Raises:
            Exception: of the codec's, where it cannot be decompressed.
        """
        head = _HEAD.unpack_from(written)
        attributes = head[_ATTRIBUTES]
        decode = _DECODERS.get(attributes & _CODEC)
        if decode is None:
            raise UnsupportedCodecError(f"a batch with codec {attributes & _CODEC}")
        return cls(
            records=decode(written[_HEAD.size :]),
            count=head[_COUNT],
            base_offset=head[_OFFSET],
            base_time=head[_FIRST_TIME],
            append_time=head[_NEWEST_TIME] if attributes & _APPEND_TIME else -1,
            wanted=wanted,
        )

    @classmethod
    def renewed(cls, older: Iterable[Any], wanted: int) -> LogBatch:
        """Take the records of a batch of an older version, as the client's parser has them."""
        builder = DefaultRecordBatchBuilder(MAGIC, 0, 0, -1, -1, -1, 1 << 30)
        for record in older:
            time = -1 if record.timestamp is None else record.timestamp
            builder.append(record.offset, time, record.key, record.value, list(record.headers))
        return cls.of(builder.build(), wanted)


def split(written: bytes) -> Iterator[memoryview]:
    """Yield each batch, of whichever version, that stands as a whole in some bytes of the log."""
    start = 0
    while start + _UP_TO_LENGTH.size <= len(written):
        _, length = _UP_TO_LENGTH.unpack_from(written, start)
        stop = start + _UP_TO_LENGTH.size + length
        if stop > len(written):
            break
        yield memoryview(written)[start:stop]
        start = stop


def unpacked(batches: Sequence[LogBatch]) -> Records:
    """Return the records of some batches that are wanted.

    Raises:
        CorruptRecordException: a batch holds something else than its head tells.
    """
    data = b"".join([batch.records for batch in batches])
    heads = np.array([_head(batch) for batch in batches], np.int64).reshape(-1, _HEAD_FIELDS)
    size = int(heads[:, _RECORDS].sum())
    if (heads[:, _RECORDS] < 0).any() or size > len(data):
        raise CorruptRecordException("a batch that cannot hold the records that it tells of")
    numbers = np.empty((_RECORD_FIELDS, size), np.int64)
    headers = np.empty((0, _HEADER_FIELDS), np.int64)
    everything = np.frombuffer(data, np.uint8), heads, numbers
    found = _unpack(*everything, headers)
    if found > 0:  # once more, as there is room for them now
        headers = np.empty((found, _HEADER_FIELDS), np.int64)
        _unpack(*everything, headers)
    if found < 0:
        raise CorruptRecordException("a batch that does not hold the records that it tells of")
    offsets, timestamps, key, key_end, value, value_end = numbers
    records = Records(
        offsets,
        timestamps,
        Packed(data, key, key_end),
        Packed(data, value, value_end),
        _headers(data, headers),
    )
    if all(batch.wanted <= batch.base_offset for batch in batches):
        return records
    wanted = np.repeat([batch.wanted for batch in batches], heads[:, _RECORDS])
    return records.take(np.flatnonzero(offsets >= wanted).tolist())


def _head(batch: LogBatch) -> tuple[int, ...]:
    return (
        len(batch.records),
        batch.count,
        batch.base_offset,
        batch.base_time,
        batch.append_time,
    )


def _headers(data: bytes, places: NDArray[np.int64]) -> dict[int, list[tuple[str, bytes | None]]]:
    """Return headers by row."""
    headers: defaultdict[int, list[tuple[str, bytes | None]]] = defaultdict(list)
    for row, name, name_end, value, value_end in places.tolist():
        told = data[value:value_end] if value >= 0 else None
        headers[row].append((data[name:name_end].decode(errors="replace"), told))
    return dict(headers)


@_compile
def _unpack(data, heads, numbers, headers):
    """Find where everything stands in batches, one behind the other.

    Args:
        data: their bytes.
        heads: what is known of each, (batches, _HEAD_FIELDS).
        numbers: filled in: offset, time, and where key and value begin and end, (6, n).
        headers: filled in as far as there is room: the row, and where name and value begin and
            end, (headers, 5).

    Returns:
        How many headers there are, -1 where these are no such batches.
    """
    at = 0
    row = 0
    found = 0
    for batch in range(len(heads)):
        end = at + heads[batch, _BYTES]
        for _ in range(heads[batch, _RECORDS]):
            length, at = _varint(data, at, end)
            stop = at + length
            if at < 0 or length <= 0 or stop > end:
                return -1
            time, at = _varint(data, at + 1, stop)  # behind its attributes, which are none
            offset, at = _varint(data, at, stop)
            numbers[0, row] = heads[batch, _FIRST_OFFSET] + offset
            numbers[1, row] = heads[batch, _ALL_TIMES]
            if numbers[1, row] < 0:
                numbers[1, row] = heads[batch, _FIRST] + time
            numbers[2, row], numbers[3, row], at = _bytes(data, at, stop)
            numbers[4, row], numbers[5, row], at = _bytes(data, at, stop)
            count, at = _varint(data, at, stop)
            for _ in range(count):
                name, name_end, at = _bytes(data, at, stop)
                value, value_end, at = _bytes(data, at, stop)
                if at < 0 or name < 0:
                    return -1
                if found < len(headers):
                    headers[found] = (row, name, name_end, value, value_end)
                found += 1
            if at != stop or count < 0:
                return -1
            row += 1
        if at != end:
            return -1
    return found


@_inline
def _varint(data, at, end):
    """Return a number and where it ends; -1 where it does not, or did not begin."""
    number = np.uint64(0)
    shift = np.uint64(0)
    while 0 <= at < end and shift < _BITS:
        byte = np.uint64(data[at])
        number |= (byte & np.uint64(0x7F)) << shift
        at += 1
        if byte < _GOES_ON:
            return np.int64(number >> np.uint64(1)) ^ -np.int64(number & np.uint64(1)), at
        shift += np.uint64(7)
    return np.int64(0), -1


@_inline
def _bytes(data, at, end):
    """Return where some bytes begin, -1 for none, where they end, and where to go on."""
    length, at = _varint(data, at, end)
    if at < 0 or length > end - at:
        return -1, -1, -1
    if length < 0:
        return -1, -1, at
    return at, at + length, at + length
