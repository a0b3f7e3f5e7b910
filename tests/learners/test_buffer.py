"""What the replay buffer keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sequences import packed, unpacked

from learners.buffer import POLICIES, Buffer, Seen
from learners.herding import order, places


def offer(buffer, lists, *, seed=0, shift=0):
    sequences = packed(lists)
    sequences.times[:] += shift
    random = np.random.default_rng(seed)
    seen = Seen(
        states=random.normal(size=(len(lists), 3)).astype(np.float32),
        losses=np.array([items[-1] + 1 for items in lists], np.float32),
    )
    buffer.add(sequences, np.arange(1, 11, dtype=np.float32), random, seen)


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


@pytest.mark.parametrize("policy", ["frequency", "loss"])
def test_what_weighs_more_is_kept_more_often(policy):
    """Item 9 is ten times as frequent as item 0, and as hard, and kept far more often."""
    buffer = Buffer(100, policy)
    offer(buffer, [[0], [9]] * 500)

    assert np.mean(buffer.sequences.items == 9) > 0.85


def test_herding_stays_nearest_to_the_mean():
    """Each next one is the one that brings the mean of those chosen nearest to the whole mean."""
    states = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    chosen = order(states).tolist()
    target = states.mean(axis=0)

    def distance(rows):
        return np.square(states[rows].mean(axis=0) - target).sum()

    assert list(range(9)) == sorted(chosen)
    for nth in range(9):
        others = [distance([*chosen[:nth], row]) for row in range(9) if row not in chosen[:nth]]
        assert min(others) == pytest.approx(distance(chosen[: nth + 1]), abs=1e-6)


def test_herding_keeps_the_same_share_of_every_item():
    """Where two thirds fit, two thirds are kept of each last item, typical ones first."""
    buffer = Buffer(40, "herding")
    offer(buffer, [[0, item] for item in [1] * 30 + [2] * 15 + [3] * 15])
    kept = np.bincount(buffer.sequences.items[buffer.sequences.starts[1:] - 1], minlength=4)

    assert [0, 20, 10, 10] == kept.tolist()
    states = np.array([[0.0], [1.0], [5.0]], np.float32)  # 1 is nearest to the mean of 2
    assert [2 / 3, 0.0, 1 / 3] == pytest.approx(places(states, np.array([7, 7, 7])).tolist())


@pytest.mark.parametrize("policy", ["herding", "loss"])
def test_what_a_policy_needs_must_be_there(policy):
    """Without what the model makes of the sequences there is an error, not a guess."""
    with pytest.raises(ValueError, match="needs what the model makes"):
        Buffer(9, policy).add(packed([[1]]), np.ones(10, np.float32), np.random.default_rng(0))


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
