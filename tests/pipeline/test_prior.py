import math

from hypothesis import given
from hypothesis import strategies as st

from pipeline.prior import UNIFORM, Prior, Threshold

CALIBRATED = Prior(
    unseen=0.1,
    unseen_item=0.1,
    shares={},
    items={},
    threshold=Threshold(at=12.0, events=10_000, slope=0.5, least=11.0, false_discovery_rate=0.05),
)


def test_without_measurement_the_bound_is_taken():
    """A statistic of A, and an alarm by chance in A events, at the most."""
    assert math.log(5000) == UNIFORM.score_for(5000)
    assert math.isclose(5000, UNIFORM.events_by_chance(math.log(5000)))


@given(st.floats(100, 1e9))
def test_a_threshold_keeps_its_budget_and_never_falls_below_the_discovery_rates(budget):
    """What is allowed once in so many events comes up once in so many, or less often."""
    score = CALIBRATED.score_for(budget)
    assert score >= 11.0
    assert CALIBRATED.events_by_chance(score) >= budget * (1 - 1e-9)
