"""Forgetting: the matrix of champions against past windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_sequences import packed
from weeks import WEEK, quick, week

from learners.continual import Learner
from learners.forgetting import Probes
from learners.model import SequenceModel
from pipeline.settings import Model


def model_of(items):
    model = SequenceModel(Model(dim=8, max_length=6), torch.Generator().manual_seed(1))
    grow(model, items)
    return model.eval()


def grow(model, items):
    model.grow(torch.zeros(items, dtype=torch.long), 1, 1, torch.Generator().manual_seed(items))


@given(st.integers(1, 6), st.integers(0, 40))
def test_windows_kept_are_bounded_and_lie_evenly(most, count):
    """Never more than `most` and the newest, from the first window on, with equal steps."""
    probes = Probes(most, 5, 6)
    for number in range(count):
        probes.add(packed([[1, 2]]), start=number, items=3)
    numbers = [probe.number for probe in probes.kept]
    past, newest = numbers[:-1], numbers[-1:]

    assert len(past) <= most
    assert newest == [count - 1][: len(newest)]
    assert past[:1] == [0][: len(past)]
    assert len(set(np.diff(past).tolist())) <= 1
    assert 2 * len(past) >= min(most, count - 1)


def test_no_probes_ask_nothing():
    """With `probes = 0` nothing is kept, and nothing told."""
    report = Learner(quick(probes=0)).learn(week(0))

    assert (None, [], None, 0) == (
        report.retention.learnt,
        report.retention.past,
        report.retention.backward_transfer,
        report.retention.bytes,
    )


def test_a_growing_catalogue_is_not_forgetting():
    """The targets of a window go on to be ranked among the items known at its end."""
    model = model_of(9)
    probes = Probes(3, 50, 6)
    probes.add(packed([[1, 2, 3, 4], [5, 6, 7]]), start=0, items=9)
    first = probes.ask(model)
    grow(model, 900)
    second = probes.ask(model)

    assert first.learnt is not None
    assert first.learnt == second.past[0].then == second.past[0].now
    assert 0.0 == second.backward_transfer.mrr


def test_what_was_learnt_and_lost_is_told():
    """A change of pattern is learnt at the cost of the old one; replaying all of it costs less."""

    def transfer(**changes):
        learner = Learner(quick(gate_tolerance=1.0, gate_forgetting=1.0, **changes))
        return [learner.learn(week(n, pattern=n >= 2, users=100)).retention for n in range(5)]

    kept = transfer(replay=2.0, replay_capacity=1000)
    lost = transfer(replay=0.0)
    old = lost[4].past[:2]

    assert [0, 1, 2, 3, 4] == [len(row.past) for row in lost]
    assert ["1970-01-01T00:00:00+00:00", "1970-01-08T00:00:00+00:00"] == [
        window.window_start for window in old
    ]
    assert all(window.now.mrr < 0.7 * window.then.mrr for window in old)
    expected = np.mean([window.now.mrr - window.then.mrr for window in lost[4].past])
    assert expected == pytest.approx(lost[4].backward_transfer.mrr)
    assert lost[4].backward_transfer.mrr < kept[4].backward_transfer.mrr - 0.1
    assert lost[3].learnt == lost[4].past[3].then


def test_only_held_sequences_are_asked():
    """What a probe asks is in no buffer that trains."""
    learner = Learner(quick(replay_capacity=10_000))
    for number in range(2):
        learner.learn(week(number, users=80))
    replayed = learner.recipe.replay.sequences
    weeks = (replayed.times[replayed.starts[1:] - 1] // WEEK).tolist()
    taught = set(zip(replayed.owners, weeks, strict=True))
    held = {
        (owner, probe.start // WEEK)
        for probe in learner.probes.kept
        for owner in probe.sequences.owners
    }

    assert held
    assert not held & taught
