from pathlib import Path

import numpy as np
import pytest
from clicks import DAY, clicks
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine import Engine
from pipeline.interest import STATE, StateError, decode_into, encode, new_state, newest
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
    states = np.zeros(2, STATE)
    decode_into(states, 0, (GOLDEN / "interest_state_2.bin").read_bytes())
    decode_into(states, 1, state_of_anna())
    assert [0, DAY] == states["born"].tolist()
    states["born"] = 0
    assert states[0] == states[1]


def test_the_newest_event_is_told_without_decoding():
    """Of both layouts."""
    before = (GOLDEN / "interest_state_2.bin").read_bytes()
    assert [2 * DAY + 5] * 2 == [newest(before), newest(state_of_anna())]


def test_decoding_gives_back_what_was_encoded():
    """The unused slots are left out on disk and are zero in memory."""
    data = state_of_anna()
    states = np.zeros(2, STATE)
    decode_into(states, 1, data)
    assert data == encode(states[1])
    assert len(data) < len(states[1].tobytes())
    assert 0 == states[0]["events"]


@given(st.binary(max_size=64))
def test_bytes_that_are_no_state_are_refused(data):
    """Neither a wrong layout nor a wrong length is taken for a state."""
    for read in (newest, lambda data: decode_into(np.zeros(1, STATE), 0, data)):
        with pytest.raises(StateError):
            read(data)


def test_an_empty_state_has_met_no_event():
    """The stamp of a new state lies before the first position."""
    assert -1 == new_state()["position"]
