"""River's change detectors over users, by name, in place of the detector of `pipeline.kernel`.

A detector of numbers needs a number for each event: the log-likelihood of its category under all
that the user has shown before, a Dirichlet-categorical predictive. It falls when interests change.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.drift import MOST_EVIDENCE, MOST_INTERESTS, alert_id
from pipeline.events import (
    NO_CODE,
    AlertKind,
    Clicks,
    DriftAlert,
    Evidence,
    Guarantee,
    Interest,
    SourcePosition,
)
from pipeline.prior import Prior
from pipeline.settings import Settings, SettingsError
from pipeline.symbols import prefix

OURS = "driftline"
PREFIX = "river:"
_CLASSES = {"adwin": "ADWIN", "kswin": "KSWIN", "pagehinkley": "PageHinkley"}
_SEEDED: dict[str, dict[str, Any]] = {"KSWIN": {"seed": 7}}
"""What a detector needs to find the same again."""
_NEWEST = 16
"""Values whose mean tells a fall of the signal from a rise."""


class Detector(Protocol):
    """What river calls a drift detector."""

    drift_detected: bool

    def update(self, x: float) -> None:
        """Take the next value."""


def detector(name: str, **options: Any) -> Detector:
    """Make one of River's detectors.

    Raises:
        SettingsError: There is none of that name.
    """
    kind = _CLASSES.get(name.removeprefix(PREFIX))
    if kind is None or not name.startswith(PREFIX):
        known = ", ".join(PREFIX + known for known in _CLASSES)
        raise SettingsError(f"there is no detector {name!r}: take {OURS}, {known}")
    made: Detector = getattr(importlib.import_module("river.drift"), kind)(
        **_SEEDED.get(kind, {}) | options
    )
    return made


class Likelihood:
    """What a user has shown, as the predictive of what comes next."""

    def __init__(self, concentration: float) -> None:
        self._concentration = concentration
        self.counts: Counter[str] = Counter()
        self._total = 0

    def observe(self, category: str, share: float) -> float:
        """Count a category; return its log-likelihood under what came before it.

        `share` is the category's in the population.
        """
        a = self._concentration
        predictive = (a * share + self.counts[category]) / (a + self._total)
        self.counts[category] += 1
        self._total += 1
        return math.log(predictive)


class Watch:
    """A detector over a signal, which tells of its falls alone.

    A rise is no change of interests: the predictive of a new user gets better by itself.
    """

    def __init__(self, watch: Detector) -> None:
        self._watch = watch
        self._newest: deque[float] = deque(maxlen=_NEWEST)
        self._sum, self._length = 0.0, 0

    def fall(self, value: float) -> float:
        """Take the next value; return by how much the newest fell, 0 where no change is found."""
        self._watch.update(value)
        self._newest.append(value)
        self._sum += value
        self._length += 1
        if not self._watch.drift_detected:
            return 0.0
        fell = self._sum / self._length - sum(self._newest) / len(self._newest)
        self._newest.clear()
        self._sum, self._length = 0.0, 0
        return max(fell, 0.0)


def falls(watch: Detector, signal: Sequence[float], *, minimum: int = 0) -> list[int]:
    """Return where in a signal, after its first values, a detector finds a fall."""
    over = Watch(watch)
    return [place for place in range(minimum, len(signal)) if over.fall(signal[place])]


class RiverDrift:
    """User alerts by one of River's detectors, for a replay: all users are held in memory.

    It sees every event whose type has a weight, duplicates and late ones too, in order of the log.
    """

    def __init__(self, settings: Settings, prior: Prior) -> None:
        """Take the detector that `drift.detector` names.

        Raises:
            SettingsError: There is none of that name.
        """
        detector(settings.drift.detector)
        self._settings = settings
        self._prior = prior
        self._users: dict[str, _User] = {}

    def process(self, clicks: Clicks) -> list[DriftAlert]:
        """Return the alerts of the next events."""
        interests = self._settings.interests
        weights = [
            interests.type_weights.get(kind, interests.default_type_weight)
            for kind in clicks.event_type.values
        ]
        alerts = []
        for place in range(len(clicks)):
            kind = clicks.event_type.codes[place]
            if (interests.default_type_weight if kind == NO_CODE else weights[kind]) > 0:
                alert = self._observe(clicks, place)
                if alert is not None:
                    alerts.append(alert)
        return alerts

    def _observe(self, clicks: Clicks, place: int) -> DriftAlert | None:
        name = clicks.user.values[clicks.user.codes[place]]
        user = self._users.get(name)
        if user is None:
            user = self._users[name] = self._begin([])
        told = Evidence(
            time=int(clicks.time[place]),
            item_id=clicks.item.values[clicks.item.codes[place]],
            category=self._category(clicks, place),
        )
        user.events += 1
        user.newest.append(told)
        value = user.likelihood.observe(told.category, self._prior.share(told.category))
        if user.events <= self._settings.drift.minimum_events:
            return None
        fell = user.watch.fall(value)
        if not fell:
            return None
        source = SourcePosition(source=clicks.source, position=int(clicks.position[place]))
        alert = self._alert(name, user, fell, source)
        self._users[name] = self._begin(list(user.newest), events=user.events)
        return alert

    def _begin(self, newest: list[Evidence], events: int = 0) -> _User:
        user = _User(
            likelihood=Likelihood(self._prior.process.concentration),
            watch=Watch(detector(self._settings.drift.detector)),
            newest=deque(newest, maxlen=_NEWEST),
            events=events,
        )
        for told in newest:
            user.likelihood.observe(told.category, self._prior.share(told.category))
        return user

    def _category(self, clicks: Clicks, place: int) -> str:
        code = clicks.category.codes[place]
        if code == NO_CODE:
            item = clicks.item.values[int(clicks.item.codes[place])]
            return self._prior.groups.get(item, item)
        depth = self._settings.interests.category_depth
        return prefix(clicks.category.values[int(code)], depth)

    def _alert(self, name: str, user: _User, fell: float, source: SourcePosition) -> DriftAlert:
        since = Counter(told.category for told in user.newest)
        before = user.likelihood.counts - since
        kind = AlertKind.USER_JUMP
        return DriftAlert(
            id=alert_id(kind, name, user.events),
            kind=kind,
            subject=name,
            time=user.newest[-1].time,
            since=user.newest[0].time,
            before=_shares(before),
            after=_shares(since),
            score=round(fell, 4),
            threshold=0.0,
            guarantee=Guarantee(kind="none", value=0.0),
            evidence=list(user.newest)[-MOST_EVIDENCE:],
            source=source,
            settings=self._settings.version,
            prior=self._prior.version,
        )


@dataclass(slots=True, kw_only=True)
class _User:
    likelihood: Likelihood
    watch: Watch
    newest: deque[Evidence]
    events: int


def _shares(counts: Counter[str]) -> list[Interest]:
    total = max(counts.total(), 1)
    return [Interest(name, round(n / total, 4)) for name, n in counts.most_common(MOST_INTERESTS)]
