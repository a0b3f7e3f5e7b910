"""JSONL files: a JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from connectors.envelope import opened
from connectors.layout import FIELDS, LayoutError, recognise
from connectors.readers.base import Chunk, EmptyFileError, FileError
from connectors.readers.lines import Lines
from connectors.wire import ClickDecoder

_BOM = b"\xef\xbb\xbf"


def read_jsonl(path: Path, given: Mapping[str, str], size: int) -> Iterator[Chunk]:
    """Read a JSONL file; a map's "data.user.id" is a key of nested objects.

    Fields that the map leaves out are recognised among the keys of the first batch; those that come
    later, by our own names. Of structured CloudEvents the data are read, unless the map itself
    leads through them.

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
            decoder = decoder or ClickDecoder(_later(_fields(path, records, given)))
            yield Chunk(
                raw=decoder.columns(records),
                places=places,
                record=records.__getitem__,
                bytes_read=lines.bytes_read,
            )
        if decoder is None:
            raise EmptyFileError(f"{path}: is empty. Check how it was written")


def _fields(path: Path, records: Sequence[bytes], given: Mapping[str, str]) -> dict[str, str]:
    read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    opens = not any(name.split(".")[0] == "data" for name in given.values())
    keys: dict[str, None] = {}
    enveloped = False
    for record in records:
        try:
            found = read(record)
            if opens and "specversion" in found:
                found, enveloped = read(opened(record)[0]), True
            keys |= dict.fromkeys(found)
        except (ValueError, RecursionError):
            continue
    if not keys:
        raise FileError(
            f"{path}: none of its first {len(records)} lines is a JSON object. "
            "Write it as JSONL: an object a line"
        )
    flat = [key for key in keys if "." not in key]  # a dot would be read as a path
    nested = [name for name in given.values() if "." in name and name.split(".")[0] in keys]
    return _recognised(path, [*flat, *nested], given, spare=["timestamp"] if enveloped else [])


def _later(fields: dict[str, str]) -> dict[str, str]:
    """Add what may come yet, where its name does not stand for something else."""
    taken = {key.split(".")[0] for key in fields.values()}
    return {field: field for field in FIELDS.values() if field not in taken} | fields


def _recognised(
    path: Path, names: list[str], given: Mapping[str, str], *, spare: list[str]
) -> dict[str, str]:
    """Find the fields' names; `spare` ones are known beside the records, and come last."""
    try:
        return recognise(names, given)
    except LayoutError as error:
        if spare:
            return _recognised(path, [*names, *spare], given, spare=[])
        raise FileError(f"{path}: {error}") from None
