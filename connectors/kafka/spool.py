"""Closed windows on disk: handed from the process that consumes to the one that trains.

A window is one Arrow file, named by its end and by the hash of its content, that is seen whole or
not at all. It stays until the window is learnt.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.ipc

from connectors.log import write_atomically
from pipeline.events import NO_CODE, Clicks, Column
from pipeline.windows import Window, without

_TEXTS = ("user", "item", "category", "event_type", "session")
_NUMBERS = {"position": pa.int64(), "time": pa.int64(), "event_id": pa.uint64()}
_ABOUT = b"driftline"
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


class SpoolError(RuntimeError):
    """A spooled window is missing or damaged; the message says how to mend it."""


class _About(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says beside its clicks."""

    start: int
    end: int
    source: str
    sources: dict[str, int]


class Spool:
    """Windows by their ends, in a directory."""

    def __init__(self, directory: Path) -> None:
        """Open the directory, or make it."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def ends(self) -> list[int]:
        """Return the ends of the windows here, in order."""
        return sorted(
            {int(path.name.split(".")[0]) for path in self._directory.glob("[!.]*.arrow")}
        )

    def put(self, window: Window) -> None:
        """Write a window durably."""
        content = _encode(window)
        digest = hashlib.sha256(content).hexdigest()
        write_atomically(self._directory / f"{window.end}.{digest}.arrow", content)
        handle = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(handle)  # the name, too, must outlive a loss of power
        finally:
            os.close(handle)

    def get(self, end: int) -> Window:
        """Read the window that ends at `end`.

        Raises:
            SpoolError: it is not here, or its content is not what was written.
        """
        path = self._path(end)
        if path is None:
            raise SpoolError(f"{self._directory} holds no window that ends at {end}")
        return _read(path)

    def all(self) -> Iterator[Window]:
        """Read all windows, in order; those that are learnt meanwhile are passed over.

        Raises:
            SpoolError: the content of one is not what was written.
        """
        for end in self.ends():
            while (path := self._path(end)) is not None:
                with suppress(FileNotFoundError):  # learnt, or written anew without a user
                    yield _read(path)
                    break

    def remove(self, end: int) -> None:
        """Delete a window, if it is here."""
        path = self._path(end)
        if path is not None:
            path.unlink()

    def remove_torn(self) -> None:
        """Delete what a crash left half written; nobody may be writing meanwhile."""
        for path in self._directory.glob("*.tmp"):
            path.unlink()

    def forget(self, user: str) -> None:
        """Drop a user's clicks from all windows here; a second time where a first was cut off.

        Raises:
            SpoolError: a window is damaged.
        """
        for path in list(self._directory.glob("[!.]*.arrow")):
            window = _read(path)
            kept = without(user, window.clicks)
            if kept is not window.clicks:
                self.put(replace(window, clicks=kept))
                path.unlink()

    def _path(self, end: int) -> Path | None:
        return next(self._directory.glob(f"{end}.*.arrow"), None)


def _read(path: Path) -> Window:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.name.split(".")[1]:
        raise SpoolError(
            f"{path} is damaged: remove the learner's directory, and it starts over from the "
            "click topic"
        )
    return _decode(content)


def _encode(window: Window) -> bytes:
    clicks = window.clicks
    about = _About(start=window.start, end=window.end, source=clicks.source, sources=window.sources)
    columns = {name: pa.array(getattr(clicks, name), kind) for name, kind in _NUMBERS.items()}
    columns |= {name: _dictionary(getattr(clicks, name)) for name in _TEXTS}
    batch = pa.RecordBatch.from_pydict(columns)
    schema = batch.schema.with_metadata({_ABOUT: msgspec.json.encode(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema, options=_COMPRESSED) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return bytes(sink.getvalue())


def _decode(content: bytes) -> Window:
    with pa.ipc.open_file(pa.BufferReader(content)) as reader:
        about = msgspec.json.decode(reader.schema.metadata[_ABOUT], type=_About)
        batch = reader.get_batch(0)
    numbers = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in _NUMBERS}
    columns: dict[str, Any] = {name: _column(batch.column(name)) for name in _TEXTS}
    clicks = Clicks(source=about.source, **numbers, **columns)
    return Window(start=about.start, end=about.end, clicks=clicks, sources=about.sources)


def _dictionary(column: Column) -> Any:
    codes = pa.array(column.codes, mask=column.codes == NO_CODE)
    return pa.DictionaryArray.from_arrays(codes, pa.array(column.values, pa.string()))


def _column(array: Any) -> Column:
    codes = array.indices.fill_null(NO_CODE).to_numpy(zero_copy_only=False)
    return Column(array.dictionary.to_pylist(), codes.astype(np.int32))
