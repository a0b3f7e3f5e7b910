"""The population prior: what is known of interests before a user has shown any.

An artefact: made from history (`driftline calibrate`), versioned, named in settings and alerts.
A user's alerts depend on it and never on who else is in the stream.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Discount = Annotated[float, msgspec.Meta(ge=0, lt=1)]

SCHEMA = 2


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A hierarchical Pitman-Yor process over items and, above them, categories.

    A `concentration` is how many observations the population weighs, a `discount` (0 to 1) how
    readily people go on to new ones however many they know. `cap` bounds what a visit can say for
    a change: the log of its Bayes factor.
    """

    concentration: Positive = 40.0
    discount: Discount = 0.2
    item_concentration: Positive = 5.0
    item_discount: Discount = 0.5
    cap: Annotated[float, msgspec.Meta(ge=0, le=700)] = 16.0


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """What the log of the statistic has to pass, as measured on history without a change.

    Without a change it passes `at` once in `events`; passing `at` + x is exp(`slope` * x) times
    rarer. Below `least` the alerts of many users would be false too often (`false_discovery_rate`).
    """

    at: float
    events: Positive
    slope: Positive
    least: float
    false_discovery_rate: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """How the prior did on history, on users that the shares were not made from."""

    false_alarms_per_1000: float
    false_discovery_rate: float
    recall: float
    delay: float | None
    """Median, in events; None where no change was found."""


class Prior(msgspec.Struct, frozen=True, kw_only=True):
    """What the population tells of a user.

    `shares` holds the population's share of each category known, which sum to at most 1;
    a category that is not there has the share `unseen`. `items` holds the share of an item in its
    category, `unseen_item` that of the others. `groups` names the category that an item without
    one is taken for; where it is not named either, it stands for itself.
    """

    unseen: Share
    unseen_item: Share
    shares: dict[str, Share]
    items: dict[str, Share]
    groups: dict[str, str] = {}
    process: Process = Process()
    threshold: Threshold | None = None
    """None: nothing was measured, and the detector's own bound is taken."""
    measured: Measured | None = None
    schema: int = SCHEMA

    @property
    def version(self) -> str:
        """A short hash of the content."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]

    def share(self, category: str) -> float:
        """Return a category's share in the population."""
        return self.shares.get(category, self.unseen)

    def category_shares(self, categories: Sequence[str]) -> NDArray[np.float32]:
        """Return the shares of n categories in the population, (n,)."""
        return _shares(self.shares, categories, self.unseen)

    def item_shares(self, items: Sequence[str]) -> NDArray[np.float32]:
        """Return the shares of n items in their categories, (n,)."""
        return _shares(self.items, items, self.unseen_item)

    def score_for(self, events_per_false_alarm: float) -> float:
        """Return the least log of the statistic that keeps a false-alarm budget.

        Where nothing was measured it is the bound of the e-detector: a statistic of A in less
        than A events, on average, would be a surprise under the model.
        """
        if self.threshold is None:
            return math.log(events_per_false_alarm)
        at, slope = self.threshold.at, self.threshold.slope
        wanted = at + math.log(events_per_false_alarm / self.threshold.events) / slope
        return max(wanted, self.threshold.least)

    def events_by_chance(self, score: float) -> float:
        """Return in how many events without a change a score as high comes up once."""
        if self.threshold is None:
            return math.exp(min(score, 700.0))
        at, slope = self.threshold.at, self.threshold.slope
        return self.threshold.events * math.exp(min(slope * (score - at), 700.0))


def _shares(known: Mapping[str, float], names: Sequence[str], unseen: float) -> NDArray[np.float32]:
    return np.fromiter(map(known.get, names, repeat(unseen)), np.float32, len(names))


UNIFORM = Prior(
    unseen=1 / 1000,
    unseen_item=1 / 100,
    shares={},
    items={},
    process=Process(concentration=10.0, discount=0.8),
)
"""What is taken where nothing was calibrated; it knows no category, so a new one tells little."""
