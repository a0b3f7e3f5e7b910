"""The lines of a file, plain or gzip, in memory that is bounded whatever a line's length."""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Self

from connectors.readers.base import FileError, open_file

MAX_LINE = 1 << 20
"""The longest line that is read whole, in bytes; of a longer one the beginning is kept."""

_BLOCK = 1 << 18
_GZIP = b"\x1f\x8b"


class Lines:
    """The lines of a file from its first, without their line feeds."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            FileError: it cannot be opened.
        """
        self._path = path
        self._raw = open_file(path)
        self._stream: BufferedReader | gzip.GzipFile = self._raw
        if self._raw.peek(len(_GZIP)).startswith(_GZIP):
            self._stream = gzip.GzipFile(fileobj=self._raw)
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._ended = False
        self._failure: FileError | None = None
        self.number = 1  # of the line that comes next

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._raw.close()

    @property
    def bytes_read(self) -> int:
        """How much of the file, as it lies on the disk, has been read."""
        return self._raw.tell()

    def take(self, count: int) -> list[bytes]:
        """Return the next lines, `count` of them while there are as many; none at the end.

        Raises:
            FileError: the file breaks here; all lines before have been returned.
        """
        while len(self._lines) < count and not self._ended:
            self._fill()
        if self._failure and not self._lines:
            raise self._failure
        taken = [self._lines.popleft() for _ in range(min(count, len(self._lines)))]
        self.number += len(taken)
        return taken

    def put_back(self, lines: list[bytes]) -> None:
        """Let lines just taken come again."""
        self._lines.extendleft(reversed(lines))
        self.number -= len(lines)

    def _fill(self) -> None:
        try:
            block = self._stream.read1(_BLOCK)
        except (EOFError, OSError, zlib.error) as error:
            self._ended = True
            self._failure = self._broken(error)
            return
        if block:
            lines = (self._rest + block).split(b"\n")
            self._rest = lines.pop()[: MAX_LINE + 1]
            self._lines += lines
        else:
            self._ended = True
            if self._rest:
                self._lines.append(self._rest)

    def _broken(self, error: Exception) -> FileError:
        line = self.number + len(self._lines)
        return FileError(
            f"{self._path}: breaks off in line {line}, at byte {self.bytes_read} of the file: "
            f"{error}. What comes before was read; fetch or write the file again"
        )
