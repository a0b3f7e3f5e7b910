import math
from collections import Counter
from itertools import groupby

import numpy as np
from clicks import clicks
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine import Engine
from pipeline.prior import UNIFORM
from pipeline.settings import from_toml

SETTINGS = from_toml("[drift]\nminimum_events = 1")
REFERENCE = 20
P = UNIFORM.process

observations = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.integers(0, 2)),
    min_size=25,
    max_size=60,
)


class Interests:
    """The hierarchical Pitman-Yor process in plain words, of what it has been shown."""

    def __init__(self):
        self.items, self.categories = Counter(), Counter()

    def probability(self, category, item, *, first):
        """Return the probability of an observation, and take it in."""
        own, total = self.items[item], self.items.total()
        new = (P.item_concentration + P.item_discount * len(+self.items)) / (
            P.item_concentration + total
        )
        if first:
            kinds = len(+self.categories)
            seen = max(self.categories[category] - P.discount, 0)
            drawn = (P.concentration + P.discount * kinds) * UNIFORM.unseen
            new *= (seen + drawn) / (P.concentration + self.categories.total())
        probability = new * UNIFORM.unseen_item
        if own:
            probability += (own - P.item_discount) / (P.item_concentration + total)
        elif first:
            self.categories[category] += 1
        self.items[item] += 1
        return probability


def visits_of(shown):
    """Number the visits; a change of the session begins one."""
    return [n for n, (_, of) in enumerate(groupby(shown, lambda o: o[2])) for _ in of]


def score(shown):
    """Sum the roots of the Bayes factors of a change before each observation, visits capped."""
    visits = visits_of(shown)
    named = [(c, f"{c}{i}") for c, i, _ in shown]
    first = [
        (c, visit) not in {(o[0], v) for o, v in zip(named[:n], visits[:n], strict=True)}
        for n, ((c, _), visit) in enumerate(zip(named, visits, strict=True))
    ]
    before = Interests()
    under_before = [before.probability(*o, first=f) for o, f in zip(named, first, strict=True)]
    after, total = Interests(), 0.0
    told = Counter()
    for n in reversed(range(REFERENCE, len(shown))):
        ratio = after.probability(*named[n], first=first[n]) / under_before[n]
        told[visits[n]] += math.log(ratio)
        total += math.exp(sum(min(of, P.cap) for of in told.values()) / 2)
    return math.log(total)


@given(observations)
def test_the_statistic_is_that_of_the_formula(shown):
    """Rings, hashes and tables give what counters and logarithms give, to their rounding."""
    rows = [
        {"user": "anna", "item": f"{c}{i}", "category": c, "time": n, "session": f"s{s}"}
        for n, (c, i, s) in enumerate(shown)
    ]
    found = Engine(SETTINGS).statistics(clicks(rows))[-1]
    assert np.isclose(score(shown), found, atol=0.3)
