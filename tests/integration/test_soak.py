"""The verifier itself: a short run of it, and builds with a planted fault, which it must catch."""

import pytest

from bench.soak.oracle import Expected, Observed, judge
from bench.soak.run import Soak, run

pytestmark = pytest.mark.usefixtures("own_brokers")


def test_a_few_kills_lose_nothing_and_count_nothing_twice(tmp_path):
    """Workers, one with its disk, and a broker are killed, and users erased meanwhile."""
    result = run(Soak(seed=124, kills=3, workers=2, learner=False, clicks=6000), tmp_path)
    assert {} == result.problems()
    assert len(result.expected.alerts) > 20
    assert len(result.expected.dead_letters) > 0


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        ("committed before alerts", {"lost_alerts"}),
        ("applied twice", {"wrong_states", "wrong_counts"}),
        ("record dropped", {"wrong_states"}),
    ],
)
def test_a_planted_fault_is_caught(tmp_path, fault, caught):
    """A build that breaks a promise does not pass, and the verdict says which."""
    soak = Soak(
        seed=2, kills=0, brokers=1, workers=1, learner=False, clicks=6000, rate=2000, fault=fault
    )
    assert caught <= set(run(soak, tmp_path).problems())


def test_a_build_that_erases_nobody_is_caught(tmp_path):
    """The plan of this seed erases a user, then kills the worker, before retention erases them."""
    soak = Soak(seed=20, kills=1, brokers=1, workers=1, learner=False, rate=40, fault="user kept")
    assert {"not_erased", "wrong_states"} == set(run(soak, tmp_path).problems())


def test_one_id_with_two_contents_is_caught():
    """Said again means said the same; of a learner's alerts, which no plain pass gives, too."""
    nothing = {"states": {}, "expiries": {}, "counts": None, "dead_letters": set()}
    expected = Expected(records=0, alerts={"a": b"1", "b": b"2"}, **nothing)
    said = [("a", b"1"), ("a", b"1"), ("b", b"2"), ("b", b"3"), ("c", b"4")]
    said += [("stale", b"5"), ("stale", b"6"), ("stale too", b"7")]
    left = {"disks": {}, "changelogs": {}, "dead_letters": [], "not_erased": []}
    verdict = judge(expected, Observed(alerts=said, learners={"stale", "stale too"}, **left))
    assert (["b", "stale"], ["c"]) == (verdict.two_contents, verdict.unknown_alerts)
    assert 3 == verdict.duplicates
