"""What is asked about a window, and what whoever answers may have seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_sequences import packed, walks
from weeks import quick, week

from learners.continual import Learner
from learners.ensemble import Exam
from learners.evaluation import answers


def exam_of(lists, known, most=0):
    sequences = packed(lists)
    sequences.times[:] = np.arange(len(sequences.times))
    return Exam.of(sequences, known, length=50, most=most, random=np.random.default_rng(1))


def asked(exam, chosen):
    questions = exam.questions.take(np.flatnonzero(chosen))
    inputs = [
        tuple(row[:size].tolist())
        for row, size in zip(questions.items, questions.lengths, strict=True)
    ]
    return sorted(zip(inputs, answers(questions).tolist(), strict=True))


def prefixes(lists):
    return sorted(
        (tuple(items[:place]), items[place]) for items in lists for place in range(1, len(items))
    )


@given(walks, st.integers(0, 10))
def test_the_protocol_leaves_out_what_is_new(lists, known):
    """Every prefix of what is left of each session is asked about; and of all as it happened."""
    exam = exam_of(lists, known)
    kept = [[item for item in items if item < known] for items in lists]

    assert prefixes(kept) == asked(exam, exam.protocol)
    assert prefixes(lists) == asked(exam, exam.happened)


@given(walks, st.integers(1, 20))
def test_a_draw_is_bounded(lists, most):
    """Where there are more questions than wanted, about so many are drawn."""
    exam = exam_of(lists, 5, most)
    everything = exam_of(lists, 5)

    assert exam.protocol.sum() <= min(most + 1, everything.protocol.sum())
    assert (np.diff(exam.times) >= 0).all()


def test_the_neighbours_absorb_the_window_that_is_evaluated():
    """A pattern that is new in a window is found by the kNN before the window is over."""
    found = {}
    for absorptions in (0, 32):
        learner = Learner(quick(absorptions=absorptions, first_epochs=1, epochs=1))
        learner.learn(week(0))
        found[absorptions] = learner.learn(week(1, pattern=1))

    assert found[32].knn.mrr > 1.5 * found[0].knn.mrr
    assert found[32].markov == found[0].markov
    assert found[32].recall == found[0].recall


def test_absorbing_in_parts_is_absorbing_once():
    """How often the window is looked at does not change what is known at its end."""
    seen = []
    for absorptions in (0, 7):
        learner = Learner(quick(absorptions=absorptions, first_epochs=1, epochs=1))
        for number in range(3):
            learner.learn(week(number))
        counts = learner.ensemble.neighbours.counts.settled
        seen.append((counts.keys.tolist(), counts.values.astype(np.float64)))

    assert seen[0][0] == seen[1][0]
    np.testing.assert_allclose(seen[0][1], seen[1][1], rtol=1e-4)
