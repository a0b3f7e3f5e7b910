"""The transition of the interest states: what one event does, compiled.

All compiled code stands in this one file: numba's cache on disk is renewed when a file changes,
and knows nothing of the files that it calls.

Change detection is a Shiryaev-Roberts e-detector (Shin, Ramdas & Rinaldo 2023, "E-detectors",
section 3). For each of the newest `RING` observations it takes the hypothesis that the user's
interests changed there, and the Bayes factor of that change: the Dirichlet-categorical likelihood
of what came since under interests drawn anew, over that under the interests before. The sum of
these factors is the statistic. If each factor has expectation of at most one without a change,
then a threshold of A gives at most one false alarm in A observations, on average. The root of each
factor is taken: its expectation is smaller still (Jensen), which keeps the bound for real users,
who are burstier than the model (Grünwald & van Ommen 2017, "safe Bayes", learning rate 1/2).

A category counts once a visit: a basket of ten pastries is one observation of an interest.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from pipeline.interest import EVENT_IDS, LAYOUT_VERSION, MARK, NO_SLOT, RECENT, RING, SLOTS

QUIET, ALARM, PROFILE_DUE, BOTH = 0, 1, 2, 3
"""Why `advance` stopped."""

PARAMETERS = np.dtype(
    [
        ("short_decay", "<f8"),  # per millisecond, to the base 2
        ("long_decay", "<f8"),
        ("lateness", "<i8"),
        ("session_gap", "<i8"),
        ("profile_interval", "<i8"),
        ("threshold", "<f8"),
        ("minimum", "<i8"),
        ("concentration", "<f8"),  # of the Dirichlet prior
        ("novelty", "<u1"),  # whether a category new on both sides of a change is evidence
    ]
)

VERDICT = np.dtype(
    [
        ("statistic", "<f8"),  # Shiryaev-Roberts
        ("length", "<i8"),  # observations since the likeliest moment of change
        ("older_half", "<f8"),  # share of the evidence in the older half of these
        ("since", "<i8"),  # the time of the change
    ]
)

_compile = numba.njit(cache=True, nogil=True)
_inline = numba.njit(cache=False, nogil=True)

_LARGEST = 1e250
"""Beyond this a product of Bayes factors is surely an alarm, and close to overflow."""
_NOVEL = 0.5
"""With fewer observations than this before a change, a category was not there."""
_REFERENCE = 8
"""Observations before a change, at least: fewer say nothing about what was before."""


@_inline
def _bit(s):
    return np.uint64(1) << np.uint64(s % 64)


@_inline
def _slot_of(state, category, prior):
    """Find the slot of a category, or make one: a free one, or that of the least weight."""
    for known in range(np.int64(state.used)):
        if state.slots[known].category == category:
            return known
    s = np.int64(state.used)
    if s < SLOTS:
        state.used = s + 1
    else:
        s = np.int64(0)
        for other in range(1, SLOTS):
            if state.slots[other].long < state.slots[s].long:
                s = np.int64(other)
        for i in range(RING):
            if state.ring[i] == s:
                state.ring[i] = NO_SLOT
        state.visit_slots[s // 64] &= ~_bit(s)
    slot = state.slots[s]
    slot.category = category
    slot.prior = prior
    slot.short = 0
    slot.long = 0
    slot.count = _share_of_forgotten(state, s)
    return s


@_inline
def _share_of_forgotten(state, new):
    """Guess how often a category was observed before its slot was lost.

    Observations without a slot are shared out as the population would have them; to take a
    category that comes back for a new one would look like a change.
    """
    observed = 0.0
    prior = 0.0
    for s in range(np.int64(state.used)):
        if s != new:
            observed += state.slots[s].count
            prior += state.slots[s].prior
    forgotten = state.total - observed
    rest = 1.0 - prior
    if forgotten <= 0 or rest <= 0:
        return np.float32(0)
    return np.float32(min(forgotten * state.slots[new].prior / rest, forgotten))


@_inline
def _strengthen(state, s, time, weight, p):
    """Bring all weights to the newest time and add an event's to its category."""
    if time >= state.time:
        if time > state.time:
            short = np.float32(2.0 ** (p.short_decay * (time - state.time)))
            long = np.float32(2.0 ** (p.long_decay * (time - state.time)))
            for i in range(np.int64(state.used)):
                state.slots[i].short *= short
                state.slots[i].long *= long
            state.time = time
        state.slots[s].short += weight
        state.slots[s].long += weight
    else:
        age = state.time - time
        state.slots[s].short += weight * np.float32(2.0 ** (p.short_decay * age))
        state.slots[s].long += weight * np.float32(2.0 ** (p.long_decay * age))


@_inline
def _is_new_in_visit(state, s, session, time, gap):
    """Say whether the category was not yet observed in this visit, and note that it is now."""
    if session != state.visit or (session == 0 and time - state.visit_time > gap):
        state.visit = session
        state.visit_slots[:] = 0
    state.visit_time = time
    if state.visit_slots[s // 64] & _bit(s):
        return False
    state.visit_slots[s // 64] |= _bit(s)
    return True


@_inline
def _observe(state, s, time):
    """Append an observation to the detector's memory."""
    if state.observed % MARK == 0:
        state.ring_time[state.observed % RING // MARK] = time
    state.ring[state.observed % RING] = s
    state.observed += 1
    state.slots[s].count += 1
    state.total += 1


@_inline
def _scan(state, p, suffix, ratios, verdict):
    """Weigh a change at each of the newest observations; going back, one at a time.

    The likelihood of a Dirichlet-categorical model does not depend on the order of what it has
    seen, so the segment since the change grows by one observation a step: its factor is that
    observation's probability given the newer ones, over that given the ones before.
    `suffix` (SLOTS,) is zero on entry and on return; `ratios` (RING,) takes the factors.
    """
    a = p.concentration
    factor = 1.0
    best = 0.0
    verdict.statistic = 0.0
    verdict.length = 0
    reach = min(np.int64(state.total) - _REFERENCE, RING, state.observed)
    k = 0
    while k < reach and factor < _LARGEST:
        s = state.ring[(state.observed - 1 - k) % RING]
        k += 1
        if s == NO_SLOT:
            ratios[k - 1] = 1.0
            continue
        slot = state.slots[s]
        newer = suffix[s]
        older = max(slot.count - newer - 1, 0.0)
        suffix[s] += 1
        if newer == 0 and older < _NOVEL and not p.novelty:
            ratios[k - 1] = 1.0
        else:
            since = (a * slot.prior + newer) / (a + k - 1)
            before = (a * slot.prior + older) / (a + state.total - k)
            ratios[k - 1] = since / before
        factor *= ratios[k - 1]
        verdict.statistic += np.sqrt(factor)
        if factor > best:
            best = factor
            verdict.length = k
    for s in range(SLOTS):
        suffix[s] = 0.0


@_inline
def _date(state, ratios, verdict):
    """Say when the likeliest change was, and how its evidence is spread."""
    newer = 0.0
    total = 0.0
    for k in range(verdict.length):
        total += np.log(ratios[k])
        if k < verdict.length // 2:
            newer += np.log(ratios[k])
    verdict.older_half = 1.0 - newer / total if total > 0 else 1.0
    first = state.observed - verdict.length
    verdict.since = state.ring_time[first % RING // MARK]


@_inline
def _restart(state, length):
    """Let the observations since the change be all that the detector knows."""
    for s in range(SLOTS):
        state.slots[s].count = 0
    state.total = length
    for k in range(length):
        s = state.ring[(state.observed - 1 - k) % RING]
        if s != NO_SLOT:
            state.slots[s].count += 1


@_inline
def _is_duplicate(state, event_id):
    """Say whether the id was met before, and remember it."""
    for i in range(EVENT_IDS):
        if state.event_ids[i] == event_id:
            return True
    state.event_ids[state.ids % EVENT_IDS] = event_id
    state.ids += 1
    return False


@_compile
def advance(
    states,
    start,
    row,
    position,
    time,
    item,
    category,
    prior,
    weight,
    session,
    event_id,
    parameters,
    verdicts,
):
    """Apply events to their users' states, from `start` until one has something to say.

    Args:
        states: Records of `STATE`, changed in place, shape (users,).
        start: The first event to apply.
        row: The user's row in `states`, int64, shape (n,).
        position: Place in the log, int64, shape (n,). An event at or before the position that a
            state bears was applied already, and is passed over.
        time: Milliseconds, int64, shape (n,).
        item: Symbols, uint64, shape (n,).
        category: Symbols, uint64, shape (n,).
        prior: The category's share in the population, float32, shape (n,).
        weight: What the event adds to its category, float32, shape (n,). With a weight of 0 it
            only counts and is remembered.
        session: Symbols, uint64, shape (n,); 0 where there is none.
        event_id: Hashes, uint64, shape (n,); 0 where there is none.
        parameters: `PARAMETERS`, shape (1,).
        verdicts: `VERDICT`, shape (1,), filled in for an alarm.

    Returns:
        The event at which it stopped (n at the end), and why. The caller reads the state of that
        event's user, settles an alarm with `settle`, and goes on with the next event.
    """
    p = parameters[0]
    verdict = verdicts[0]
    suffix = np.zeros(SLOTS)
    ratios = np.ones(RING)
    for i in range(start, len(row)):
        state = states[row[i]]
        if position[i] <= state.position:
            continue
        state.position = position[i]
        if event_id[i] != 0 and _is_duplicate(state, event_id[i]):
            state.duplicates += 1
            continue
        if time[i] < state.time - p.lateness:
            state.late += 1
            continue
        state.layout = LAYOUT_VERSION
        head = state.events % RECENT
        state.recent_item[head] = item[i]
        state.recent_category[head] = category[i]
        state.recent_time[head] = time[i]
        state.events += 1
        alarm = False
        if weight[i] > 0:
            s = _slot_of(state, category[i], prior[i])
            _strengthen(state, s, time[i], weight[i], p)
            if _is_new_in_visit(state, s, session[i], time[i], p.session_gap):
                _observe(state, s, time[i])
                if state.total >= p.minimum:
                    _scan(state, p, suffix, ratios, verdict)
                    alarm = verdict.statistic >= p.threshold
        due = p.profile_interval > 0 and time[i] - state.profiled >= p.profile_interval
        if due:
            state.profiled = time[i]
        if alarm:
            _date(state, ratios, verdict)
        if alarm or due:
            return i, (BOTH if alarm and due else ALARM if alarm else PROFILE_DUE)
    return len(row), QUIET


@_compile
def settle(states, row, length):
    """Close an alarm: what came since the change is the user's present from now on.

    Args:
        states: Records of `STATE`, changed in place.
        row: The user's row.
        length: Observations since the change, from the verdict.
    """
    _restart(states[row], length)


def observed_shares(
    state: np.void, length: int
) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]]:
    """Count the detector's observations before and since a change.

    Returns:
        Category symbols, counts before, counts since; each of shape (used,).
    """
    used = int(state["used"])
    ring = state["ring"][(int(state["observed"]) - 1 - np.arange(length)) % RING]
    since = np.bincount(ring[ring != NO_SLOT], minlength=used)[:used].astype(np.float64)
    before = np.maximum(state["slots"]["count"][:used].astype(np.float64) - since, 0)
    return state["slots"]["category"][:used], before, since
