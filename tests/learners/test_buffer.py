"""What the replay buffer keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sequences import packed, unpacked

from learners.buffer import Buffer

POLICIES = ["reservoir", "recency", "frequency", "fading"]


def offer(buffer, lists, *, seed=0, shift=0):
    sequences = packed(lists)
    sequences.times[:] += shift
    buffer.add(sequences, np.arange(1, 11, dtype=np.float32), np.random.default_rng(seed))


@given(
    st.sampled_from(POLICIES),
    st.integers(0, 8),
    st.lists(
        st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=6).filter(bool),
        max_size=5,
    ),
)
def test_a_buffer_is_bounded_and_holds_what_it_was_offered(policy, capacity, offers):
    """Never more than its capacity, never less than it could, and nothing made up."""
    buffer = Buffer(capacity, policy, 1000)
    for number, lists in enumerate(offers):
        offer(buffer, lists, seed=number)
    offered = [items for lists in offers for items in lists]

    assert min(capacity, len(offered)) == len(buffer) == len(buffer.priority)
    assert all(items in offered for items in unpacked(buffer.sequences) if items)


def test_recency_keeps_the_newest():
    """Under "recency" old sequences make room."""
    buffer = Buffer(2, "recency")
    offer(buffer, [[1], [2]])
    offer(buffer, [[3], [4]], shift=1000)

    assert [[3], [4]] == unpacked(buffer.sequences)


def share_of_old(policy, half_life=1):
    """Return the share of 500 kept of which 1,000 were offered early and 1,000 late."""
    buffer = Buffer(500, policy, half_life)
    offer(buffer, [[1]] * 1000, seed=1)
    offer(buffer, [[2]] * 1000, seed=2, shift=3000)
    return np.mean(buffer.sequences.items == 1)


def test_a_reservoir_keeps_all_times_alike():
    """Under "reservoir" when a sequence came makes no difference."""
    assert 0.5 == pytest.approx(share_of_old("reservoir"), abs=0.07)


def test_fading_keeps_fewer_the_older_they_are():
    """After one half-life a sequence weighs half as much: about one in three of those kept."""
    assert 0.36 == pytest.approx(share_of_old("fading", half_life=3000), abs=0.07)


def test_frequency_favours_frequent_items():
    """Item 9 is ten times as frequent as item 0, and kept far more often."""
    buffer = Buffer(100, "frequency")
    offer(buffer, [[0], [9]] * 500)

    assert np.mean(buffer.sequences.items == 9) > 0.85


def test_an_owner_can_be_erased():
    """Nothing of the owner stays, everything else does."""
    buffer = Buffer(9, "reservoir")
    offer(buffer, [[1], [2], [3]])
    buffer.forget("u1")

    assert ["u0", "u2"] == buffer.sequences.owners
    assert 2 == len(buffer.priority)


def test_draws_are_seeded_and_without_repeats():
    """The same seed draws the same sequences, each once."""
    buffer = Buffer(9, "reservoir")
    offer(buffer, [[1], [2], [3]])
    draws = [buffer.draw(5, np.random.default_rng(4)).owners for _ in range(2)]

    assert ["u0", "u1", "u2"] == draws[0] == draws[1]


def test_an_unknown_policy_is_refused():
    """The error names the policies there are."""
    with pytest.raises(ValueError, match="take reservoir"):
        offer(Buffer(9, "newest"), [[1]])
