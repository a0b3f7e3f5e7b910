"""Change detection for users: the detector's promise, its verdicts, and the alerts made of them.

The statistic itself is computed event by event in `pipeline.kernel`.
"""

from __future__ import annotations

import hashlib

import numpy as np

from pipeline.events import (
    AlertKind,
    DriftAlert,
    Evidence,
    Guarantee,
    Interest,
    SourcePosition,
)
from pipeline.interest import Names, recent
from pipeline.kernel import observed_shares

GRADUAL = 0.4
"""A change is a migration when the older half of what came since bears less of the evidence."""
MOST_INTERESTS = 5
MOST_EVIDENCE = 8


def alert_id(kind: AlertKind, subject: str, ordinal: int) -> str:
    """Name an alert by what it is about: the same after a crash, and on any number of partitions.

    `ordinal` is that of the tipping event in the user's history, or the start of the window.

    >>> alert_id(AlertKind.USER_JUMP, "anna", 41)
    'b86a4f0ad4b2e0f1'
    """
    about = f"{kind}\x1f{subject}\x1f{ordinal}"
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def user_alert(
    *,
    user: str,
    state: np.void,
    verdict: np.void,
    names: Names,
    threshold: float,
    source: SourcePosition,
    settings: str,
    prior: str,
) -> DriftAlert:
    """Put a verdict on a user's state into words, before the state is settled."""
    length = int(verdict["length"])
    categories, before, since = observed_shares(state, length)
    before_shares, since_shares = before / max(before.sum(), 1), since / max(since.sum(), 1)
    gradual = verdict["older_half"] < GRADUAL
    kind = AlertKind.USER_MIGRATION if gradual else AlertKind.USER_JUMP
    gained = set(categories[since_shares > before_shares].tolist())
    return DriftAlert(
        id=alert_id(kind, user, int(state["events"])),
        kind=kind,
        subject=user,
        time=int(state["recent_time"][recent(state, 1)[0]]),
        since=int(verdict["since"]),
        before=_moved(categories, before_shares, before_shares - since_shares, names),
        after=_moved(categories, since_shares, since_shares - before_shares, names),
        score=round(float(np.log(verdict["statistic"])), 4),
        threshold=round(float(np.log(threshold)), 4),
        guarantee=Guarantee(kind="average_run_length", value=threshold),
        evidence=_evidence(state, int(verdict["since"]), gained, names),
        source=source,
        settings=settings,
        prior=prior,
    )


def _moved(
    categories: np.ndarray, weights: np.ndarray, change: np.ndarray, names: Names
) -> list[Interest]:
    """Return the categories that moved most in one direction, each with its weight there."""
    most = np.argsort(-change, kind="stable")[:MOST_INTERESTS]
    return [
        Interest(names(int(categories[i])), round(float(weights[i]), 4))
        for i in most
        if change[i] > 0
    ]


def _evidence(state: np.void, since: int, gained: set[int], names: Names) -> list[Evidence]:
    """Return the newest events since the change in categories that gained, oldest first."""
    newest = [
        Evidence(
            time=int(state["recent_time"][i]),
            item_id=names(int(state["recent_item"][i])),
            category=names(int(state["recent_category"][i])),
        )
        for i in recent(state)
        if int(state["recent_time"][i]) >= since and int(state["recent_category"][i]) in gained
    ]
    return newest[:MOST_EVIDENCE][::-1]
