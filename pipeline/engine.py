"""The one flow of the interest stage: clicks in, effects out.

Both drivers, live and replay, call `Engine.process`. Its effects are a function of the clicks, in
their order within a source, and of versioned settings: where batches are cut does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import drift, interest, kernel
from pipeline.events import NO_CODE, Clicks, Column, DriftAlert, SourcePosition
from pipeline.hot import HotStates, Load
from pipeline.packing import decode
from pipeline.prior import UNIFORM, Prior
from pipeline.rollups import Rollup, Rollups, RollupsState
from pipeline.settings import Settings
from pipeline.snapshots import SNAPSHOT, Snapshots
from pipeline.symbols import Names, Symbols, prefix, symbol

_NONE = np.zeros(0)
_NEVER = np.iinfo(np.int64).min


class Counts(msgspec.Struct, kw_only=True):
    """What became of the events of a source: they are applied, late or duplicates."""

    applied: int = 0
    late: int = 0
    duplicates: int = 0


class Progress(msgspec.Struct, kw_only=True):
    """What the engine knows of its source beside the users' states; durable together with them."""

    position: int = -1
    counts: Counts = msgspec.field(default_factory=Counts)
    rollups: RollupsState = msgspec.field(default_factory=RollupsState)


def decode_progress(data: bytes) -> Progress:
    """Read an engine's progress.

    Raises:
        StateError: the bytes are none.
    """
    try:
        return msgspec.msgpack.decode(data, type=Progress)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise interest.StateError(f"not an engine's progress: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What a batch gave rise to, each list in the order of the log."""

    alerts: list[DriftAlert]
    profiles: Snapshots
    rollups: list[Rollup]
    late: list[int]
    """Positions of events that came too late for their user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What has to be made durable, all of it or nothing."""

    states: list[tuple[str, bytes]]
    names: dict[int, str]
    progress: bytes
    gone: list[str] = field(default_factory=list)
    """Users whose states are to be deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """What the kernel needs to know of n events beside position, time and id; each (n,)."""

    row: NDArray[np.int64]
    item: NDArray[np.uint64]
    category: NDArray[np.uint64]
    prior: NDArray[np.float32]
    share: NDArray[np.float32]
    weight: NDArray[np.float32]
    session: NDArray[np.uint64]
    expiry: NDArray[np.int64]


class Engine:
    """Interest states and drift detection over one source.

    The caller's duty, in this order: write out the effects of `process`, make `changes` durable,
    and only then let the source forget what was read. Clicks at or before the progress may be
    handed in again; they change nothing and are not counted twice.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        load: Load = lambda users: [None] * len(users),
        name: Callable[[int], str | None] = lambda _: None,
        prior: Prior = UNIFORM,
        progress: bytes | None = None,
        capacity: int = 100_000,
        profiles: bool = True,
    ) -> None:
        """Start from a store's `load` and `name`, and from the `progress` it holds.

        Without `profiles` effects carry none.
        """
        self._settings = settings
        self._settings_version = settings.version
        self._prior = prior
        self._prior_version = prior.version
        self._symbols = Symbols(name)
        self._load = load
        self._hot = HotStates(load, capacity=capacity)
        self._erased: list[str] = []
        self._profiles = profiles
        self._score = prior.score_for(settings.drift.events_per_false_alarm)
        self._parameters = _parameters(settings, prior, self._score)
        self._new = np.array([interest.new_state()])
        self._scratch = np.zeros(1, kernel.SCRATCH)
        self._verdict = np.zeros(1, kernel.VERDICT)
        self.progress = decode_progress(progress) if progress else Progress()
        self._rollups = Rollups(settings, self.progress.rollups, self.names)

    def process(self, clicks: Clicks) -> Effects:
        """Apply a batch of clicks of this engine's source."""
        clicks = self._unseen(clicks)
        if not len(clicks):
            nothing = Snapshots([], np.empty(0, SNAPSHOT))
            return Effects(alerts=[], profiles=nothing, rollups=[], late=[])
        users, user = _distinct(clicks.user)
        columns = self._columns(clicks, self._hot.rows(users)[user])
        outcome = np.zeros(len(clicks), np.uint8)
        alerts, profiles = self._advance(clicks, columns, outcome)
        self._count(outcome)
        rollups = self._rollups.add(
            clicks,
            user=self._hot.symbols[columns.row],
            item=columns.item,
            category=columns.category,
            counted=(columns.weight > 0) & (outcome != kernel.DUPLICATE),
        )
        self.progress.position = int(clicks.position[-1])
        late = clicks.position[outcome == kernel.LATE].tolist()
        return Effects(alerts=alerts, profiles=profiles, rollups=rollups, late=late)

    def statistics(self, clicks: Clicks) -> NDArray[np.float64]:
        """Apply clicks, and return the log of the detector's statistic after each: (n,).

        No alert is raised, so a change, or what looks like one, goes on being weighed.
        """
        found = np.zeros(len(clicks))
        parameters, self._parameters = self._parameters, self._parameters.copy()
        self._parameters["threshold"] = np.inf
        users, user = _distinct(clicks.user)
        columns = self._columns(clicks, self._hot.rows(users)[user])
        self._advance(clicks, columns, np.zeros(len(clicks), np.uint8), found)
        self._parameters = parameters
        with np.errstate(divide="ignore"):
            logs: NDArray[np.float64] = np.log(found)
        return logs

    def drain(self) -> list[Rollup]:
        """Close every window: the source is bounded and has ended."""
        return self._rollups.drain(self.progress.position)

    @property
    def crowded(self) -> bool:
        """Whether more than `capacity` states are in memory: `changes` lets them go."""
        return self._hot.crowded

    @property
    def expiry(self) -> int:
        """A state whose newest event is before this time counts as absent, whatever comes."""
        interests = self._settings.interests
        if not self.forgetful:
            return _NEVER
        return self._rollups.state.newest - interests.lateness - interests.retention

    @property
    def forgetful(self) -> bool:
        """Whether users are forgotten: then `changes` is to be shown what is stored."""
        return self._settings.interests.retention > 0

    def changes(self, stored: Sequence[tuple[str, bytes]] = ()) -> Changes:
        """Return what has changed since the last call, for the store.

        Args:
            stored: users and encoded states of the store, to see whether they are gone. It decides
                nothing but when their room is free: a state counts as absent from the moment that
                it is too old, stored or not.
        """
        gone = self._gone(stored)
        erased, self._erased = self._erased, []
        return Changes(
            states=self._hot.changed(),
            names=self._symbols.take_fresh(),
            progress=msgspec.msgpack.encode(self.progress),
            gone=erased + gone,
        )

    def erase(self, user: str) -> None:
        """Forget a user; `changes` then tells the store. An event after that begins a new history.

        There is nothing to tell of a user who was never seen.
        """
        if self._hot.forget(user) or self._load([user])[0] is not None:
            self._erased.append(user)

    @property
    def names(self) -> Names:
        """The texts behind symbols."""
        return self._symbols.names

    def _gone(self, stored: Sequence[tuple[str, bytes]]) -> list[str]:
        times = decode([state for _, state in stored])["time"].tolist()
        at_hand = [self._hot.newest(user) for user, _ in stored]
        expiry = self.expiry
        return [
            user
            for (user, _), time, newest in zip(stored, times, at_hand, strict=True)
            if (time if newest is None else newest) < expiry
        ]

    def _expiries(self, clicks: Clicks) -> NDArray[np.int64]:
        """Return for each event the time before which its user's state is too old to count.

        It is the silence before the event that counts. An event out of order would find the state
        gone or not, as the store has come to it or not, but for the second bound: the newest event
        of the log tells when a state may be deleted, whoever comes then.
        """
        if not self.forgetful:
            return np.full(len(clicks), _NEVER)
        newest = np.maximum(np.maximum.accumulate(clicks.time), self._rollups.state.newest)
        interests = self._settings.interests
        silent = np.maximum(clicks.time, newest - interests.lateness)
        expiries: NDArray[np.int64] = silent - interests.retention
        return expiries

    def _unseen(self, clicks: Clicks) -> Clicks:
        if len(clicks) and clicks.position[0] <= self.progress.position:
            return clicks.take(
                slice(int(np.searchsorted(clicks.position, self.progress.position, "right")), None)
            )
        return clicks

    def _columns(self, clicks: Clicks, row: NDArray[np.int64]) -> _Columns:
        category, prior = self._categories(clicks)
        items, item = _distinct(clicks.item)
        return _Columns(
            row=row,
            item=self._symbols.encode(items)[item],
            category=category,
            prior=prior,
            share=self._prior.item_shares(items)[item],
            weight=self._weights(clicks.event_type),
            session=_sessions(clicks.session),
            expiry=self._expiries(clicks),
        )

    def _advance(
        self,
        clicks: Clicks,
        columns: _Columns,
        outcome: NDArray[np.uint8],
        statistics: NDArray[np.float64] = _NONE,
    ) -> tuple[list[DriftAlert], Snapshots]:
        """Run the kernel over the batch, and put what it stops for into words."""
        alerts: list[DriftAlert] = []
        users, states = clicks.user, self._hot.array
        snapshots = np.empty(len(clicks) if self._profiles else 0, SNAPSHOT)
        start = taken = 0
        while start < len(clicks):
            stop, taken = kernel.advance(
                states,
                start,
                columns.row,
                clicks.position,
                clicks.time,
                columns.item,
                columns.category,
                columns.prior,
                columns.share,
                columns.weight,
                columns.session,
                clicks.event_id,
                columns.expiry,
                outcome,
                self._new,
                self._parameters,
                self._scratch,
                self._verdict,
                statistics,
                snapshots,
                taken,
            )
            if stop < len(clicks):
                user, row = users.values[users.codes[stop]], columns.row[stop]
                place = SourcePosition(source=clicks.source, position=int(clicks.position[stop]))
                alerts.append(self._alert(user, states[row], place))
                kernel.settle(states, row, self._verdict[0]["length"], self._parameters)
            start = stop + 1
        due = [users.values[code] for code in users.codes[snapshots["event"][:taken]].tolist()]
        return alerts, Snapshots(due, snapshots[:taken])

    def _alert(self, user: str, state: np.void, place: SourcePosition) -> DriftAlert:
        return drift.user_alert(
            user=user,
            state=state,
            verdict=self._verdict[0],
            factors=self._scratch[0]["evidence"],
            names=self.names,
            threshold=self._score,
            by_chance=self._prior.events_by_chance,
            budget=self._settings.drift.events_per_false_alarm,
            source=place,
            settings=self._settings_version,
            prior=self._prior_version,
        )

    def _categories(self, clicks: Clicks) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return symbol and prior share by event.

        An item without category is taken for what the prior groups it with, or for itself.
        """
        column, depth = clicks.category, self._settings.interests.category_depth
        missing = column.codes == NO_CODE
        texts, inverse = _distinct(column)
        categories = [prefix(text, depth) for text in texts]
        symbols = self._symbols.encode(categories)[inverse]
        shares = self._prior.category_shares(categories)[inverse]
        if missing.any():
            items, item = _distinct(clicks.item.take(np.flatnonzero(missing)))
            groups = [self._prior.groups.get(name, name) for name in items]
            symbols[missing] = self._symbols.encode(groups)[item]
            shares[missing] = self._prior.category_shares(groups)[item]
        return symbols, shares

    def _weights(self, event_type: Column) -> NDArray[np.float32]:
        texts, inverse = _distinct(event_type)
        interests = self._settings.interests
        by_type = [interests.type_weights.get(t, interests.default_type_weight) for t in texts]
        return np.array(by_type, np.float32)[inverse]

    def _count(self, outcome: NDArray[np.uint8]) -> None:
        times = np.bincount(outcome, minlength=kernel.PASSED_OVER + 1)
        counts = self.progress.counts
        counts.applied += int(times[kernel.APPLIED])
        counts.late += int(times[kernel.LATE])
        counts.duplicates += int(times[kernel.DUPLICATE])


def _distinct(column: Column) -> tuple[list[str], NDArray[np.int64]]:
    """Return the texts that occur, and for each event which of them it bears.

    An event without a value bears "", which no event with a value does.
    """
    present = np.flatnonzero(np.bincount(column.codes - NO_CODE)) + NO_CODE
    place = np.empty(len(column.values) + 1, np.int64)  # of a code among those present
    place[present - NO_CODE] = np.arange(len(present))
    texts = [column.values[code] if code != NO_CODE else "" for code in present.tolist()]
    return texts, place[column.codes - NO_CODE]


def _sessions(column: Column) -> NDArray[np.uint64]:
    texts, inverse = _distinct(column)
    return np.array([symbol(text) if text else 0 for text in texts], np.uint64)[inverse]


def _parameters(settings: Settings, prior: Prior, score: float) -> np.ndarray:
    interests, process = settings.interests, prior.process
    parameters = np.zeros(1, kernel.PARAMETERS)
    parameters["short_decay"] = -1 / interests.short_half_life
    parameters["long_decay"] = -1 / interests.long_half_life
    parameters["lateness"] = interests.lateness
    parameters["session_gap"] = interests.session_gap
    parameters["profile_interval"] = interests.profile_interval
    parameters["threshold"] = np.exp(score)
    parameters["minimum"] = settings.drift.minimum_events
    parameters["concentration"] = process.concentration
    parameters["discount"] = process.discount
    parameters["item_concentration"] = process.item_concentration
    parameters["item_discount"] = process.item_discount
    parameters["cap"] = np.exp(process.cap)
    return parameters
