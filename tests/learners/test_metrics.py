"""Figures against a brute-force count; ties; the blend."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from learners.blend import Blend
from learners.metrics import MISS, figures, ranks
from learners.shares import collect

scores = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 8), st.integers(1, 30)), elements=st.integers(0, 5)
)


def brute_force(score, target):
    """Sort the items with the target behind its equals, and look where it stands."""
    order = sorted(range(len(score)), key=lambda item: (-score[item], item == target))
    return order.index(target) + 1


@given(scores, st.data())
def test_ranks_equal_sorting_with_ties_against_the_target(score, data):
    """The rank is the place in a list in which equals come first."""
    columns = st.integers(0, score.shape[1] - 1)
    targets = np.array([data.draw(columns) for _ in score], np.int64)
    expected = [
        brute_force(list(row), target) for row, target in zip(score, targets.tolist(), strict=True)
    ]

    assert expected == ranks(score, targets).tolist()


def test_scores_that_are_no_numbers_count_against_the_target():
    """A model that has diverged gets no hit."""
    score = np.array([[1, np.nan, 0], [np.nan, 2, 1]], np.float32)

    assert [2, 3] == ranks(score, np.array([0, 0])).tolist()


@given(st.lists(st.integers(1, 40), min_size=1))
def test_figures_equal_their_definitions(rank):
    """Means of hits, reciprocal ranks and gains, cut off at 20, 20 and 10."""
    found = figures(np.array(rank))

    assert found.recall == pytest.approx(sum(r <= 20 for r in rank) / len(rank))
    assert found.mrr == pytest.approx(sum(1 / r for r in rank if r <= 20) / len(rank))
    assert found.ndcg == pytest.approx(
        sum(1 / math.log2(r + 1) for r in rank if r <= 10) / len(rank)
    )


def test_a_miss_scores_nothing():
    """A target that could not be ranked drags all figures down alike."""
    found = figures(np.array([1, MISS]))

    assert (0.5, 0.5, 0.5) == (found.recall, found.mrr, found.ndcg)


def mixed(blend, experts):
    rows, items = np.indices(experts[0].shape)
    others = [
        collect(rows.ravel(), items.ravel(), expert.ravel(), len(expert)) for expert in experts[1:]
    ]
    return blend.mix(experts[0].copy(), others)


def test_the_blend_learns_whom_to_trust():
    """Weight goes to the expert that is right, and the likelihood of the targets grows."""
    random = np.random.default_rng(3)
    blend = Blend(np.array([0.2, 0.2]))
    targets = random.integers(0, 20, 300)
    right = random.random((300, 20)).astype(np.float32)
    right[np.arange(300), targets] += 3
    experts = [right, random.random((300, 20)).astype(np.float32)]

    def likelihood():
        scores = mixed(blend, experts)
        told = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return told[np.arange(300), targets].mean()

    before = likelihood()
    blend.observe(np.stack(experts, axis=2), np.arange(20) == targets[:, None])
    blend.learn()

    assert likelihood() > before + 0.5
    assert blend.weights[0] > 5 * abs(blend.weights[1])


shown = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 12), st.just(5), st.just(2)), elements=st.integers(-3, 3)
)


@given(shown, st.data())
def test_the_blend_learns_the_same_however_questions_are_cut(seen, data):
    """Slices do not matter, nor do questions whose answer was not shown or scored."""
    places = st.integers(0, 6)
    taken = np.arange(5) == np.array([data.draw(places) for _ in seen])[:, None]
    cut = data.draw(st.integers(0, len(seen)))
    whole, parts = (Blend(np.array([0.5, 0.1])) for _ in range(2))
    whole.observe(seen, taken)
    for part in (slice(0, cut), slice(cut, len(seen))):
        parts.observe(seen[part], taken[part])
    parts.observe(np.full_like(seen, np.nan), taken)
    parts.observe(seen + 1, np.zeros_like(taken))
    for blend in (whole, parts):
        blend.learn()

    np.testing.assert_allclose(whole.weights, parts.weights, atol=1e-9)
    np.testing.assert_allclose(whole.curvature, parts.curvature)
