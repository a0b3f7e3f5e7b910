"""Whether a rejected record, as a file of rejects shows it, mentions a user."""

from __future__ import annotations

import csv
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from io import StringIO
from typing import Any

from connectors.readers.delimited import DELIMITERS
from connectors.validate import SESSION_PREFIX
from connectors.wire import EXCERPT

_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(["\\/bfnrt]))')
_SIGNS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ROWS = (".csv", ".tsv")
_PACKED = re.compile(r'"data_base64"\s*:\s*"([^"]*)')


def mentions(record: str, user: str, *, source: str) -> bool:
    r"""Tell whether a record mentions a user; where in doubt, it does.

    In JSON and in a row of CSV it does so in a whole value. Elsewhere whole words are compared,
    for in what cannot be read, values cannot be told apart.

    Args:
        record: As it is shown: of a file cut to `EXCERPT` characters, and bytes that are no text
            as \xNN.
        user: Who it is about; of "session:s77" a record bears "s77".
        source: The file or topic that the record is of.
    """
    names = {user, user.removeprefix(SESSION_PREFIX)} - {""}
    cut = len(record) >= EXCERPT
    return _mentions(record, names, source, cut=cut) or any(
        data is None or _mentions(data, names, source, cut=cut) for data in _unpacked(record)
    )


def _mentions(record: str, names: set[str], source: str, *, cut: bool) -> bool:
    texts = [record, _unescaped(record)]
    values = _values_of_json(record)
    if values is None and not cut and source.lower().removesuffix(".gz").endswith(_ROWS):
        values = _values_of_csv(texts)
    if values is not None:
        return not names.isdisjoint(text for value in values for text in (value, value.strip()))
    return any(
        _holds(text, name) or (cut and _breaks_off_in(text, name))
        for text in texts
        for name in names
    )


def _unpacked(record: str) -> Iterator[str | None]:
    """Yield what a CloudEvent bears in base64, None where that cannot be read."""
    for data in _PACKED.findall(record):
        try:
            yield b64decode(data, validate=True).decode(errors="backslashreplace")
        except ValueError:
            yield None


def _unescaped(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        number = found[1] or found[2]
        return chr(int(number, 16)) if number else _SIGNS.get(found[3], found[3])

    whole = _ESCAPE.sub(character, text)
    return whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # joins pairs


def _values_of_json(record: str) -> list[str] | None:
    """Return keys and values as text, those of nested objects and of repeated keys included."""
    try:
        found = json.loads(
            record, object_pairs_hook=list, parse_int=str, parse_float=_number_as_text
        )
    except (ValueError, RecursionError):
        return None
    values: list[str] = []
    waiting: list[Any] = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += value
        elif value is not None:
            values.append(str(value))
    return values


def _number_as_text(text: str) -> str:
    number = float(text)
    return str(int(number)) if number.is_integer() else text


def _values_of_csv(texts: list[str]) -> list[str] | None:
    """Return the fields at any of the delimiters; None where these do not make a row for sure."""
    values: list[str] = []
    fields = 0
    try:
        for text in texts:
            for delimiter in DELIMITERS:
                rows = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
                for row in rows:
                    fields = max(fields, len(row))
                    values += row
    except csv.Error:
        return None
    return values if fields > 1 else None


def _holds(text: str, name: str) -> bool:
    """Tell whether a name stands in a text and is no part of a longer word."""
    before = r"(?<!\w)" if re.match(r"\w", name) else ""
    after = r"(?!\w)" if re.match(r"\w", name[-1]) else ""
    return re.search(before + re.escape(name) + after, text) is not None


def _breaks_off_in(text: str, name: str) -> bool:
    return any(_holds(text[-n - 1 :], name[:n]) for n in range(1, len(name)))
