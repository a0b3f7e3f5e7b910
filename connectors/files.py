"""Clicks out of files: CSV, JSONL and Parquet, plain or gzip, of any column names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from connectors.layout import full_names
from connectors.readers.base import Chunk, EmptyFileError, FileError, open_file
from connectors.readers.delimited import read_csv
from connectors.readers.json_lines import read_jsonl
from connectors.readers.lines import Lines
from connectors.readers.parquet import read_parquet
from connectors.timestamps import Span
from connectors.validate import Reject, validate
from connectors.wire import excerpt
from pipeline.events import Clicks, concatenate
from pipeline.settings import Source

__all__ = ["FileError", "Reading", "read"]

log = logging.getLogger(__name__)

SOURCE = "file"
"""The name of the log that files make up, whatever their paths."""

_Reader = Callable[[Path, Mapping[str, str], int], Iterator[Chunk]]
_READERS: dict[str, _Reader] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": read_parquet,
}


class Reading(Iterator[tuple[Clicks, list[Reject]]]):
    """Batches of clicks and the rejects among them, with the progress made."""

    def __init__(
        self, paths: Sequence[Path], settings: Source, *, batch_size: int, sort: bool
    ) -> None:
        """Use `read`."""
        self._readers = [_reader(path) for path in paths]
        self._sizes = [path.stat().st_size for path in paths]
        self._paths = paths
        self._given = full_names(settings.map)
        self._span = Span.of(settings)
        self._batch_size = batch_size
        self._bytes_read = 0
        self._batches = self._sorted() if sort else self._streamed()

    def __next__(self) -> tuple[Clicks, list[Reject]]:
        return next(self._batches)

    @property
    def fraction(self) -> float:
        """The share of the bytes that has been read, 0 to 1."""
        return self._bytes_read / max(1, sum(self._sizes))

    def _streamed(self) -> Iterator[tuple[Clicks, list[Reject]]]:
        position = 0
        before = 0
        empty: list[EmptyFileError] = []
        for path, reader, size in zip(self._paths, self._readers, self._sizes, strict=True):
            try:
                for chunk in reader(path, self._given, self._batch_size):
                    self._bytes_read = before + chunk.bytes_read
                    yield self._validated(path, chunk, position)
                    position += len(chunk.places)
            except EmptyFileError as error:
                empty.append(error)
            before += size
            self._bytes_read = before
        if empty and not position:
            raise empty[0]
        for fault in empty:
            log.warning("%s", fault)

    def _validated(self, path: Path, chunk: Chunk, first: int) -> tuple[Clicks, list[Reject]]:
        position = np.arange(first, first + len(chunk.places))
        clicks, faults = validate(chunk.raw, source=SOURCE, position=position, span=self._span)
        rejects = [
            Reject(
                source=str(path),
                position=chunk.places[row],
                reason=reason,
                record=excerpt(chunk.record(row)),
            )
            for row, reason in faults.items()
        ]
        return clicks, rejects

    def _sorted(self) -> Iterator[tuple[Clicks, list[Reject]]]:
        batches: list[Clicks] = []
        rejects: list[Reject] = []
        failure: FileError | None = None
        try:
            for clicks, wrong in self._streamed():
                batches.append(clicks)
                rejects += wrong
        except FileError as error:
            failure = error
        if batches:
            everything = concatenate(batches)
            order = np.argsort(everything.time, kind="stable")
            for start in range(0, max(1, len(order)), self._batch_size):
                rows = order[start : start + self._batch_size]
                position = np.arange(start, start + len(rows))
                yield replace(concatenate([everything.take(rows)]), position=position), rejects
                rejects = []
        if failure:
            raise failure


def read(
    paths: Sequence[Path], settings: Source, *, batch_size: int = 8192, sort: bool = False
) -> Reading:
    """Read files, one after the other, as one log.

    The format is known by the name, else by the content. A position is the index of an event over
    all files, rejected ones counted; with `sort` it is the index in the order of time.

    Args:
        paths: The files.
        settings: The columns' names as far as they cannot be recognised, and the times allowed.
        batch_size: Events in a batch; a batch may hold fewer.
        sort: Order the events by time, those of the same time as they stand. Takes memory for
            all of them; without it memory is bounded.

    Returns:
        An iterator over batches. It raises a `FileError` where a file cannot be read any further,
        when all events before were yielded.

    Raises:
        FileError: a file cannot be opened.
        SettingsError: the map or the range of times is wrong.
    """
    return Reading(paths, settings, batch_size=batch_size, sort=sort)


def _reader(path: Path) -> _Reader:
    open_file(path).close()
    name = path.name.lower().removesuffix(".gz")
    for suffix, reader in _READERS.items():
        if name.endswith(suffix):
            return reader
    with Lines(path) as lines:
        beginning = b"".join(lines.take(1))
    if beginning.startswith(b"PAR1"):
        return read_parquet
    return read_jsonl if beginning.lstrip(b"\xef\xbb\xbf \t").startswith(b"{") else read_csv
