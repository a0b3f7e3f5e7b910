"""Parquet files. Columns stay in Arrow until they are dictionary-encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from connectors.layout import LayoutError, recognise
from connectors.raw import Encoded, Raw
from connectors.readers.base import Chunk, EmptyFileError, FileError, open_file
from connectors.validate import RawClicks

_BROKEN = (pa.ArrowException, OSError)


_Times = Sequence[Raw] | NDArray[np.datetime64]


def read_parquet(path: Path, given: Mapping[str, str], size: int) -> Iterator[Chunk]:
    """Read a Parquet file.

    Args:
        path: The file.
        given: Our fields' full names -> its columns, as far as they cannot be recognised.
        size: How many events make a batch.

    Raises:
        FileError: the file cannot be read, or is damaged; the events before were yielded.
    """
    with open_file(path) as raw:
        try:
            file = pq.ParquetFile(raw, page_checksum_verification=True)
        except _BROKEN as error:
            raise _damaged(path, 1, error) from None
        fields = _fields(path, file.schema_arrow, given)
        rows = file.metadata.num_rows
        if not rows:
            raise EmptyFileError(f"{path}: has columns but no rows. Check how it was written")
        total = path.stat().st_size
        first = 1
        for batch in _batches(path, file, sorted(set(fields.values())), size):
            places = range(first, first + len(batch))
            first = places.stop
            yield _chunk(batch, fields, places, total * (first - 1) // rows)


def _fields(path: Path, schema: pa.Schema, given: Mapping[str, str]) -> dict[str, str]:
    try:
        fields = recognise(schema.names, given)
    except LayoutError as error:
        raise FileError(f"{path}: {error}") from None
    for field, column in fields.items():
        if schema.names.count(column) > 1:
            raise FileError(
                f"{path}: has more than one column {column!r}, for {field}. Give each a name of "
                f"its own, or name another: --map {field}=COLUMN"
            )
        kind = schema.field(column).type
        if not _readable(kind, timestamp=field == "timestamp"):
            raise FileError(
                f"{path}: column {column!r} for {field} is of type {kind}; write it as text "
                f"or numbers, or name another: --map {field}=COLUMN"
            )
    return fields


def _readable(kind: pa.DataType, *, timestamp: bool) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        _is_text(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
        or (timestamp and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)))
    )


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _batches(
    path: Path, file: pq.ParquetFile, columns: list[str], size: int
) -> Iterator[pa.RecordBatch]:
    batches = file.iter_batches(batch_size=size, columns=columns)
    row = 1
    while True:
        try:
            batch = next(batches, None)
        except _BROKEN as error:
            raise _damaged(path, row, error) from None
        if batch is None:
            return
        row += len(batch)
        yield batch


def _damaged(path: Path, row: int, error: Exception) -> FileError:
    return FileError(
        f"{path}: no sound Parquet from row {row} on: {error}. "
        "What comes before was read; fetch or write the file again"
    )


def _chunk(
    batch: pa.RecordBatch, fields: Mapping[str, str], places: range, bytes_read: int
) -> Chunk:
    columns = {
        field: _encode(batch.column(name)) for field, name in fields.items() if field != "timestamp"
    }
    times = _times(batch.column(fields["timestamp"]))
    return Chunk(
        raw=RawClicks(timestamp=times, columns=columns, faults={}),
        places=places,
        record=partial(_describe, columns, times),
        bytes_read=bytes_read,
    )


def _encode(array: pa.Array) -> Encoded:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        array = array.cast(pa.int64())
    elif pa.types.is_decimal(array.type):
        array = array.cast(pa.string())
    if array.type in (pa.string(), pa.large_string()):
        array = array.cast(pa.large_binary())  # Arrow does not check that text is UTF-8
    encoded = array.dictionary_encode(null_encoding="encode")
    values = encoded.dictionary.to_pylist()
    if array.type in (pa.binary(), pa.large_binary()):
        decoded = (value and value.decode(errors="surrogateescape") for value in values)
        values = [value or None for value in decoded]  # no text is no value, as in CSV
    return Encoded(values, _integers(encoded.indices))


def _times(array: pa.Array) -> _Times:
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(array.type):
        times = np.full(len(array), "NaT", f"datetime64[{array.type.unit}]")
        given = _integers(pc.indices_nonzero(array.is_valid()))
        times.view(np.int64)[given] = _integers(array.cast(pa.int64()).drop_null())
        return times
    encoded = _encode(array)
    return [encoded.values[code] for code in encoded.codes.tolist()]


def _integers(array: pa.Array) -> NDArray[Any]:
    """Copy an array without nulls; `to_numpy` imports pandas, where that is installed."""
    return np.from_dlpack(array).copy()


def _describe(columns: Mapping[str, Encoded], times: _Times, row: int) -> bytes:
    """Write a row as text."""
    event = {"timestamp": times[row]}
    event |= {field: column.values[column.codes[row]] for field, column in columns.items()}
    text = ", ".join(f"{field}: {value}" for field, value in event.items())
    return text.encode(errors="surrogateescape")
