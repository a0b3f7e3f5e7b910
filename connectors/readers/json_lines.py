"""JSONL files: a JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from connectors.layout import LayoutError, recognise
from connectors.readers.base import Chunk, FileError
from connectors.readers.lines import Lines
from connectors.wire import ClickDecoder

_BOM = b"\xef\xbb\xbf"


def read_jsonl(path: Path, given: Mapping[str, str], size: int) -> Iterator[Chunk]:
    """Read a JSONL file; a map's "data.user.id" is a key of nested objects.

    Fields that the map leaves out are recognised among the keys of the first batch.

    Args:
        path: The file, plain or gzip.
        given: Our fields' full names -> its keys, as far as they cannot be recognised.
        size: How many events make a batch.

    Raises:
        FileError: the file cannot be read, or breaks off; the events before were yielded.
    """
    with Lines(path) as lines:
        decoder: ClickDecoder | None = None
        while taken := lines.take(size):
            first = lines.number - len(taken)
            if first == 1:
                taken[0] = taken[0].removeprefix(_BOM)
            places = [first + at for at, line in enumerate(taken) if line.strip()]
            if not places:
                continue
            records = [taken[place - first] for place in places]
            decoder = decoder or ClickDecoder(_fields(path, records, given))
            yield Chunk(
                raw=decoder.columns(records),
                places=places,
                record=records.__getitem__,
                bytes_read=lines.bytes_read,
            )
        if decoder is None:
            raise FileError(f"{path}: is empty. Check how it was written")


def _fields(path: Path, records: Sequence[bytes], given: Mapping[str, str]) -> dict[str, str]:
    read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    keys: dict[str, None] = {}
    for record in records:
        try:
            keys |= dict.fromkeys(read(record))
        except (ValueError, RecursionError):
            continue
    if not keys:
        raise FileError(
            f"{path}: none of its first {len(records)} lines is a JSON object. "
            "Write it as JSONL: an object a line"
        )
    flat = [key for key in keys if "." not in key]  # a dot would be read as a path
    nested = [name for name in given.values() if "." in name and name.split(".")[0] in keys]
    try:
        return recognise([*flat, *nested], given)
    except LayoutError as error:
        raise FileError(f"{path}: {error}") from None
