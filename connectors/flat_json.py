"""Flat JSON objects -> dictionary-encoded columns, compiled.

It reads what producers nearly always write: an object of texts without escapes, and of numbers.
What it is not sure of it leaves to a complete decoder, which alone says what a record holds, or
what is wrong with it; so it has no opinion of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import ne

import numba
import numpy as np
from numpy.typing import NDArray

from connectors.packed import Packed, Places
from connectors.raw import Encoded, Raw
from pipeline.events import NO_CODE

_compile = numba.njit(cache=True, nogil=True)
_inline = numba.njit(cache=False, nogil=True, forceinline=True)  # calls would cost a quarter

_TAB, _NEWLINE, _RETURN, _SPACE = b"\t\n\r "
_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _COLON, _COMMA, _MINUS, _POINT = b'"\\{}:,-.'
_ZERO, _NINE, _FIRST_OF_NULL, _LAST_ASCII = b"09n\x7f"
_LITERALS = np.frombuffer(b"nulltruefalse", np.uint8)
_NULL, _TRUE, _FALSE = (0, 4), (4, 8), (8, 13)
_PLAIN = np.array([byte >= _SPACE and byte not in (_QUOTE, _BACKSLASH) for byte in range(256)])
"""Whether a byte stands for itself in a text."""
_LONGEST_NUMBER = 19
"""Characters, as of nanoseconds since 1970: it fits 64 bits, and with a fraction it is finite."""
_NOWHERE = -1
"""In place of where something ends: it is left."""


@dataclass(frozen=True, slots=True)
class Flat:
    """What n records hold: a column a key, and the rows that are left, for which columns have none.

    Whole numbers are there as their text.
    """

    columns: dict[str, Encoded]
    left: list[int]


class FlatReader:
    """Reads some keys of flat objects."""

    def __init__(
        self,
        keys: Sequence[str],
        marks: Mapping[str, str | None],
        *,
        fractions: Collection[str],
        longest: int,
    ) -> None:
        """Take what to read.

        Args:
            keys: no key twice.
            marks: further keys; a record where such a one has another value than this is left,
                where this is None any.
            fractions: the keys for which 1.50 is read, as the text that it is.
            longest: the bytes of a record that is read, at most.
        """
        self._names = keys
        self._usual = list(marks.values())
        self._longest = longest
        quoted = [f'"{key}"'.encode() for key in (*keys, *marks)]
        self._keys = np.frombuffer(b"".join(quoted), np.uint8)
        self._ends = np.cumsum([len(key) for key in quoted])
        self._fractions = np.array([key in fractions for key in (*keys, *marks)], np.bool_)

    def read(self, records: Packed) -> Flat:
        """Read n records; those without value are left."""
        keys, rows = len(self._ends), len(records)
        codes = np.full((keys, rows), NO_CODE, np.int32)
        starts, stops = np.empty((2, keys, rows), np.int64)
        counts = np.zeros(keys, np.int64)
        is_ascii = np.ones(keys, np.bool_)
        is_left = np.ones(rows, np.bool_)
        _read(
            np.frombuffer(records.data, np.uint8),
            records.starts,
            records.stops,
            self._longest,
            self._keys,
            self._ends,
            self._fractions,
            codes,
            starts,
            stops,
            counts,
            is_ascii,
            is_left,
        )
        texts = _Texts(records)
        values: list[Sequence[str | None]] = []
        for key, count in enumerate(counts.tolist()):
            places = starts[key, :count], stops[key, :count]
            values.append(texts.ascii(*places) if is_ascii[key] else texts.utf8(*places))
        for key in np.flatnonzero(~is_ascii).tolist():
            is_left |= _bears(codes[key], values[key], lambda value: value is None)
        for key, usual in enumerate(self._usual, start=len(self._names)):
            is_left |= _bears(codes[key], values[key], partial(ne, usual))
        codes[:, is_left] = NO_CODE
        columns = {
            name: Encoded(values[key], codes[key].copy()) for key, name in enumerate(self._names)
        }
        return Flat(columns, np.flatnonzero(is_left).tolist())


def _bears(
    codes: NDArray[np.int32], values: Sequence[Raw], wanted: Callable[[Raw], bool]
) -> NDArray[np.bool_]:
    """Tell for each row whether it bears one of the values wanted."""
    return np.isin(codes, [code for code, value in enumerate(values) if wanted(value)])


class _Texts:
    """Texts out of the bytes of some records."""

    def __init__(self, packed: Packed) -> None:
        present = packed.starts >= 0
        self._first = int(packed.starts[present].min(initial=len(packed.data)))
        end = int(packed.stops[present].max(initial=self._first))
        self._bytes = packed.data[self._first : end]
        self._latin = self._bytes.decode("latin-1")  # a byte a character, at the same place

    def ascii(self, starts: Places, stops: Places) -> list[str]:
        """Return the texts between some places."""
        return [self._latin[start:stop] for start, stop in self._within(starts, stops)]

    def utf8(self, starts: Places, stops: Places) -> list[str | None]:
        """Return the texts between some places, None for what is none."""
        return [_utf8(self._bytes[start:stop]) for start, stop in self._within(starts, stops)]

    def _within(self, starts: Places, stops: Places) -> Iterator[tuple[int, int]]:
        return zip((starts - self._first).tolist(), (stops - self._first).tolist(), strict=True)


def _utf8(text: bytes) -> str | None:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


@_compile
def _read(
    data,
    begins,
    ends,
    longest,
    keys,
    key_ends,
    fractions,
    codes,
    starts,
    stops,
    counts,
    is_ascii,
    is_left,
):
    """Read n records.

    Args:
        data: their bytes, among others.
        begins: where each begins, -1 for none, (n,).
        ends: where each ends, (n,).
        longest: how many bytes one may have.
        keys: the k keys in quotes, one behind the other.
        key_ends: where each ends, (k,).
        fractions: whether a number of a key may have a fraction, (k,).
        codes: `NO_CODE`, to be filled in with the values' codes, (k, n).
        starts: filled in with where the value of each code begins, (k, n).
        stops: filled in with where it ends, (k, n).
        counts: zeros, to be filled in with how many codes there are, (k,).
        is_ascii: True, to be filled in with whether all values of a key are ASCII, (k,).
        is_left: True, to be filled in, (n,).
    """
    slots = 1
    while slots < 2 * len(ends):
        slots *= 2
    table = np.full((len(key_ends), slots), NO_CODE, np.int32)
    value = np.empty((len(key_ends), 2), np.int64)
    for row in range(len(ends)):
        begin, end = begins[row], ends[row]
        if begin < 0 or end - begin > longest:
            continue
        if _object(data, begin, end, keys, key_ends, fractions, value):
            is_left[row] = False
            for key in range(len(key_ends)):
                if value[key, 0] >= 0:
                    codes[key, row] = _code(
                        data, key, value, table, starts, stops, counts, is_ascii
                    )


@_inline
def _object(data, at, end, keys, key_ends, fractions, value):
    """Note where the values of an object begin and end; return whether it could be read."""
    for key in range(len(key_ends)):
        value[key, 0] = _NOWHERE
        value[key, 1] = _NOWHERE
    at = _blank(data, at, end)
    if at == end or data[at] != _OPEN:
        return False
    following = 0
    mark = _COMMA
    while mark == _COMMA:
        at = _blank(data, at + 1, end)
        stop = _text(data, at, end)
        if stop == _NOWHERE:
            return False
        key = _key(data, at, stop, keys, key_ends, following)
        at = _blank(data, stop, end)
        if at == end or data[at] != _COLON:
            return False
        at = _blank(data, at + 1, end)
        stop = _value(data, at, end, key < 0, key >= 0 and fractions[key])
        if stop == _NOWHERE:
            return False
        if key >= 0:
            if value[key, 1] != _NOWHERE:
                return False  # a key twice
            following = key + 1
            quoted = data[at] == _QUOTE
            value[key, 1] = stop - quoted
            if data[at] != _FIRST_OF_NULL:
                value[key, 0] = at + quoted
        at = _blank(data, stop, end)
        if at == end:
            return False
        mark = data[at]
    return mark == _CLOSE and _blank(data, at + 1, end) == end


@_inline
def _blank(data, at, end):
    """Return where what is no blank begins."""
    while at < end and (
        data[at] == _SPACE or data[at] == _NEWLINE or data[at] == _RETURN or data[at] == _TAB
    ):
        at += 1
    return at


@_inline
def _text(data, at, end):
    """Return where a text ends that is to begin at `at`."""
    if at == end or data[at] != _QUOTE:
        return _NOWHERE
    at += 1
    while at < end and _PLAIN[data[at]]:
        at += 1
    return at + 1 if at < end and data[at] == _QUOTE else _NOWHERE


@_inline
def _key(data, at, stop, keys, key_ends, likely):
    """Return which of the keys stands there, -1 for none; the likely one is looked at first."""
    length = stop - at
    for turn in range(len(key_ends)):
        key = likely + turn
        if key >= len(key_ends):
            key -= len(key_ends)
        start = key_ends[key - 1] if key else 0
        if key_ends[key] - start == length and _same(keys, start, data, at, length):
            return key
    return -1


@_inline
def _value(data, at, end, unread, fraction):
    """Return where a value ends; one that nobody reads may be any flat one."""
    if at == end:
        return _NOWHERE
    if data[at] == _QUOTE:
        return _text(data, at, end)
    if data[at] == _MINUS or _ZERO <= data[at] <= _NINE:
        return _number(data, at, end, fraction or unread)
    for first, stop in (_NULL, _TRUE, _FALSE):
        length = stop - first
        if end - at >= length and _same(_LITERALS, first, data, at, length):
            return at + length if unread or first == _NULL[0] else _NOWHERE
    return _NOWHERE


@_inline
def _number(data, at, end, fraction):
    """Return where a number ends; one with an exponent ends nowhere, nor does -0."""
    first = at + (data[at] == _MINUS)
    stop = _digits(data, first, end)
    if stop == first or (data[first] == _ZERO and (stop - at > 1)):
        return _NOWHERE
    if stop < end and data[stop] == _POINT:
        point = stop
        stop = _digits(data, point + 1, end)
        if stop == point + 1 or not fraction:
            return _NOWHERE
    return stop if stop - at <= _LONGEST_NUMBER else _NOWHERE


@_inline
def _digits(data, at, end):
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    return at


@_inline
def _same(some, at, others, there, length):
    for place in range(length):  # noqa: SIM110  numba compiles no `all`
        if some[at + place] != others[there + place]:
            return False
    return True


@_inline
def _code(data, key, value, table, starts, stops, counts, is_ascii):
    """Return the code of a key's value, the next one where it is new."""
    first, stop = value[key, 0], value[key, 1]
    number = np.uint32(2166136261)  # FNV-1a
    bits = 0
    for place in range(first, stop):
        bits |= data[place]
        number = (number ^ np.uint32(data[place])) * np.uint32(16777619)
    if bits > _LAST_ASCII:
        is_ascii[key] = False
    last = table.shape[1] - 1
    slot = np.int64(number ^ (number >> np.uint32(15))) & last
    while table[key, slot] != NO_CODE:
        code = table[key, slot]
        known = starts[key, code]
        if stops[key, code] - known == stop - first and _same(
            data, known, data, first, stop - first
        ):
            return code
        slot = (slot + 1) & last
    code = np.int32(counts[key])
    table[key, slot] = code
    starts[key, code] = first
    stops[key, code] = stop
    counts[key] += 1
    return code
