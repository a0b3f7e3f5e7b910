"""Sparse scores say what dense ones say."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from learners.metrics import ranks
from learners.shares import FLOOR, collect

ITEMS = 9
scored = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.just(ITEMS)), elements=st.integers(0, 3)
)


def sparse(dense):
    rows, items = np.nonzero(dense)
    return collect(rows, items, dense[rows, items], len(dense))


@given(scored)
def test_what_was_collected_is_what_is_there(dense):
    """Sums by input and item, and nothing else."""
    assert dense.tolist() == sparse(dense).dense(ITEMS).tolist()
    rows, items = np.nonzero(dense)
    twice = collect(np.tile(rows, 2), np.tile(items, 2), np.tile(dense[rows, items], 2), len(dense))
    assert (2 * dense).tolist() == twice.dense(ITEMS).tolist()


@given(scored, st.integers(1, ITEMS), st.data())
def test_ranks_are_those_of_dense_scores(dense, items, data):
    """Ties count against the target, and an item nobody knows stands last."""
    columns = st.integers(0, items - 1)
    targets = np.array([data.draw(columns) for _ in dense], np.int64)

    assert ranks(dense[:, :items], targets).tolist() == sparse(dense).ranks(targets, items).tolist()


@given(scored)
def test_logs_are_added_where_something_is_known(dense):
    """Nothing known adds nothing; else weight x log(1 + share / floor)."""
    shares = dense / np.maximum(dense.sum(axis=1, keepdims=True), 1)
    actual = np.ones((len(dense), ITEMS), np.float32)
    sparse(dense).logs().add_to(actual, 0.5)

    np.testing.assert_allclose(1 + 0.5 * np.log1p(shares / FLOOR), actual, rtol=1e-5)
