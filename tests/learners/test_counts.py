"""Counts, and the recommenders that stand on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_sequences import packed, walks

from learners.baselines import Markov, Personal, Popularity
from learners.counts import Counts
from learners.metrics import ranks
from learners.neighbours import Neighbours
from learners.sequences import questions
from pipeline.settings import Learning

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40)


def added(counts, seen):
    rows, columns = np.array(seen, np.int64).reshape(-1, 2).T
    counts.add(rows, columns, np.ones(len(rows), np.float32))
    counts.settle(1.0)


def dense(counts):
    rows = np.arange(6)[:, None]
    return counts.shares(rows, np.ones((6, 1), np.float32), 6).dense(6)


def asked(items):
    sequences = packed([items])
    return questions(sequences, np.array([len(items) - 1]), 9)


@given(st.lists(pairs, max_size=4))
def test_counts_are_sums(batches):
    """Adding in batches is counting, whatever the batches."""
    counts = Counts(6)
    expected = Counter()
    for seen in batches:
        added(counts, seen)
        expected.update(seen)

    assert [[expected[i, j] for j in range(6)] for i in range(6)] == dense(counts).tolist()


@given(st.lists(pairs, max_size=4), st.integers(1, 3))
def test_rows_are_bounded(batches, width):
    """No row ever holds more columns than its width."""
    counts = Counts(width)
    for seen in batches:
        added(counts, seen)
        held = np.bincount(counts.settled.keys >> 32, minlength=1)
        assert held.max() <= width
        assert (np.diff(counts.settled.keys) > 0).all()


def test_the_heaviest_columns_stay():
    """Pruning keeps what was counted most."""
    counts = Counts(1)
    added(counts, [(0, 1), (0, 2), (0, 2)])

    assert [0, 0, 2, 0, 0, 0] == dense(counts)[0].tolist()


def test_old_counts_fade_and_go():
    """Decay multiplies, and what has become faint takes no memory."""
    counts = Counts(2)
    added(counts, [(0, 1)])
    counts.settle(0.5)
    assert 0.5 == dense(counts)[0, 1]
    counts.settle(1e-4)
    assert 0 == len(counts.settled.keys)


@given(walks)
def test_popularity_counts_fresh_events(lists):
    """Every input gets the same scores: how often each item was seen."""
    popularity = Popularity()
    popularity.learn(packed(lists), 1.0)
    seen = Counter(item for items in lists for item in items)

    assert [seen[item] for item in range(10)] == popularity.upto(10).tolist()
    expected = ranks(popularity.upto(10)[None].repeat(10, 0), np.arange(10)).tolist()
    assert expected == popularity.ranks(np.arange(10), 10).tolist()


@given(walks)
def test_markov_counts_what_followed_the_last_item(lists):
    """Only pairs of neighbours in a sequence count."""
    markov = Markov(Learning())
    markov.learn(packed(lists), 1.0)
    seen = Counter(after for items in lists for before, after in pairwise(items) if before == 3)

    assert [seen[item] for item in range(10)] == markov.scores(asked([1, 3, 0]), 10).dense(10)[
        0
    ].tolist()


def test_users_of_whom_nothing_is_left_are_forgotten():
    """Memory follows the users who come, not all who ever came; the others stay as they are."""
    personal = Personal(Learning())
    personal.learn(packed([[1], [2, 3], [4]]), 1.0)
    personal.learn(replace(packed([[5], [6]]), owners=["u1", "new"]), 1e-4)

    assert ["u1", "new"] == personal.users.names
    asked_of = replace(asked([0, 0]), owners=["u1"])
    assert [1, 0, 0, 0, 0, 1, 0] == personal.scores(asked_of, 7).dense(7)[0].tolist()


def test_personal_knows_the_user_and_the_window_so_far():
    """A user's past counts, and the fresh events of the input; nobody else's."""
    personal = Personal(Learning())
    personal.learn(packed([[4, 4, 5], [6]]), 1.0)

    assert [0, 1, 0, 0, 2, 1, 0] == personal.scores(asked([1, 0]), 7).dense(7)[0].tolist()
    personal.forget("u0")
    assert [0, 1, 0, 0, 0, 0, 0] == personal.scores(asked([1, 0]), 7).dense(7)[0].tolist()


def test_neighbours_find_what_was_seen_together():
    """Items of sequences that share an item score, close ones and later ones more."""
    neighbours = Neighbours(Learning())
    neighbours.absorb(packed([[0, 1, 2, 3], [5, 6]]))
    scores = neighbours.scores(asked([1, 7]), 8).dense(8)[0]

    assert scores[2] > scores[3] > 0
    assert scores[2] > scores[0] > 0
    assert [0, 0, 0] == scores[5:].tolist()


def items_of(past):
    """Return each item of an input once, and what its probability to come again hangs on."""
    past = past[-20:]
    back = past[-1] in past[:-1]
    return [
        (item, (past[::-1].index(item), min(past.count(item), 3), back, min(len(past), 4)))
        for item in dict.fromkeys(past)
    ]


repeats = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=25), min_size=1, max_size=6)


@given(repeats, st.lists(st.integers(0, 3), min_size=1, max_size=25))
def test_items_come_again_as_often_as_others_like_them_did(lists, past):
    """By age, times there, whether the newest item was there before, and length of the input."""
    neighbours = Neighbours(Learning())
    neighbours.absorb(packed(lists))
    came, could = Counter(), Counter()
    for items in lists:
        for place in range(1, len(items)):
            for item, kind in items_of(items[:place]):
                could[kind] += 1
                came[kind] += item == items[place]
    sequences = packed([[*past, 0]])
    batch = questions(sequences, np.array([len(past)]), 30)
    expected = np.zeros(4)
    for item, kind in items_of(past):
        expected[item] = came[kind] / (could[kind] + 10)

    np.testing.assert_allclose(expected, neighbours.returns(batch, 4).dense(4)[0], atol=1e-8)


def test_a_share_goes_to_what_is_around_where_no_item_comes_again():
    """The less likely a repeat, the more weighs what was seen together with the input."""
    often, seldom = Neighbours(Learning()), Neighbours(Learning())
    often.absorb(packed([[1, 2], *[[3, 3]] * 20]))
    seldom.absorb(packed([[1, 2], *[[3, 4]] * 20]))
    one, other = (part.scores(asked([1, 0]), 5).dense(5)[0] for part in (often, seldom))

    assert one[1] > 0.5 > one[2] > 0
    assert other[2] == 1
    assert other[1] < 1e-6
