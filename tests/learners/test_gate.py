"""Promotion and staleness."""

from __future__ import annotations

import numpy as np
import pytest

from learners import gate
from learners.staleness import judge
from pipeline.settings import Learning

LENIENT = Learning(gate_tolerance=0.05, gate_forgetting=0.1)


@pytest.mark.parametrize(
    ("newest", "past", "expected"),
    [
        ((0.5, 0.4), (0.3, 0.3), "promoted"),
        ((0.39, 0.4), (0.28, 0.3), "promoted"),
        ((0.37, 0.4), (0.9, 0.3), "rejected"),
        ((0.9, 0.4), (0.26, 0.3), "rejected"),
        ((0.9, 0.4), None, "promoted"),
        ((float("nan"), 0.4), None, "rejected"),
    ],
)
def test_a_challenger_must_hold_up_on_both_slices(newest, past, expected):
    """Losing more than allowed on either slice is enough to be rejected."""
    verdict = gate.judge(newest, past, LENIENT)

    assert expected == verdict.decision
    assert f"{newest[1]:.4f}" in verdict.reason or "the past" in verdict.reason


def test_the_reason_gives_both_figures():
    """Whoever reads the alert sees what was compared."""
    verdict = gate.judge((0.9, 0.4), (0.2, 0.3), LENIENT)

    assert (
        "MRR@20 on the past is 0.2000, of the champion 0.3000: more than 10% less" == verdict.reason
    )


def hits(*parts):
    random = np.random.default_rng(1)
    return np.concatenate([random.random(size) < rate for size, rate in parts])


def test_a_fall_of_the_hit_rate_is_found():
    """The rates before and after are told, and only what came since needs remembering."""
    stale, current = judge(hits((3000, 0.6), (2000, 0.3)), "ADWIN")

    assert 0.6 == pytest.approx(stale.before, abs=0.05)
    assert stale.after < 0.5
    assert stale.score > stale.threshold > 0
    assert 2000 == pytest.approx(current, abs=200)


@pytest.mark.parametrize("parts", [[(5000, 0.4)], [(3000, 0.3), (2000, 0.6)], [(1, 0.5)], []])
def test_neither_steady_nor_rising_hits_are_stale(parts):
    """Getting better is no reason for an alert."""
    stale, _ = judge(hits((0, 0), *parts), "ADWIN")

    assert stale is None


def test_detectors_are_chosen_by_name():
    """Any detector of river.drift will do; an unknown one is refused."""
    stale, _ = judge(hits((3000, 0.7), (3000, 0.1)), "PageHinkley")

    assert stale.before > stale.after
    with pytest.raises(ValueError, match="no detector 'Adwin'"):
        judge(hits((10, 0.5)), "Adwin")
