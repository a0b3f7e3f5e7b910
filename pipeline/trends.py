"""Categories rising, falling and newly emerging over all users, and what is to come of them."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from pipeline.drift import alert_id
from pipeline.events import (
    AlertKind,
    CategoryForecast,
    DriftAlert,
    Guarantee,
    Interest,
    SourcePosition,
)
from pipeline.forecast import Forecaster, ForecastState
from pipeline.levels import Findings, Levels, LevelsState
from pipeline.rollups import Rollup
from pipeline.settings import Settings


class TrendsState(msgspec.Struct, kw_only=True):
    """All that is known of the windows so far."""

    categories: LevelsState = msgspec.field(default_factory=LevelsState)
    forecast: ForecastState = msgspec.field(default_factory=ForecastState)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a window gave rise to."""

    alerts: list[DriftAlert]
    forecasts: list[CategoryForecast]


class Trends:
    """Judges windows, all sources merged, in order of time; then learns from them and forecasts.

    A category that has raised an alert is expected at its new share from then on, and may go back
    to the old one without another, so that one change raises one alert.
    """

    def __init__(
        self, settings: Settings, state: TrendsState | None = None, prior: str = ""
    ) -> None:
        self._settings = settings
        self._version = settings.version
        self._prior = prior
        self.state = state or TrendsState()
        self._categories = Levels(
            self.state.categories,
            size=int(settings.trends.window),
            warm_up=settings.trends.warm_up,
            least=settings.trends.minimum_events,
        )
        self._forecaster = Forecaster(settings, self.state.forecast)

    def add(self, rollup: Rollup) -> Outlook:
        """Take a closed window. Windows come in order of time."""
        self._forecaster.score(rollup)
        total = rollup.total
        found = self._categories.judge(
            rollup.start, rollup.counts, total, self._settings.trends.false_discovery_rate
        )
        alerts = [self._alert(name, rollup, found) for name in found.residuals]
        self._categories.learn(rollup.start, rollup.counts, total, found.changed)
        forecasts = self._forecaster.forecast(rollup, self._categories.current())
        return Outlook(alerts=alerts, forecasts=forecasts)

    def _alert(self, name: str, rollup: Rollup, found: Findings) -> DriftAlert:
        z, total = found.residuals[name], max(rollup.total, 1)
        kind = AlertKind.CATEGORY_RISING if z > 0 else AlertKind.CATEGORY_FALLING
        if z > 0 and self._categories.is_young(name):
            kind = AlertKind.CATEGORY_EMERGING
        return DriftAlert(
            id=alert_id(kind, name, rollup.start),
            kind=kind,
            subject=name,
            time=rollup.end,
            since=rollup.start,
            before=[Interest(name, round(self._categories.expected(name, total), 6))],
            after=[Interest(name, round(rollup.counts.get(name, 0) / total, 6))],
            score=round(z, 4),
            threshold=round(found.threshold, 4),
            guarantee=Guarantee(
                kind="false_discovery_rate", value=self._settings.trends.false_discovery_rate
            ),
            evidence=[],
            source=SourcePosition(source=rollup.source, position=rollup.position),
            settings=self._version,
            prior=self._prior,
        )
