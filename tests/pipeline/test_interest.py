from pathlib import Path

import numpy as np
import pytest
from clicks import DAY, clicks
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine import Engine
from pipeline.interest import LAYOUT_VERSION, STATE, StateError, new_state
from pipeline.packing import decode, encode
from pipeline.settings import Settings

GOLDEN = Path(__file__).parent.parent / "golden"


def state_of_anna():
    rows = [
        {"user": "anna", "item": "i1", "category": "books/comics", "time": DAY, "event_id": "e1"},
        {"user": "anna", "item": "i2", "category": "toys", "time": 2 * DAY, "session": "s1"},
        {"user": "anna", "item": "i3", "category": "toys", "time": 2 * DAY + 5, "type": "buy"},
    ]
    engine = Engine(Settings())
    engine.process(clicks(rows))
    [(_, data)] = engine.changes().states
    return data


def test_the_layout_on_disk_is_what_it_was():
    """States written by an earlier build of this layout are read by this one."""
    assert (GOLDEN / "interest_state_3.bin").read_bytes() == state_of_anna()


def test_a_state_of_the_layout_before_is_read():
    """It lacks when the user's history began, and is else the same."""
    before = (GOLDEN / "interest_state_2.bin").read_bytes()
    states = decode([before, state_of_anna()])
    assert [0, DAY] == states["born"].tolist()
    states["born"] = 0
    assert states[0] == states[1]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 255)), max_size=40), st.integers(1, 600)
)
def test_decoding_gives_back_what_was_encoded(marks, count):
    """Of any number of states, whatever is zero in them; what is zero takes no room."""
    states = np.zeros(count, STATE)
    states["layout"] = LAYOUT_VERSION
    for row, mark in marks:
        states["ring"]["slot"][row % count, mark % 192] = mark
        states["own"][row % count, mark % 64, row % 4] = mark
    encoded = encode(states)
    assert np.array_equal(states, decode(encoded))
    assert encoded == [data for state in states for data in encode(state[None])]
    assert max(map(len, encoded)) < 110 + 8 * (1 + 2 * len(marks))


@given(st.binary(max_size=64))
def test_bytes_that_are_no_state_are_refused(data):
    """Neither a wrong layout nor a wrong length is taken for a state."""
    for wrong in (data, state_of_anna() + data + b"1", b"\2\0" + data, b"\3\0" + data):
        with pytest.raises(StateError):
            decode([state_of_anna(), wrong])


def test_an_empty_state_has_met_no_event():
    """The stamp of a new state lies before the first position."""
    assert -1 == new_state()["position"]
