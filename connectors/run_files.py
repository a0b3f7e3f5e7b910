"""The files in a replay's directory, read so that whoever damaged one is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.run_error import RunError

_Kind = TypeVar("_Kind")


def read_lines(path: Path, kind: type[_Kind]) -> Iterator[_Kind]:
    """Yield what each line of a file of JSON lines holds; nothing where there is no file.

    Raises:
        RunError: a line is none of its kind.
    """
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                yield decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise _damaged(f"{path}, line {number}", error) from None


def read_table(path: Path, **options: Any) -> pa.Table:
    """Read a Parquet file; `options` are those of `pyarrow.parquet.read_table`.

    Raises:
        RunError: it is none, or damaged.
        OSError: it cannot be opened.
    """
    path.open("rb").close()  # what fails here says nothing of the content
    try:
        return pq.read_table(path, **options)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(str(path), error) from None


def _damaged(where: str, error: Exception) -> RunError:
    reason = str(error).strip().partition("\n")[0]
    return RunError(f"{where} is damaged: {reason}; replay anew (--overwrite)")
