"""A prior from history, and the threshold that keeps what is promised on it.

How often an alert is false depends on how bursty people are and how often they turn to something
new, so it is measured, on streams made of the history itself: a user's visits shuffled hold no
change, and every alert on them is false; one user's shuffled visits continued with another's hold
one change, at a known event. The users measured are others than those that the shares are from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from msgspec.structs import replace as replace_fields
from numpy.typing import NDArray

from pipeline.engine import Engine
from pipeline.events import NO_CODE, AlertState, Clicks, Column
from pipeline.groups import group_items
from pipeline.prior import Measured, Prior, Process, Threshold
from pipeline.settings import Interests, Settings
from pipeline.symbols import prefix

CAPS = (12.0, 16.0, 24.0, 40.0, 64.0)
"""Of what a visit can say; the one that finds most is taken."""
MARGIN = 0.65
"""Of what is promised; the rest is for users who are unlike those measured."""
HOUR = 3_600_000
LEAST_USERS = 40
MOST_USERS = 600
MOST_EVENTS = 2000
"""Of a user's history."""
SIDE = 50
"""Events of a splice on either side, at least."""
MOST_BEFORE, MOST_AFTER = 400, 200
"""Events of a splice on either side."""

Rows = NDArray[np.intp]
Scores = NDArray[np.float64]


class CalibrationError(ValueError):
    """The history does not hold enough to calibrate on."""


@dataclass(frozen=True, slots=True)
class Splice:
    """A made history: rows of the real events, and at which of them another user takes over."""

    rows: Rows
    change: int


@dataclass(frozen=True, slots=True)
class _Trial:
    """Made streams: of users without a change, and of users with one."""

    steady: list[Rows]
    splices: list[Splice]


def calibrate(clicks: Clicks, settings: Settings) -> Prior:
    """Estimate the population's shares, and choose the threshold on users not among them.

    Args:
        clicks: The history, in log order.
        settings: Say what a category, a visit and the promised rates are.

    Raises:
        CalibrationError: Too few users have enough events.
    """
    random = np.random.default_rng(settings.seed)
    users = histories(clicks, 2 * SIDE, random)
    if len(users) < LEAST_USERS:
        raise CalibrationError(
            f"{len(users)} users have {2 * SIDE} events or more, and {LEAST_USERS} are needed: "
            "calibrate on a longer history"
        )
    measured = users[: min(len(users) // 2, MOST_USERS)]
    apart = np.ones(len(clicks.user.values), np.bool_)
    apart[[clicks.user.codes[rows[0]] for rows in measured]] = False
    others = estimate(clicks.take(np.flatnonzero(apart[clicks.user.codes])), settings)
    trial = _Trial(
        steady=[
            made
            for rows in measured
            for made in (
                shuffle_visits(clicks, rows[:MOST_EVENTS], random),
                random.permutation(rows[:MOST_EVENTS]),
            )
        ],
        splices=splices(clicks, measured, random),
    )
    tried = [
        _measure(clicks, trial, settings, replace_fields(others, process=Process(cap=cap)))
        for cap in CAPS
    ]
    best = max(tried, key=_worth)
    return replace_fields(
        estimate(clicks, settings),
        process=best.process,
        threshold=best.threshold,
        measured=best.measured,
    )


def _worth(prior: Prior) -> float:
    """Return how much a prior finds; a hundred events of delay are worth a tenth of the recall."""
    measured = prior.measured
    if measured is None or measured.delay is None:
        return 0.0
    return measured.recall - measured.delay / 1000


def estimate(clicks: Clicks, settings: Settings) -> Prior:
    """Estimate the population's shares; half an observation is kept for each, and for the unseen.

    Krichevsky & Trofimov 1981, "The performance of universal encoding".
    """
    groups = group_items(clicks, settings)
    counts = visits_by_category(clicks, settings.interests, groups)
    total = sum(counts.values()) + 0.5 * (len(counts) + 1)
    items, unseen = _item_shares(clicks, settings.interests, groups)
    return Prior(
        unseen=0.5 / total,
        unseen_item=unseen,
        shares={name: (n + 0.5) / total for name, n in sorted(counts.items())},
        items=items,
        groups=groups,
    )


def _item_shares(
    clicks: Clicks, interests: Interests, groups: dict[str, str]
) -> tuple[dict[str, float], float]:
    """Return the share of each item in its category, and that of an item not met."""
    texts, category = _stands_for(clicks, interests, groups)
    visit = visits(clicks, interests)
    once = np.unique(np.stack([visit, clicks.item.codes]), axis=1, return_index=True)[1]
    item, category = clicks.item.codes[once], category[once]
    pairs, times = np.unique(np.stack([category, item]), axis=1, return_counts=True)
    kinds = np.bincount(pairs[0], minlength=len(texts))
    totals = np.bincount(pairs[0], weights=times, minlength=len(texts)) + 0.5 * (kinds + 1)
    shares = (times + 0.5) / totals[pairs[0]]
    named = dict(zip(np.array(clicks.item.values)[pairs[1]].tolist(), shares.tolist(), strict=True))
    rarest = 0.5 / float(np.median(totals[pairs[0]]))
    return {name: float(f"{share:.3g}") for name, share in sorted(named.items())}, rarest


def _measure(clicks: Clicks, trial: _Trial, settings: Settings, prior: Prior) -> Prior:
    """Choose the threshold that keeps the promises on made streams, and say how it does."""
    steady = scores(clicks, trial.steady, settings, prior)
    spliced = scores(clicks, [splice.rows for splice in trial.splices], settings, prior)
    changes = [splice.change for splice in trial.splices]
    threshold = _threshold(steady, spliced, changes, settings)
    prior = replace_fields(prior, threshold=threshold)
    score = prior.score_for(settings.drift.events_per_false_alarm)
    first = [np.flatnonzero(of > score) for of in spliced]
    delays = [
        int(passed[0]) - change + 1
        for passed, change in zip(first, changes, strict=True)
        if len(passed) and passed[0] >= change
    ]
    false = _false_users(steady, spliced, changes)
    return replace_fields(
        prior,
        measured=Measured(
            false_alarms_per_1000=round(1000 * _alarm_rate(steady, score), 4),
            false_discovery_rate=round(_false_discoveries(*false, score), 4),
            recall=round(len(delays) / len(changes), 4),
            delay=float(np.median(delays)) if delays else None,
        ),
    )


def _threshold(
    steady: list[Scores], spliced: list[Scores], changes: list[int], settings: Settings
) -> Threshold:
    """Choose what the score has to pass: by the rate of false alarms, and by that of discoveries.

    Of the two ways of shuffling, the one with more false alarms decides.
    """
    budget = settings.drift.events_per_false_alarm / MARGIN
    at, rarer = 0.0, 0.0
    for kind in (steady[::2], steady[1::2]):
        highest = np.sort([of.max() for of in kind])[::-1]
        events = sum(len(of) for of in kind)
        allowed = min(int(events / budget), len(highest) - 1)
        more = min(max(4 * allowed, 8), len(highest) - 1)
        if highest[allowed] > at:
            at = float(highest[allowed])
            rarer = float(np.log((more + 1) / (allowed + 1)) / max(at - highest[more], 0.1))
    false, true = _false_users(steady, spliced, changes)
    wanted = MARGIN * settings.drift.false_discovery_rate
    candidates = np.sort(np.concatenate([false, true]))
    broken = [_false_discoveries(false, true, score) > wanted for score in candidates]
    least = candidates[min(int(np.flatnonzero([True, *broken])[-1]), len(candidates) - 1)]
    return Threshold(
        at=_up(at),
        events=float(settings.drift.events_per_false_alarm),
        slope=round(float(np.clip(rarer, 0.1, 1.0)), 4),
        least=_up(float(least)),
        false_discovery_rate=settings.drift.false_discovery_rate,
    )


def _up(score: float) -> float:
    """Round to four digits such that what did not pass a threshold does not pass it now."""
    return float(np.ceil(score * 1e4) / 1e4)


def _false_users(
    steady: list[Scores], spliced: list[Scores], changes: list[int]
) -> tuple[Scores, Scores]:
    """Return the highest score of users without a change, and of users since theirs.

    As many of the one as of the other, over as many events; a user with a change is a false
    discovery too where the score was higher before it.
    """
    same = zip(steady[::2], spliced, strict=False)
    false = [float(still[: len(of)].max()) for still, of in same]
    false += [float(of[:change].max()) for of, change in zip(spliced, changes, strict=True)]
    true = [float(of[change:].max()) for of, change in zip(spliced, changes, strict=True)]
    return np.array(false), np.array(true)


def _false_discoveries(false: Scores, true: Scores, score: float) -> float:
    found = (false > score).sum(), (true > score).sum()
    return float(found[0] / max(sum(found), 1))


def _alarm_rate(steady: list[Scores], score: float) -> float:
    """Return the share of events at which a stream without a change raises its first alarm."""
    rates = [
        sum(bool((of > score).any()) for of in kind) / sum(len(of) for of in kind)
        for kind in (steady[::2], steady[1::2])
    ]
    return max(rates)


def visits_by_category(
    clicks: Clicks, interests: Interests, groups: dict[str, str] | None = None
) -> Counter[str]:
    """Count in how many visits each category occurs.

    An item without one counts for its group, or stands for itself.
    """
    texts, stands = _stands_for(clicks, interests, groups or {})
    pairs = np.unique(np.stack([visits(clicks, interests), stands]), axis=1)[1]
    found, times = np.unique(pairs, return_counts=True)
    return Counter({texts[text]: n for text, n in zip(found.tolist(), times.tolist(), strict=True)})


def _stands_for(
    clicks: Clicks, interests: Interests, groups: dict[str, str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of categories, groups and lone items, and for each event which it is of."""
    code = clicks.category.codes.astype(np.int64)
    names = [prefix(name, interests.category_depth) for name in clicks.category.values]
    names += [groups.get(item, item) for item in clicks.item.values]
    known, of = np.unique(np.array(names), return_inverse=True)
    lone = len(clicks.category.values) + clicks.item.codes
    return known.tolist(), of[np.where(code == NO_CODE, lone, code)]


def visits(clicks: Clicks, interests: Interests) -> NDArray[np.int64]:
    """Number the visits: a user's session, or events with no longer silence between them."""
    order = np.lexsort((clicks.time, clicks.user.codes))
    user, session = clicks.user.codes[order], clicks.session.codes[order]
    silence = np.diff(clicks.time[order], prepend=0) > interests.session_gap
    starts = np.diff(user, prepend=-1) != 0
    starts |= np.diff(session, prepend=-2) != 0
    starts |= silence & (session == NO_CODE)
    numbers = np.empty(len(clicks), np.int64)
    numbers[order] = np.cumsum(starts)
    return numbers


def histories(clicks: Clicks, least: int, random: np.random.Generator) -> list[Rows]:
    """Return each user's rows where there are enough, the users in random order."""
    order = np.argsort(clicks.user.codes, kind="stable")
    starts = np.flatnonzero(np.diff(clicks.user.codes[order], prepend=-1))
    users = [rows for rows in np.split(order, starts[1:]) if len(rows) >= least]
    return [users[i] for i in random.permutation(len(users))]


def visit_codes(clicks: Clicks, rows: Rows) -> NDArray[np.int64]:
    """Number the visits of one user's events: by session, or by day where there is none."""
    session = clicks.session.codes[rows].astype(np.int64)
    day = clicks.time[rows] // 86_400_000
    codes: NDArray[np.int64] = np.unique(
        np.where(session == NO_CODE, day, -1 - session), return_inverse=True
    )[1]
    return codes


def shuffle_visits(clicks: Clicks, rows: Rows, random: np.random.Generator) -> Rows:
    """Put a user's visits in random order: bursts remain, and changes are gone."""
    visit = visit_codes(clicks, rows)
    rank = random.permutation(visit.max() + 1)
    return rows[np.argsort(rank[visit], kind="stable")]


def splices(clicks: Clicks, users: list[Rows], random: np.random.Generator) -> list[Splice]:
    """Continue one user's shuffled visits with the next one's."""
    made = []
    for one, other in zip(users[::2], users[1::2], strict=False):
        change = int(random.integers(SIDE, min(len(one), MOST_BEFORE) + 1))
        before = shuffle_visits(clicks, one, random)[:change]
        after = shuffle_visits(clicks, other, random)[:MOST_AFTER]
        made.append(Splice(np.concatenate([before, after]), change))
    return made


def scores(clicks: Clicks, streams: list[Rows], settings: Settings, prior: Prior) -> list[Scores]:
    """Return the detector's score after each event of made streams."""
    made = _as_users(clicks, streams)
    edges = np.cumsum([len(rows) for rows in streams])[:-1]
    return list(np.split(Engine(settings, prior=prior, profiles=False).statistics(made), edges))


def alarms(
    clicks: Clicks, streams: list[Rows], settings: Settings, prior: Prior
) -> list[list[int]]:
    """Run the engine over made streams; return at which events of each it raised a new alert."""
    made = _as_users(clicks, streams)
    firsts = np.cumsum([0, *(len(rows) for rows in streams)])
    found: list[list[int]] = [[] for _ in streams]
    for alert in Engine(settings, prior=prior, profiles=False).process(made).alerts:
        if alert.state is AlertState.RAISED:
            stream = int(alert.subject)
            found[stream].append(alert.source.position - int(firsts[stream]))
    return found


def _as_users(clicks: Clicks, streams: list[Rows]) -> Clicks:
    """Let each stream be a user.

    Time runs forward: a second from event to event of a visit, an hour to the next visit.
    """
    rows = np.concatenate(streams)
    lengths = [len(stream) for stream in streams]
    visit = np.concatenate([visit_codes(clicks, stream) for stream in streams])
    new = np.diff(visit, prepend=-1) != 0
    return replace(
        clicks.take(rows),
        position=np.arange(len(rows)),
        time=np.cumsum(np.where(new, HOUR, 1000)),
        user=Column(
            [str(number) for number in range(len(streams))],
            np.repeat(np.arange(len(streams), dtype=np.int32), lengths),
        ),
    )
