"""Packed byte strings are those that were packed, in any selection."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.packed import Packed

values = st.lists(st.none() | st.binary(max_size=4), max_size=8)
bounds = st.none() | st.integers(-9, 9)


@given(values)
def test_what_is_packed_comes_back(strings):
    """By place, from either end, and in turn; None and empty are told apart."""
    packed = Packed.of(strings)
    assert len(strings) == len(packed)
    assert strings == list(packed)
    assert strings == [packed[row] for row in range(len(strings))]
    assert strings == [packed[np.int64(row)] for row in range(len(strings))]
    assert strings[::-1] == [packed[-row] for row in range(1, len(strings) + 1)]


@given(values, bounds, bounds)
def test_a_slice_is_that_of_a_list(strings, start, stop):
    """It may be sliced again, and shares the bytes."""
    packed = Packed.of(strings)
    part = packed[start:stop]
    assert strings[start:stop] == list(part)
    assert strings[start:stop][1:] == list(part[1:])
    assert part.data is packed.data


@given(values, st.data())
def test_some_are_taken_in_the_order_given(strings, data):
    """None of them, or the same one twice, too."""
    rows = data.draw(st.lists(st.integers(0, len(strings) - 1), max_size=9)) if strings else []
    assert [strings[row] for row in rows] == list(Packed.of(strings)[rows])


def test_what_is_packed_is_not_packed_again():
    """It is handed back."""
    packed = Packed.of([b"a", None])
    assert packed is Packed.of(packed)


@pytest.mark.parametrize("strings", [[], [None], [b""], [None, b""]])
def test_there_may_be_no_bytes(strings):
    """Of no strings, or of empty ones."""
    assert strings == list(Packed.of(strings))
    assert b"" == Packed.of(strings).data


def test_behind_the_last_there_is_nothing():
    """To index it is an error."""
    with pytest.raises(IndexError):
        Packed.of([b"a"])[1]
