"""Values as they were received, before validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from pipeline.events import NO_CODE

Raw = str | int | float | None
"""A value of any field."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A column of n values, dictionary-encoded.

    A code of `events.NO_CODE` stands for no value, as None does.
    """

    values: Sequence[Raw]
    codes: NDArray[np.int32]  # (n,)

    @classmethod
    def none(cls, rows: int) -> Encoded:
        """Return a column of no values."""
        return cls([], np.full(rows, NO_CODE, np.int32))

    def put(self, rows: Sequence[int], values: Sequence[Raw]) -> Encoded:
        """Return the column with other values in some rows."""
        known = list(self.values)
        places = {_told_apart(value): code for code, value in enumerate(known)}
        put: list[int] = []
        for value in values:
            if value is None:
                put.append(NO_CODE)
                continue
            put.append(places.setdefault(_told_apart(value), len(known)))
            if put[-1] == len(known):
                known.append(value)
        codes = self.codes.copy()
        codes[rows] = put
        return Encoded(known, codes)

    def rows(self, by_code: Mapping[int, str]) -> dict[int, str]:
        """Spread what is said of codes over the rows that bear them."""
        if not by_code:
            return {}
        rows = np.flatnonzero(np.isin(self.codes, list(by_code)))
        return {int(row): by_code[int(self.codes[row])] for row in rows}


def _told_apart(value: Raw) -> object:
    """Return what tells 1.0 from 1 and -0.0 from 0.0: they are equal, as times or reasons not."""
    return (float, repr(value)) if isinstance(value, float) else value


RawColumn = Sequence[Raw] | Encoded


def encode(raw: RawColumn) -> Encoded:
    """Encode a column where it is not."""
    if isinstance(raw, Encoded):
        return raw
    codes: defaultdict[Raw, int] = defaultdict(count().__next__)  # a new value takes the next code
    column = np.fromiter(map(codes.__getitem__, raw), np.int32, len(raw))
    return Encoded(list(codes), column)
