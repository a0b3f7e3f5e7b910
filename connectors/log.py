"""Append-only files of JSON lines that a crash cannot tear."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec


class JsonLines:
    """A file of JSON lines whose durable length the caller keeps.

    What was written after the last `flush` may be lost or torn by a crash; opened again with the
    length that `flush` returned, the file goes on from there.
    """

    def __init__(self, path: Path, length: int) -> None:
        """Open `path` and cut it to `length` bytes."""
        self.path = path
        self._file = path.open("ab")
        self._file.truncate(length)
        self._encoder = msgspec.json.Encoder()

    def write(self, record: Any) -> None:
        """Append a record."""
        self._file.write(self._encoder.encode(record) + b"\n")

    def flush(self) -> int:
        """Make what was written durable; return the length of the file in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file so that a crash leaves the old content or the new, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
