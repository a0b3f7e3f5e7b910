"""Raw columns of a batch -> clicks. One set of rules for files and for Kafka.

Text is dictionary-encoded first, so that a value is checked once a batch, not once an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import cast

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from connectors.raw import Raw, RawColumn, encode
from connectors.timestamps import RawTimes, Span, milliseconds
from pipeline.events import NO_CODE, Clicks, Column

MAX_TEXT = 512
"""The longest text of a field, in bytes of UTF-8."""

DEFAULT_TYPE = "click"
SESSION_PREFIX = "session:"
"""Stands before the session id where that takes the place of a missing user id."""

_TEXT_FIELDS = ("user_id", "item_id", "category", "event_type", "session_id", "event_id")
_SHOWN = 40
_SHORT = 10**100


@dataclass(frozen=True, slots=True, kw_only=True)
class RawClicks:
    """A batch of n events as received: raw columns by the field names of `events.Click`.

    A field that no event carries may be left out. `faults` gives the reason for each row that
    could not even be read; what its columns hold does not matter.
    """

    timestamp: RawTimes  # (n,)
    columns: Mapping[str, RawColumn]  # each (n,)
    faults: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """An event that could not be used, and why.

    `source` and `position` say where it stands: a file and its line (of a Parquet file the row),
    from 1; or a topic's partition and the offset. `record` is what was received, of files the
    first 500 bytes; None stands for a record without a value.
    """

    source: str
    position: int
    reason: str
    record: bytes | None


def validate(
    raw: RawClicks, *, source: str, position: NDArray[np.int64], span: Span
) -> tuple[Clicks, dict[int, str]]:
    """Check a batch.

    Args:
        raw: The batch, n events.
        source: The log's name.
        position: The events' places in it, strictly increasing, (n,).
        span: The event times allowed.

    Returns:
        The events that hold, in order, and the reason for each row that does not.
    """
    size = len(position)
    faults = dict(raw.faults)
    time, misplaced = milliseconds(raw.timestamp, span)
    text: dict[str, Column] = {}
    for field in _TEXT_FIELDS:
        text[field], wrong = _text_column(field, raw.columns.get(field), size)
        _add(faults, wrong)
    _add(faults, misplaced)
    _add(faults, _wrong_prices(raw.columns.get("price")))

    user = _subjects(text["user_id"], text["session_id"])
    _add(faults, _missing(text["item_id"], "item_id is missing"))
    _add(faults, _missing(user, "user_id and session_id are both missing"))
    clicks = Clicks(
        source=source,
        position=position,
        time=time,
        user=user,
        item=text["item_id"],
        category=text["category"],
        event_type=_filled(text["event_type"], DEFAULT_TYPE),
        session=text["session_id"],
        event_id=_hashes(text["event_id"]),
    )
    if not faults:
        return clicks, faults
    good = np.ones(size, np.bool_)
    good[list(faults)] = False
    return clicks.take(np.flatnonzero(good)), dict(sorted(faults.items()))


def _add(faults: dict[int, str], more: Mapping[int, str]) -> None:
    for row, reason in more.items():
        faults.setdefault(row, reason)


def _is_blank(raw: RawColumn) -> bool:
    if not isinstance(raw, list) or (raw and raw[0] is not None):
        return False  # at once: to count nothing among texts takes longer than to encode some
    return raw.count(None) == len(raw)


def _text_column(field: str, raw: RawColumn | None, size: int) -> tuple[Column, dict[int, str]]:
    """Return the field as text and the reason for each row where it cannot be text."""
    if raw is None or _is_blank(raw):
        return Column([], np.full(size, NO_CODE, np.int32)), {}
    encoded = encode(raw)
    clean = _clean(encoded.values)
    if clean is not None:
        return Column(clean, encoded.codes), {}
    texts: dict[str, int] = {}
    reasons: dict[int, str] = {}
    recode = np.full(len(encoded.values) + 1, NO_CODE, np.int32)  # NO_CODE picks the last
    for code, value in enumerate(encoded.values):
        try:
            text = _text(field, value)
        except ValueError as error:
            reasons[code] = str(error)
        else:
            if text:
                recode[code] = texts.setdefault(text, len(texts))
    return Column(list(texts), recode[encoded.codes]), encoded.rows(reasons)


def _clean(values: Sequence[Raw]) -> list[str] | None:
    """Return the values as text in a few passes, or None where some need a closer look."""
    kinds = set(map(type, values))
    if kinds == {int}:
        whole = cast("list[int]", values)
        return list(map(str, whole)) if min(whole) > -_SHORT and max(whole) < _SHORT else None
    if kinds != {str}:
        return None
    texts = cast("list[str]", values)
    joined = "".join(texts)
    longest = max(map(len, texts))
    if joined.isascii() and longest <= MAX_TEXT and "\0" not in joined and "" not in texts:
        return texts
    return None


def _text(field: str, value: Raw) -> str:
    """Return the value as text, empty for none; a ValueError says why it cannot be text."""
    if value is None:
        return ""
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"{field} {value} is neither text nor a whole number")
        value = int(value)
    text = str(value)
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{field} is not valid UTF-8") from None
    if length > MAX_TEXT:
        raise ValueError(f"{field} is {length} bytes long; at most {MAX_TEXT} are allowed")
    if "\0" in text:
        raise ValueError(f"{field} {text[:_SHOWN]!r} contains a NUL byte")
    return text


def _wrong_prices(raw: RawColumn | None) -> dict[int, str]:
    if raw is None or _is_blank(raw):
        return {}
    encoded = encode(raw)
    reasons = {
        code: f"price {str(value)[:_SHOWN]!r} is not a finite number"
        for code, value in enumerate(encoded.values)
        if not _is_price(value)
    }
    return encoded.rows(reasons)


def _is_price(value: Raw) -> bool:
    try:
        return value is None or value == "" or isfinite(float(value))
    except (ValueError, OverflowError):
        return False


def _missing(column: Column, reason: str) -> dict[int, str]:
    return {int(row): reason for row in np.flatnonzero(column.codes == NO_CODE)}


def _filled(column: Column, default: str) -> Column:
    """Return the column with the default where it has none."""
    if (column.codes != NO_CODE).all():
        return column
    texts = {text: code for code, text in enumerate(column.values)}
    code = texts.setdefault(default, len(texts))
    return Column(list(texts), np.where(column.codes == NO_CODE, np.int32(code), column.codes))


def _subjects(user: Column, session: Column) -> Column:
    """Return the users, the session in the place of each that is missing."""
    missing = user.codes == NO_CODE
    if not missing.any() or not session.values:
        return user
    texts = {text: code for code, text in enumerate(user.values)}
    recode = np.full(len(session.values) + 1, NO_CODE, np.int32)
    for code in np.unique(session.codes[missing]):
        if code != NO_CODE:
            subject = SESSION_PREFIX + session.values[code]
            recode[code] = texts.setdefault(subject, len(texts))
    return Column(list(texts), np.where(missing, recode[session.codes], user.codes))


def _hashes(column: Column) -> NDArray[np.uint64]:
    """Hash the event ids; 0 is kept for none."""
    hashes = np.zeros(len(column.values) + 1, np.uint64)  # NO_CODE picks the last: none
    for code, text in enumerate(column.values):
        hashes[code] = xxh3_64_intdigest(text.encode()) or 1
    return hashes[column.codes]
