"""What goes in and what comes out: clicks, alerts, profiles.

Times are event times in milliseconds since the Unix epoch (UTC) unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 1

NO_CODE = -1
"""The code of a value that an event does not carry."""


class Click(msgspec.Struct, frozen=True, kw_only=True):
    """One click as it stands on the bus, before validation."""

    item_id: str
    timestamp: int | float | str
    user_id: str | None = None
    event_type: str | None = None
    event_id: str | None = None
    category: str | None = None
    session_id: str | None = None
    price: float | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A text field of a batch, dictionary-encoded.

    `values[codes[i]]` is the text of event i; a code of `NO_CODE` means that it has none.
    """

    values: list[str]
    codes: NDArray[np.int32]  # (n,)

    def take(self, rows: NDArray[np.intp] | slice) -> Column:
        """Return the same field for some of the events, the dictionary shared."""
        return Column(self.values, self.codes[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicks:
    """A batch of n validated clicks in log order, a column a field.

    `user` is never `NO_CODE`: an event without a user id carries its session in its place.
    `source` names the log that the batch comes from (a topic's partition, a file), `position` the
    place of each event in it; positions of one source strictly increase.
    """

    source: str
    position: NDArray[np.int64]  # (n,)
    time: NDArray[np.int64]  # (n,) milliseconds
    user: Column
    item: Column
    category: Column
    event_type: Column
    session: Column
    event_id: NDArray[np.uint64]  # (n,) stable hash; 0 where the event has no id

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: NDArray[np.intp] | slice) -> Clicks:
        """Return some of the events, in the order given."""
        return Clicks(
            source=self.source,
            position=self.position[rows],
            time=self.time[rows],
            user=self.user.take(rows),
            item=self.item.take(rows),
            category=self.category.take(rows),
            event_type=self.event_type.take(rows),
            session=self.session.take(rows),
            event_id=self.event_id[rows],
        )


def concatenate(batches: Sequence[Clicks]) -> Clicks:
    """Join batches, at least one, into one; its dictionaries hold no text that no click has."""
    return Clicks(
        source=batches[0].source,
        position=np.concatenate([batch.position for batch in batches]),
        time=np.concatenate([batch.time for batch in batches]),
        user=_join([batch.user for batch in batches]),
        item=_join([batch.item for batch in batches]),
        category=_join([batch.category for batch in batches]),
        event_type=_join([batch.event_type for batch in batches]),
        session=_join([batch.session for batch in batches]),
        event_id=np.concatenate([batch.event_id for batch in batches]),
    )


def _join(columns: Sequence[Column]) -> Column:
    known: dict[str, int] = {}
    codes: list[NDArray[np.int32]] = []
    for column in columns:
        present, inverse = np.unique(column.codes, return_inverse=True)
        renamed = np.array(
            [
                known.setdefault(column.values[code], len(known)) if code != NO_CODE else NO_CODE
                for code in present.tolist()
            ],
            np.int32,
        )
        codes.append(renamed[inverse])
    return Column(list(known), np.concatenate(codes))


class AlertKind(StrEnum):
    """What an alert is about."""

    USER_MIGRATION = "user_migration"
    USER_JUMP = "user_jump"
    CATEGORY_RISING = "category_rising"
    CATEGORY_FALLING = "category_falling"
    CATEGORY_EMERGING = "category_emerging"
    POPULATION_SHIFT = "population_shift"
    INPUT_DRIFT = "input_drift"
    MODEL_STALE = "model_stale"


USER_KINDS = frozenset({AlertKind.USER_MIGRATION, AlertKind.USER_JUMP})
"""Kinds of alerts whose subject is a user."""


class Interest(msgspec.Struct, frozen=True, gc=False):
    """A category and its weight: a share of the whole, 0 to 1."""

    category: str
    weight: float


class Guarantee(msgspec.Struct, frozen=True, kw_only=True):
    """The promise about errors that a detector was run under.

    `average_run_length`: without a change, one false alarm in `value` events on average.
    `false_discovery_rate`: of the alerts raised, at most the share `value` is false on average.
    """

    kind: str
    value: float


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """An event that tipped the alert."""

    time: int
    item_id: str
    category: str


class SourcePosition(msgspec.Struct, frozen=True, kw_only=True):
    """Where in which log the tipping event stands."""

    source: str
    position: int


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """About how many users an alert is about, of how many who were active in its window."""

    users: int
    active: int


class AlertState(StrEnum):
    """What an alert has to say of a change: it is new, it goes on, or it was taken back."""

    RAISED = "raised"
    UPDATED = "updated"
    RESOLVED = "resolved"


class DriftAlert(msgspec.Struct, frozen=True, kw_only=True):
    """Something drifted. Two alerts with the same id are the same alert, told twice.

    `time` is the event time at which the alert was raised, `since` the estimated time of the
    change. `score` is the detector's statistic on its own scale, `threshold` what it had to pass.
    One change of a user raises one alert; what follows bears the id of that alert in `of`.
    """

    id: str
    kind: AlertKind
    subject: str
    time: int
    since: int
    before: list[Interest] = msgspec.field(name="from")
    after: list[Interest] = msgspec.field(name="to")
    score: float
    threshold: float
    guarantee: Guarantee
    evidence: list[Evidence]
    source: SourcePosition
    settings: str
    prior: str
    state: AlertState | msgspec.UnsetType = msgspec.UNSET
    of: str | msgspec.UnsetType = msgspec.UNSET
    strength: float | msgspec.UnsetType = msgspec.UNSET
    """Share of the interests that has moved, 0 to 1."""
    by_chance: float | msgspec.UnsetType = msgspec.UNSET
    """Without a change a score as high comes up once in so many events."""
    clears_after: int | msgspec.UnsetType = msgspec.UNSET
    """About so many observations like those before would take it back."""
    reach: Reach | msgspec.UnsetType = msgspec.UNSET
    schema: int = SCHEMA_VERSION


class InterestProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What a user wants: shares by category at two time scales, and the newest items first."""

    user_id: str
    time: int
    events: int
    short_term: list[Interest]
    long_term: list[Interest]
    recent_items: list[str]
    schema: int = SCHEMA_VERSION


class ForecastWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The events expected with start <= time < end, and the interval low to high, both included.

    `volume` is what is expected over all categories.
    """

    start: int
    end: int
    expected: float
    low: int
    high: int
    volume: float


class CategoryForecast(msgspec.Struct, frozen=True, kw_only=True):
    """A category's next windows, as forecast when the window that ends at `made` had closed.

    `coverage` is the share of the intervals that are to hold what comes.
    """

    category: str
    made: int
    coverage: float
    windows: list[ForecastWindow]
    settings: str
    schema: int = SCHEMA_VERSION
