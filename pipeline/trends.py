"""All users together: categories that move, a population that shifts, an input that breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from pipeline.drift import alert_id
from pipeline.events import (
    AlertKind,
    CategoryForecast,
    DriftAlert,
    Guarantee,
    Interest,
    Reach,
    SourcePosition,
)
from pipeline.forecast import Forecaster, ForecastState
from pipeline.inputs import RATE, Fault, Inputs, InputsState
from pipeline.levels import Findings, Levels, LevelsState
from pipeline.population import Population, PopulationState, Shift
from pipeline.rollups import FURTHER, Rollup
from pipeline.settings import Settings

LEAST_USERS = 20
"""A category is judged by its users with so many of the sampled ones seen or expected in it."""
MOST_EMPTY = 60
"""Windows without an event that are judged before the next one that has some."""
LEAST_REST = 0.02
"""What a shift that was told left untouched is expected to be at least so much of the whole: levels
that add up to one, or past it, would have a few events stand for any number."""
EVERYBODY = "users"
"""The subject of an alert about the population."""
EVENTS = "events"
"""The subject of an alert about the input."""


class TrendsState(msgspec.Struct, kw_only=True):
    """All that is known of the windows so far."""

    newest: int | None = None
    """The start of the newest window."""
    categories: LevelsState = msgspec.field(default_factory=LevelsState)
    forecast: ForecastState = msgspec.field(default_factory=ForecastState)
    population: PopulationState = msgspec.field(default_factory=PopulationState)
    inputs: InputsState = msgspec.field(default_factory=InputsState)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a window gave rise to."""

    alerts: list[DriftAlert]
    forecasts: list[CategoryForecast]


class Trends:
    """Judges windows, all sources merged, in order of time; then learns from them and forecasts.

    A category that has raised an alert is expected at its new share from then on, and may go back
    to the old one without another, so that one change raises one alert. Where many users moved at
    once, one alert about them takes the place of those about its categories; where the events
    themselves differ or are too few, one about the input takes the place of both, and nothing is
    learnt of people.
    """

    def __init__(
        self, settings: Settings, state: TrendsState | None = None, prior: str = ""
    ) -> None:
        self._settings = settings
        self._version = settings.version
        self._prior = prior
        self.state = state or TrendsState()
        trends = settings.trends
        self._size, self._rate = int(trends.window), trends.false_discovery_rate
        judging = {"size": self._size, "warm_up": trends.warm_up}
        least = trends.minimum_events
        self._categories = Levels(self.state.categories, least=least, **judging)
        self._forecaster = Forecaster(settings, self.state.forecast)
        self._inputs = Inputs(self.state.inputs, least=least, **judging)
        self._population = Population(
            self.state.population, least=LEAST_USERS, share=trends.population_share, **judging
        )

    def add(self, rollup: Rollup) -> Outlook:
        """Take a closed window. Windows come in order of time."""
        alerts: list[DriftAlert] = []
        for window in [*self._empty(rollup), rollup]:
            fault = self._inputs.add(window, self._forecaster.volume)
            if fault and fault.new:
                alerts.append(self._input_alert(fault, window))
            if window is rollup and not (fault and fault.blinding):
                alerts += self._people(rollup)
            else:
                self._forecaster.pass_over(window)
        self.state.newest = rollup.start
        forecasts = self._forecaster.forecast(rollup, self._categories.current())
        return Outlook(alerts=alerts, forecasts=forecasts)

    def _people(self, rollup: Rollup) -> list[DriftAlert]:
        self._forecaster.score(rollup)
        shift = self._population.add(rollup, self._rate)
        alerts = [self._population_alert(shift, rollup)] if shift else []
        counts = self._without_shifts(rollup)
        total = sum(counts.values())
        counts.pop(FURTHER, None)
        unknown = rollup.unknown(self._categories.state.levels)
        found = self._categories.judge(rollup.start, counts, total, self._rate, unknown=unknown)
        alerts += [self._category_alert(name, rollup, found) for name in found.residuals]
        frozen = unknown.union(self._population.told)
        self._categories.learn(rollup.start, counts, total, changed=found.changed, frozen=frozen)
        return alerts

    def _without_shifts(self, rollup: Rollup) -> dict[str, int]:
        """Return a window's counts as if the categories of a shift that was told had stayed.

        What they gain all others lose, and would seem to fall.
        """
        told = self._population.told
        stayed = {name: self._categories.expected(name, rollup.total) for name in sorted(told)}
        rest = {name: n for name, n in rollup.counts.items() if name not in told}
        total = sum(rest.values()) / max(1 - sum(stayed.values()), LEAST_REST)
        return rest | {name: round(share * total) for name, share in stayed.items()}

    def _empty(self, rollup: Rollup) -> Iterator[Rollup]:
        """Yield the windows without an event between the newest one and this one."""
        if self.state.newest is None:
            return
        first = max(self.state.newest + self._size, rollup.start - MOST_EMPTY * self._size)
        for start in range(first, rollup.start, self._size):
            yield Rollup(
                start=start,
                end=start + self._size,
                counts={},
                source=rollup.source,
                position=rollup.position,
            )

    def _category_alert(self, name: str, rollup: Rollup, found: Findings) -> DriftAlert:
        z, total = found.residuals[name], max(rollup.total, 1)
        kind = AlertKind.CATEGORY_RISING if z > 0 else AlertKind.CATEGORY_FALLING
        if z > 0 and self._categories.is_young(name):
            kind = AlertKind.CATEGORY_EMERGING
        return self._alert(
            kind,
            name,
            rollup,
            before=[Interest(name, round(self._categories.expected(name, total), 6))],
            after=[Interest(name, round(rollup.counts.get(name, 0) / total, 6))],
            score=round(z, 4),
            threshold=round(found.threshold, 4),
        )

    def _population_alert(self, shift: Shift, rollup: Rollup) -> DriftAlert:
        return self._alert(
            AlertKind.POPULATION_SHIFT,
            EVERYBODY,
            rollup,
            before=shift.before,
            after=shift.after,
            score=shift.score,
            threshold=shift.threshold,
            reach=Reach(users=shift.users, active=shift.active),
        )

    def _input_alert(self, fault: Fault, rollup: Rollup) -> DriftAlert:
        return self._alert(
            AlertKind.INPUT_DRIFT,
            EVENTS,
            rollup,
            before=fault.before,
            after=fault.after,
            score=fault.score,
            threshold=fault.threshold,
            guarantee=Guarantee(kind="false_positive_rate", value=RATE),
        )

    def _alert(
        self,
        kind: AlertKind,
        subject: str,
        rollup: Rollup,
        *,
        before: list[Interest],
        after: list[Interest],
        score: float,
        threshold: float,
        guarantee: Guarantee | None = None,
        reach: Reach | msgspec.UnsetType = msgspec.UNSET,
    ) -> DriftAlert:
        promise = Guarantee(kind="false_discovery_rate", value=self._rate)
        return DriftAlert(
            id=alert_id(kind, subject, rollup.start),
            kind=kind,
            subject=subject,
            time=rollup.end,
            since=rollup.start,
            before=before,
            after=after,
            score=score,
            threshold=threshold,
            guarantee=guarantee or promise,
            evidence=[],
            source=SourcePosition(source=rollup.source, position=rollup.position),
            settings=self._version,
            prior=self._prior,
            reach=reach,
        )
