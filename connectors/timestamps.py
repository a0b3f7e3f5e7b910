"""Timestamps of any common form -> milliseconds since the Unix epoch (UTC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import compress
from math import gcd, isfinite

import numpy as np
from numpy.typing import NDArray

from connectors.raw import Encoded, Raw, RawColumn
from pipeline.events import NO_CODE
from pipeline.settings import SettingsError, Source

RawTimes = RawColumn | NDArray[np.datetime64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PER_SECOND = (1, 1_000, 1_000_000, 1_000_000_000)
_SHOWN = 40
_DIGITS = 18  # of numbers that fit 64 bits
_NOWHERE = np.iinfo(np.int64).min
_MISSING = "timestamp is missing"


@dataclass(frozen=True, slots=True)
class Span:
    """The event times taken for real: earliest <= time < latest, in milliseconds.

    It also tells units apart: a number is in seconds, milliseconds, microseconds or nanoseconds,
    whichever of these (in this order) puts it inside the span.
    """

    earliest: int
    latest: int

    @classmethod
    def of(cls, source: Source) -> Span:
        """Read the span from the settings."""
        span = cls(*(_bound(name, getattr(source, name)) for name in ("earliest", "latest")))
        if span.earliest >= span.latest:
            raise SettingsError(
                f"source.earliest ({source.earliest}) must lie before "
                f"source.latest ({source.latest})"
            )
        return span

    def __str__(self) -> str:
        return " to ".join(
            f"{_EPOCH + bound * _MILLISECOND:%Y-%m-%d}" for bound in (self.earliest, self.latest)
        )


def milliseconds(raw: RawTimes, span: Span) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Read the timestamps of a batch.

    Args:
        raw: Numbers, their decimal text, ISO 8601 text (UTC where it names no zone), or an
            array of datetime64.
        span: The times allowed.

    Returns:
        Times (n,) and the reason for each row that has none; its time means nothing.
    """
    if isinstance(raw, np.ndarray):
        times = raw.astype("datetime64[ms]").astype(np.int64)
        outside = np.flatnonzero((times < span.earliest) | (times >= span.latest))
        return times, {row: _misplaced(raw[row], span) for row in outside.tolist()}
    if isinstance(raw, Encoded):
        times, reasons = milliseconds(raw.values, span)
        return np.append(times, _NOWHERE)[raw.codes], raw.rows(reasons | {NO_CODE: _MISSING})
    whole = _whole_numbers(raw)
    times = _mixed(raw, span) if whole is None else _rescale(whole, span)
    return times, _read_closely(raw, times, span)


def _bound(name: str, text: str) -> int:
    try:
        return _since_epoch(_iso(text))
    except ValueError:
        raise SettingsError(
            f"source.{name} = {text!r} is no date: write it as in 1990-01-01"
        ) from None


def _whole_numbers(raw: Sequence[Raw]) -> NDArray[np.int64] | None:
    """Read a batch that holds nothing but whole numbers, or nothing but the text of such."""
    kinds = set(map(type, raw))
    try:
        if kinds == {int}:
            return np.array(raw, np.int64)
        if kinds == {str}:
            return np.fromiter(map(int, raw), np.int64, len(raw))  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        pass
    return None


def _rescale(numbers: NDArray[np.int64], span: Span) -> NDArray[np.int64]:
    """Return each number's time, or `_NOWHERE` where no unit puts it inside the span."""
    times = np.full(len(numbers), _NOWHERE)
    for per_second in reversed(_PER_SECOND):  # seconds are written last and so come first
        low, high = (-(-bound * per_second // 1000) for bound in (span.earliest, span.latest))
        fits = (numbers >= low) & (numbers < high)
        common = gcd(per_second, 1000)  # nanoseconds times 1000 would overflow
        times[fits] = numbers[fits] * (1000 // common) // (per_second // common)
    return times


def _mixed(raw: Sequence[Raw], span: Span) -> NDArray[np.int64]:
    """Return the times of whole numbers among other values, `_NOWHERE` for the others."""
    whole = np.array([_is_whole(value) for value in raw], np.bool_)
    times = np.full(len(raw), _NOWHERE)
    numbers = [int(value) for value in compress(raw, whole)]  # type: ignore[arg-type]
    times[whole] = _rescale(np.array(numbers, np.int64), span)
    return times


def _is_whole(value: Raw) -> bool:
    if isinstance(value, str):
        return len(value) <= _DIGITS and value.isascii() and value.isdigit()
    return isinstance(value, int) and abs(value) < 10**_DIGITS


def _read_closely(raw: Sequence[Raw], times: NDArray[np.int64], span: Span) -> dict[int, str]:
    """Fill in the times that are `_NOWHERE`; return the reason for each that stays so."""
    reasons: dict[int, str] = {}
    for row in np.flatnonzero(times == _NOWHERE).tolist():
        try:
            times[row] = _time(raw[row], span)
        except ValueError as error:
            reasons[row] = str(error)
    return reasons


def _time(value: Raw, span: Span) -> int:
    """Read one timestamp; a ValueError says what is wrong with it."""
    if value is None or value == "":
        raise ValueError(_MISSING)
    number = _number(value)
    if number is None:
        candidates = [_since_epoch(_iso(str(value)))]
    elif isinstance(number, int):
        candidates = [number * 1000 // per_second for per_second in _PER_SECOND]
    elif not isfinite(number):
        raise ValueError(f"timestamp {str(value)[:_SHOWN]} is not a finite number")
    else:
        scaled = (number * (1000 / per_second) for per_second in _PER_SECOND)
        candidates = [round(time) for time in scaled if isfinite(time)]
    for time in candidates:
        if span.earliest <= time < span.latest:
            return time
    raise ValueError(_misplaced(value, span))


def _number(value: str | float) -> int | float | None:
    if not isinstance(value, str):
        return value
    if value[4:5] == "-":  # "2024-": failing twice before the date is read costs the most
        return None
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return None


def _iso(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
    except ValueError:
        raise ValueError(
            f"timestamp {text[:_SHOWN]!r} is neither a number nor ISO 8601, "
            "such as 2024-05-01T12:00:00Z"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _since_epoch(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def _misplaced(value: Raw | np.datetime64, span: Span) -> str:
    if isinstance(value, np.datetime64) and np.isnat(value):
        return _MISSING
    return (
        f"timestamp {str(value)[:_SHOWN]} lies outside {span}, read as seconds, milliseconds, "
        "microseconds, nanoseconds or a date (source.earliest and source.latest set the range)"
    )
