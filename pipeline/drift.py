"""Change detection for users: the detector's promise, its verdicts, and the alerts made of them.

The statistic itself is computed event by event in `pipeline.kernel`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.events import (
    AlertKind,
    AlertState,
    DriftAlert,
    Evidence,
    Guarantee,
    Interest,
    SourcePosition,
)
from pipeline.interest import LEFT, NO_SLOT, RING, recent
from pipeline.kernel import item_hash, observed_shares
from pipeline.symbols import Names

GRADUAL = 0.4
"""A change is a migration when the older half of what came since bears less of the evidence."""
GOING_ON = 64
"""A change that began at most so many observations after the last alert is the same one."""
BACK = 0.5
"""A change is taken back when the interests left have regained this part of their share."""
MOST_INTERESTS = 5
MOST_EVIDENCE = 8
MOST_TO_CLEAR = 1000
"""Observations, more than which are nothing to wait for."""

Counts = NDArray[np.float64]


def alert_id(kind: AlertKind, subject: str, ordinal: int, born: int = 0) -> str:
    """Name an alert by what it is about: the same after a crash, and on any number of partitions.

    `ordinal` is that of the tipping event in the user's history, or the start of the window; `born`
    is when that history began: a user who was forgotten begins another one.

    >>> alert_id(AlertKind.USER_JUMP, "anna", 41)
    'b86a4f0ad4b2e0f1'
    """
    about = f"{kind}\x1f{subject}\x1f{ordinal}" + (f"\x1f{born}" if born else "")
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def user_alert(
    *,
    user: str,
    state: np.void,
    verdict: np.void,
    factors: Counts,
    names: Names,
    threshold: float,
    by_chance: Callable[[float], float],
    budget: float,
    source: SourcePosition,
    settings: str,
    prior: str,
) -> DriftAlert:
    """Put a verdict on a user's state into words, before the state is settled.

    The state notes what was told, so that what follows is known for an update or a return.

    Args:
        user: The user's id.
        state: The user's state, changed in place.
        verdict: Of `kernel.advance`.
        factors: By how much each of the newest observations speaks for the change, (RING,).
        names: Gives the text behind a symbol.
        threshold: What the log of the statistic had to pass.
        by_chance: Says in how many events without a change a score comes up once.
        budget: Events without a change in which one false alarm is allowed.
        source: Where the tipping event stands.
        settings: Their version.
        prior: Its version.
    """
    length = int(verdict["length"])
    categories, before, since = observed_shares(state, length)
    before, since = before / max(before.sum(), 1), since / max(since.sum(), 1)
    gradual = verdict["older_half"] < GRADUAL
    kind = AlertKind.USER_MIGRATION if gradual else AlertKind.USER_JUMP
    score = float(np.log(verdict["statistic"]))
    told, of = _follow(user, state, length, since)
    _note(state, kind, told, before, since)
    return DriftAlert(
        id=alert_id(kind, user, int(state["events"]), int(state["born"])),
        kind=kind,
        subject=user,
        time=int(state["recent_time"][recent(state, 1)[0]]),
        since=int(verdict["since"]),
        before=_moved(categories, before, before - since, names),
        after=_moved(categories, since, since - before, names),
        score=round(score, 4),
        threshold=round(threshold, 4),
        guarantee=Guarantee(kind="average_run_length", value=budget),
        evidence=_evidence(state, length, factors, names),
        source=source,
        settings=settings,
        prior=prior,
        state=told,
        of=of,
        strength=round(float(np.abs(before - since).sum() / 2), 4),
        by_chance=round(by_chance(score)),
        clears_after=_observations_to_clear(before, since, threshold),
    )


def _follow(user: str, state: np.void, length: int, since: Counts) -> tuple[AlertState, str]:
    """Say whether a change is new, or what has become of the one told before."""
    if not state["raised"]:
        return AlertState.RAISED, ""
    kind = (AlertKind.USER_JUMP, AlertKind.USER_MIGRATION)[int(state["raised_kind"])]
    of = alert_id(kind, user, int(state["raised"]), int(state["born"]))
    left = state["left"][state["left"] != NO_SLOT]
    if len(left) and since[left].sum() >= BACK * float(state["left_share"]):
        return AlertState.RESOLVED, of
    began = int(state["observed"]) - length
    if began <= int(state["alerted"]) + GOING_ON:
        return AlertState.UPDATED, of
    return AlertState.RAISED, ""


def _note(state: np.void, kind: AlertKind, told: AlertState, before: Counts, since: Counts) -> None:
    """Let a state remember the change it is in, and what the user has left by it."""
    state["alerted"] = state["observed"]
    if told is AlertState.RESOLVED:
        state["raised"] = 0
    elif told is AlertState.RAISED:
        state["raised"] = state["events"]
        state["raised_kind"] = kind is AlertKind.USER_MIGRATION
        most = np.argsort(since - before, kind="stable")[:LEFT]
        left = most[before[most] > since[most]]
        state["left"] = NO_SLOT
        state["left"][: len(left)] = left
        state["left_share"] = before[left].sum()


def _moved(categories: np.ndarray, weights: Counts, change: Counts, names: Names) -> list[Interest]:
    """Return the categories that moved most in one direction, each with its weight there."""
    most = np.argsort(-change, kind="stable")[:MOST_INTERESTS]
    return [
        Interest(names[int(categories[i])], round(float(weights[i]), 4))
        for i in most
        if change[i] > 0
    ]


def _evidence(state: np.void, length: int, factors: Counts, names: Names) -> list[Evidence]:
    """Return the events that tipped it, oldest first: the newest, and those that weighed most.

    Not every recent event is an observation of the detector, but they come in the same order.
    """
    weighed: list[tuple[float, int]] = []
    for i in recent(state):
        k = len(weighed)
        if k >= length:
            break
        observation = state["ring"][(int(state["observed"]) - 1 - k) % RING]
        if observation["item"] == item_hash(int(state["recent_item"][i])):
            weighed.append((float(factors[k]) if k else math.inf, int(i)))
    chosen = sorted(weighed, key=lambda pair: -pair[0])[:MOST_EVIDENCE]
    tipping = {i for factor, i in chosen if factor > 1}
    return [
        Evidence(
            time=int(state["recent_time"][i]),
            item_id=names[int(state["recent_item"][i])],
            category=names[int(state["recent_category"][i])],
        )
        for _, i in reversed(weighed)
        if i in tipping
    ]


def _observations_to_clear(
    before: Counts, since: Counts, threshold: float
) -> int | msgspec.UnsetType:
    """Estimate how many observations like those before would raise the opposite alarm.

    Unset where items have changed within the same categories, so that these tell nothing.

    Each tells as much as the relative entropy of the interests before to those since; the
    detector takes the root of a likelihood ratio, hence half of it.
    """
    floor = 0.01
    one, other = before + floor, since + floor
    one, other = one / one.sum(), other / other.sum()
    told = float((one * np.log(one / other)).sum()) / 2
    return math.ceil(threshold / told) if told * MOST_TO_CLEAR > threshold else msgspec.UNSET
