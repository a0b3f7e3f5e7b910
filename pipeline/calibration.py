"""A prior from history: the one that finds most and keeps the promised false-alarm rate.

The stronger a prior, the fewer false alarms, and the fewer true ones. Where the balance is depends
on how bursty people are and how often they turn to something new, so it is measured, on streams
made of the history itself: a user's visits shuffled hold no change, and every alert on them is
false; one user's shuffled visits continued with another's hold one change, at a known event.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from msgspec.structs import replace as replace_fields
from numpy.typing import NDArray

from pipeline.engine import Engine
from pipeline.events import NO_CODE, Clicks, Column
from pipeline.prior import Prior
from pipeline.settings import Interests, Settings
from pipeline.symbols import prefix

CONCENTRATIONS = tuple(round(5 * 1.25**step, 1) for step in range(30))
"""From 5 observations to 3,200."""
HOUR = 3_600_000
LEAST_USERS = 20
MOST_USERS = 400
MOST_EVENTS = 2000
"""Of a user's history."""
MOST_BEFORE, MOST_AFTER = 400, 200
"""Events of a splice on either side."""

Rows = NDArray[np.intp]


class CalibrationError(ValueError):
    """The history does not hold enough to calibrate on."""


@dataclass(frozen=True, slots=True)
class Splice:
    """A made history: rows of the real events, and at which of them another user takes over."""

    rows: Rows
    change: int


def calibrate(clicks: Clicks, settings: Settings) -> Prior:
    """Estimate the population's shares, and choose how much they weigh.

    Args:
        clicks: The history, in log order.
        settings: Say what a category, a visit and the promised rate is.

    Raises:
        CalibrationError: Too few users have enough events, or no prior keeps the promise.
    """
    random = np.random.default_rng(settings.seed)
    least = 2 * settings.drift.minimum_events
    users = histories(clicks, least, random)[:MOST_USERS]
    if len(users) < LEAST_USERS:
        raise CalibrationError(
            f"{len(users)} users have {least} events or more, and {LEAST_USERS} are needed: "
            "calibrate on a longer history"
        )
    steady = [shuffle_visits(clicks, rows[:MOST_EVENTS], random) for rows in users]
    spliced = splices(clicks, users, random, least=settings.drift.minimum_events)
    counts = visits_by_category(clicks, settings.interests)
    best: tuple[float, Prior] | None = None
    for novelty in (True, False):
        prior = _weakest(clicks, steady, settings, counts, novelty=novelty)
        if prior is not None:
            found = recall(clicks, spliced, settings, prior)
            best = max(best or (found, prior), (found, prior), key=lambda pair: pair[0])
    if best is None:
        raise CalibrationError(
            "even the strongest prior raises more false alarms than one in "
            f"{settings.drift.events_per_false_alarm:,} events: lower "
            "drift.events_per_false_alarm, or give the events broader categories"
        )
    return best[1]


def _weakest(
    clicks: Clicks, steady: list[Rows], settings: Settings, counts: Counter[str], *, novelty: bool
) -> Prior | None:
    """Return the prior of least concentration that keeps the promise: more raises fewer alarms."""
    kept = None
    low, high = 0, len(CONCENTRATIONS)
    while low < high:
        middle = (low + high) // 2
        prior = _estimate(counts, CONCENTRATIONS[middle], novelty=novelty)
        rate = false_alarm_rate(clicks, steady, settings, prior)
        if rate * settings.drift.events_per_false_alarm <= 1:
            kept = replace_fields(prior, false_alarms_per_1000=round(1000 * rate, 4))
            high = middle
        else:
            low = middle + 1
    return kept


def _estimate(counts: Counter[str], concentration: float, *, novelty: bool) -> Prior:
    """Make a prior of counts; half an observation is kept for each and for what was not seen.

    Krichevsky & Trofimov 1981, "The performance of universal encoding".
    """
    total = sum(counts.values()) + 0.5 * (len(counts) + 1)
    return Prior(
        concentration=concentration,
        unseen=0.5 / total,
        novelty=novelty,
        shares={name: (n + 0.5) / total for name, n in sorted(counts.items())},
    )


def visits_by_category(clicks: Clicks, interests: Interests) -> Counter[str]:
    """Count in how many visits each category occurs; an item without one stands for itself."""
    visit = visits(clicks, interests)
    category = clicks.category.codes.astype(np.int64)
    missing = category == NO_CODE
    names = [prefix(name, interests.category_depth) for name in clicks.category.values]
    known, code = np.unique(np.array([*names, ""]), return_inverse=True)
    stands = np.where(missing, len(known) + clicks.item.codes, code[category])
    pairs = np.unique(np.stack([visit, stands]), axis=1)[1]
    found, times = np.unique(pairs, return_counts=True)
    texts = [*known.tolist(), *clicks.item.values]
    counts: Counter[str] = Counter()
    for text, n in zip(found.tolist(), times.tolist(), strict=True):
        counts[texts[text]] += n
    return counts


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


def shuffle_visits(clicks: Clicks, rows: Rows, random: np.random.Generator) -> Rows:
    """Put a user's visits in random order: bursts remain, and changes are gone."""
    session = clicks.session.codes[rows].astype(np.int64)
    day = clicks.time[rows] // 86_400_000
    _, visit = np.unique(np.where(session == NO_CODE, day, -1 - session), return_inverse=True)
    rank = random.permutation(visit.max() + 1)
    return rows[np.argsort(rank[visit], kind="stable")]


def splices(
    clicks: Clicks, users: list[Rows], random: np.random.Generator, *, least: int
) -> list[Splice]:
    """Continue one user's shuffled visits with the next one's."""
    made = []
    for one, other in zip(users[::2], users[1::2], strict=False):
        change = int(random.integers(least, min(len(one), MOST_BEFORE) + 1))
        before = shuffle_visits(clicks, one, random)[:change]
        after = shuffle_visits(clicks, other, random)[:MOST_AFTER]
        made.append(Splice(np.concatenate([before, after]), change))
    return made


def recall(clicks: Clicks, made: list[Splice], settings: Settings, prior: Prior) -> float:
    """Return the share of the splices that an alert follows."""
    found = alarms(clicks, [splice.rows for splice in made], settings, prior)
    caught = [
        any(event >= splice.change for event in events)
        for events, splice in zip(found, made, strict=True)
    ]
    return sum(caught) / len(caught)


def false_alarm_rate(
    clicks: Clicks, streams: list[Rows], settings: Settings, prior: Prior
) -> float:
    """Return the alerts an event that the engine raises on streams without a change."""
    alerts = sum(len(found) for found in alarms(clicks, streams, settings, prior))
    return alerts / sum(len(rows) for rows in streams)


def alarms(
    clicks: Clicks, streams: list[Rows], settings: Settings, prior: Prior
) -> list[list[int]]:
    """Run the engine over made streams; return at which events of each it raised an alert.

    An event of a stream comes an hour after the one before, so that time runs forward.
    """
    lengths = [len(rows) for rows in streams]
    firsts = np.cumsum([0, *lengths[:-1]])
    within = np.arange(sum(lengths)) - np.repeat(firsts, lengths)
    made = replace(
        clicks.take(np.concatenate(streams)),
        position=np.arange(sum(lengths)),
        time=HOUR * within,
        user=Column(
            [str(number) for number in range(len(streams))],
            np.repeat(np.arange(len(streams), dtype=np.int32), lengths),
        ),
    )
    found: list[list[int]] = [[] for _ in streams]
    for alert in Engine(settings, prior=prior, profiles=False).process(made).alerts:
        found[int(alert.subject)].append(int(within[alert.source.position]))
    return found
