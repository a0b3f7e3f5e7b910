"""What the readers of all formats share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from connectors.validate import RawClicks


class FileError(ValueError):
    """A file cannot be read; the message says which, where, and how to mend it."""


class EmptyFileError(FileError):
    """A file holds no event; among others that is no fault, as such are written, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A batch of n events of a file."""

    raw: RawClicks
    places: Sequence[int]  # (n,) lines, or rows of a Parquet file, from 1
    record: Callable[[int], bytes]  # the original of one of the n
    bytes_read: int  # of the file as it lies on the disk, up to the batch's end


def open_file(path: Path) -> BufferedReader:
    """Open a file to read bytes.

    Raises:
        FileError: it cannot be opened.
    """
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise FileError(f"{path}: no such file. Check the name and the folder") from None
    except IsADirectoryError:
        raise FileError(f"{path}: is a directory. Name the files in it: {path}/*") from None
    except PermissionError:
        raise FileError(
            f"{path}: permission denied. Allow the user who runs driftline to read it"
        ) from None
    except OSError as error:
        raise FileError(f"{path}: cannot be opened: {error.strerror}") from None
