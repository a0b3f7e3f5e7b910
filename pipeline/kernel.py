"""The transition of the interest states: what one event does, compiled.

It all stands in this one file: numba's cache on disk is renewed when a file changes,
and knows nothing of the files that it calls.

Change detection is a Shiryaev-Roberts e-detector (Shin, Ramdas & Rinaldo 2023, "E-detectors",
section 3). For each of the newest `RING` observations it takes the hypothesis that the user's
interests changed there, and the Bayes factor of that change: the probability of what came since
under interests drawn anew, over that under the interests before. The sum of the roots of these
factors is the statistic: the root keeps people, who are burstier than the model, from looking like
a change (Grünwald & van Ommen 2017, "safe Bayes", learning rate 1/2).

Interests are a hierarchical Pitman-Yor process (Teh 2006, "A hierarchical Bayesian language model
based on Pitman-Yor processes"): an item is one of the user's own again, or a new one, and then its
category is one of the user's own again, or one that the population draws. That someone takes up
other items tells more, and sooner, than that the mix of categories shifts.

What a visit can say is bounded: for a category it counts once, and its evidence for a change has a
cap, so that one odd basket is no change.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from pipeline.interest import (
    EVENT_IDS,
    LEFT,
    MARK,
    NO_SLOT,
    OWN_SETS,
    OWN_WAYS,
    RECENT,
    RING,
    SLOTS,
    States,
)
from pipeline.snapshots import SNAPSHOT, TOP

APPLIED, LATE, DUPLICATE, PASSED_OVER = 0, 1, 2, 3
"""What became of an event."""

PARAMETERS = np.dtype(
    [
        ("short_decay", "<f8"),  # per millisecond, to the base 2
        ("long_decay", "<f8"),
        ("lateness", "<i8"),
        ("session_gap", "<i8"),
        ("profile_interval", "<i8"),
        ("threshold", "<f8"),  # of the statistic; infinite: none is raised
        ("minimum", "<i8"),
        ("concentration", "<f8"),  # of the categories' Pitman-Yor process
        ("discount", "<f8"),
        ("item_concentration", "<f8"),  # of the items'
        ("item_discount", "<f8"),
        ("cap", "<f8"),  # the most that a visit's Bayes factor counts
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

SCRATCH = np.dtype(
    [
        ("categories", "<f8", (SLOTS,)),  # counts of the observations scanned; zero in between
        ("items", "u1", (1 << 16,)),
        ("evidence", "<f8", (RING,)),  # log factors, the newest observation first
    ]
)

_compile = numba.njit(cache=True, nogil=True)
_inline = numba.njit(cache=False, nogil=True)

_LARGEST = 1e250
"""Beyond this a product of Bayes factors is surely an alarm, and close to overflow."""
_SMALLEST = 1e-45
"""Where a change is so unlikely by what came since, none is looked for further back: two thirds of
the cost, and on real streams the same alerts."""
_REFERENCE = 20
"""Observations before a change, at least: fewer say nothing about what was before."""
_LOG = 512.0
"""A log in the ring is a whole number of these."""
_RARITY = 16.0
_COARSE = np.exp(np.arange(-128, 128) * 256 / _LOG)
_FINE = np.exp(np.arange(256) / _LOG)
_BITS = np.uint16(6)
_TIMES = np.uint16(63)
"""The bits in which the times of an own item are counted, up to so many."""
FIRST, OPENS = 1, 2
"""An observation is the first of its category in the visit, the first of the visit."""


@_inline
def _bit(s):
    return np.uint64(1) << np.uint64(s % 64)


@_inline
def _hash(item):
    return np.uint16((item >> np.uint64(20)) & np.uint64(0xFFFF))


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
            if state.ring[i].slot == s:
                state.ring[i].slot = NO_SLOT
        for i in range(LEFT):
            if state.left[i] == s:
                state.left[i] = NO_SLOT
        state.visit_slots[s // 64] &= ~_bit(s)
    slot = state.slots[s]
    slot.category = category
    slot.prior = prior
    slot.short = 0
    slot.long = 0
    slot.seen = 0
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
            observed += np.float64(state.slots[s].count)
            prior += state.slots[s].prior
    forgotten = state.counted - observed
    rest = 1.0 - prior
    if forgotten < 1 or rest <= 0:
        return np.uint16(0)
    return np.uint16(round(min(forgotten * state.slots[new].prior / rest, forgotten)))


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
def _place_in_visit(state, s, session, time, gap):
    """Say whether the event is the first of its visit, and of its category there; note that."""
    flags = 0
    if session != state.visit or (session == 0 and time - state.visit_time > gap):
        state.visit = session
        state.visit_slots[:] = 0
        flags = OPENS
    elif state.observed == 0:
        flags = OPENS
    state.visit_time = time
    if not state.visit_slots[s // 64] & _bit(s):
        state.visit_slots[s // 64] |= _bit(s)
        flags |= FIRST
    return flags


@_inline
def _take(state, item):
    """Return how often an item was met since the last change, and count it.

    The item met least makes room for one that finds its set full.
    """
    places = state.own[item % OWN_SETS]
    mark = np.uint16(item // OWN_SETS)
    least = 0
    for way in range(OWN_WAYS):
        times = places[way] & _TIMES
        if times and places[way] >> _BITS == mark:
            if times < _TIMES:
                places[way] += np.uint16(1)
            return np.float64(times)
        if times < places[least] & _TIMES:
            least = way
    places[least] = (mark << _BITS) | np.uint16(1)
    return 0.0


@_inline
def _likelihood(o):
    """Return what `_predict` has written: exp(before / _LOG), by tables."""
    before = np.int64(o.before)
    return _COARSE[(before >> 8) + 128] * _FINE[before & 255]


@_inline
def _odds(o):
    """Return one over the item's share in its category."""
    rarity = np.int64(round(o.rarity * (_LOG / _RARITY)))
    return _COARSE[(rarity >> 8) + 128] * _FINE[rarity & 255]


@_inline
def _predict(state, o, p):
    """Write an observation's probability under what came before into it, and count it.

    The probability is relative to the item's share in its category, which no change of interests
    alters; `after` in `_scan` is its counterpart.
    """
    a, d = p.item_concentration, p.item_discount
    b, e = p.concentration, p.discount
    times = _take(state, np.int64(o.item))
    first = o.flags & FIRST and o.slot != NO_SLOT
    before = (a + d * state.distinct) / (a + state.total)
    if first:
        slot = state.slots[o.slot]
        mass = (b + e * state.kinds) * slot.prior + max(np.float64(slot.count) - e, 0.0)
        before *= mass / (b + state.counted)
        slot.seen += np.uint16(1)
        if times == 0:
            if slot.count == 0:
                state.kinds += 1
            slot.count += np.uint16(1)
            state.counted += 1
    if times == 0:
        state.distinct += 1
    else:
        before += (times - d) / (a + state.total) * _odds(o)
    state.total += 1
    o.before = np.int16(round(_LOG * np.log(before)))


@_inline
def _observe(state, s, item, share, flags, time, p):
    """Append an observation to the detector's memory."""
    if state.observed % MARK == 0:
        state.ring_time[state.observed % RING // MARK] = time
    o = state.ring[state.observed % RING]
    o.item = _hash(item)
    o.slot = s
    o.rarity = np.uint8(min(round(-_RARITY * np.log(share)), 255))
    o.flags = flags
    state.observed += 1
    _predict(state, o, p)


@_inline
def _scan(state, p, scratch, verdict):
    """Weigh a change at each of the newest observations; going back, one at a time.

    The process is exchangeable, so the segment since the change may grow by one observation a
    step: its factor is that observation's probability given the newer ones, over that given the
    ones before.
    """
    a, d = p.item_concentration, p.item_discount
    b, e = p.concentration, p.discount
    reach = min(np.int64(state.total) - _REFERENCE, RING, state.observed)
    visits = 1.0  # the factor of the visits that are scanned to their beginning
    visit = 1.0  # that of the one being scanned
    best = 0.0
    distinct = 0.0
    counted = 0.0
    kinds = 0.0
    verdict.statistic = 0.0
    verdict.length = 0
    k = 0
    while k < reach:
        o = state.ring[(state.observed - 1 - k) % RING]
        ratio = 1.0
        if o.slot != NO_SLOT:
            times = scratch.items[o.item]
            after = (a + d * distinct) / (a + k)
            if o.flags & FIRST:
                count = scratch.categories[o.slot]
                mass = (b + e * kinds) * state.slots[o.slot].prior + max(count - e, 0.0)
                after *= mass / (b + counted)
                if times == 0:
                    if count == 0:
                        kinds += 1
                    scratch.categories[o.slot] = count + 1
                    counted += 1
            if times == 0:
                distinct += 1
            else:
                after += (times - d) / (a + k) * _odds(o)
            scratch.items[o.item] = min(times + 1, _TIMES)
            ratio = after / _likelihood(o)
        scratch.evidence[k] = ratio
        visit *= ratio
        k += 1
        factor = visits * min(visit, p.cap)
        verdict.statistic += np.sqrt(factor)
        if factor > best:
            best = factor
            verdict.length = k
        if not _SMALLEST < factor < _LARGEST:
            break
        if o.flags & OPENS:
            visits = factor
            visit = 1.0
    for i in range(k):
        scratch.items[state.ring[(state.observed - 1 - i) % RING].item] = 0
    scratch.categories[:] = 0.0


@_inline
def _date(state, scratch, verdict):
    """Say when the likeliest change was, and how its evidence is spread."""
    newer = 0.0
    total = 0.0
    for k in range(verdict.length):
        total += np.log(scratch.evidence[k])
        if k < verdict.length // 2:
            newer += np.log(scratch.evidence[k])
    verdict.older_half = 1.0 - newer / total if total > 0 else 1.0
    first = state.observed - verdict.length
    verdict.since = state.ring_time[first % RING // MARK]


@_inline
def _restart(state, length, p):
    """Let the observations since the change be all that the detector knows."""
    for s in range(SLOTS):
        state.slots[s].count = 0
        state.slots[s].seen = 0
    state.own[:] = 0
    state.total = 0
    state.distinct = 0
    state.counted = 0
    state.kinds = 0
    for k in range(length, 0, -1):
        _predict(state, state.ring[(state.observed - k) % RING], p)


@_inline
def _is_duplicate(state, event_id):
    """Say whether the id was met before, and remember it."""
    for i in range(EVENT_IDS):
        if state.event_ids[i] == event_id:
            return True
    state.event_ids[state.ids % EVENT_IDS] = event_id
    state.ids += 1
    return False


@_inline
def _heaviest(state, long, found):
    """Write the heaviest categories with their shares, ties in order of the slots."""
    total = 0.0
    count = 0
    for s in range(np.int64(state.used)):
        slot = state.slots[s]
        weight = np.float64(slot.long if long else slot.short)
        total += weight
        if count == TOP and weight <= found[TOP - 1].share:
            continue
        place = min(count, TOP - 1)
        count = min(count + 1, TOP)
        while place > 0 and found[place - 1].share < weight:
            found[place].category = found[place - 1].category
            found[place].share = found[place - 1].share
            place -= 1
        found[place].category = slot.category
        found[place].share = weight
    for place in range(TOP):
        if place >= count:
            found[place].category = 0
            found[place].share = 0.0
        elif total > 0:
            found[place].share /= total


@_compile
def _take_snapshot(states, row, event, snapshots, place):
    """Write what of a state a profile tells."""
    state = states[row]
    taken = snapshots[place]
    taken.event = event
    taken.position = state.position
    taken.time = state.time
    taken.events = state.events
    _heaviest(state, False, taken.short)
    _heaviest(state, True, taken.long)
    for k in range(RECENT):
        taken.recent_item[k] = state.recent_item[(state.events - 1 - k) % RECENT]


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
    share,
    weight,
    session,
    event_id,
    expiry,
    outcome,
    new,
    parameters,
    scratches,
    verdicts,
    statistics,
    snapshots,
    taken,
):
    """Apply events to their users' states, from `start` until one raises an alarm.

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
        share: The item's share in its category, float32, shape (n,).
        weight: What the event adds to its category, float32, shape (n,). With a weight of 0 it
            only counts and is remembered.
        session: Symbols, uint64, shape (n,); 0 where there is none.
        event_id: Hashes, uint64, shape (n,); 0 where there is none.
        expiry: A state whose newest event is before is forgotten, milliseconds, int64, (n,).
        outcome: Set to what became of an event, uint8, (n,), zeros at first: `APPLIED`.
        new: The state of a user who was never seen, shape (1,).
        parameters: `PARAMETERS`, shape (1,).
        scratches: `SCRATCH`, shape (1,): room to work in, all zeros at first.
        verdicts: `VERDICT`, shape (1,), filled in for an alarm.
        statistics: float64, shape (n,), filled in with the statistic after each event; or empty.
        snapshots: `SNAPSHOT`, shape (n,), filled in where a profile is due; or empty.
        taken: How many are filled in already.

    Returns:
        The event at which it stopped (n at the end), and how many snapshots are filled in. The
        caller reads the state of that event's user, settles the alarm with `settle`, and goes on
        with the next event.
    """
    p = parameters[0]
    scratch = scratches[0]
    verdict = verdicts[0]
    for i in range(start, len(row)):
        state = states[row[i]]
        if position[i] <= state.position:
            outcome[i] = PASSED_OVER
            continue
        if state.time < expiry[i] and state.position >= 0:
            states[row[i]] = new[0]
        state.position = position[i]
        if event_id[i] != 0 and _is_duplicate(state, event_id[i]):
            state.duplicates += 1
            outcome[i] = DUPLICATE
            continue
        if state.events > 0 and time[i] < state.time - p.lateness:
            state.late += 1
            outcome[i] = LATE
            continue
        if state.events == 0:
            state.born = time[i]
            if time[i] < 0:  # the zeros of a new state are the future
                state.time = time[i]
                state.profiled = time[i] - p.profile_interval
        head = state.events % RECENT
        state.recent_item[head] = item[i]
        state.recent_category[head] = category[i]
        state.recent_time[head] = time[i]
        state.events += 1
        alarm = False
        if weight[i] > 0:
            s = _slot_of(state, category[i], prior[i])
            _strengthen(state, s, time[i], weight[i], p)
            flags = _place_in_visit(state, s, session[i], time[i], p.session_gap)
            _observe(state, s, item[i], share[i], flags, time[i], p)
            if state.total >= p.minimum:
                _scan(state, p, scratch, verdict)
                alarm = verdict.statistic >= p.threshold
                if len(statistics):
                    statistics[i] = verdict.statistic
        if p.profile_interval > 0 and time[i] - state.profiled >= p.profile_interval:
            state.profiled = time[i]
            if len(snapshots):
                _take_snapshot(states, row[i], i, snapshots, taken)
                taken += 1
        if alarm:
            _date(state, scratch, verdict)
            return i, taken
    return len(row), taken


@_compile
def settle(states, row, length, parameters):
    """Close an alarm: what came since the change is the user's present from now on.

    Args:
        states: Records of `STATE`, changed in place.
        row: The user's row.
        length: Observations since the change, from the verdict.
        parameters: `PARAMETERS`, shape (1,).
    """
    _restart(states[row], length, parameters[0])


def snapshots(states: States) -> NDArray[np.void]:
    """Return what of n states a profile tells, records of `SNAPSHOT`, (n,)."""
    taken = np.zeros(len(states), SNAPSHOT)
    for row in range(len(states)):
        _take_snapshot(states, row, row, taken, row)
    return taken


def item_hash(symbol: int) -> int:
    """Return what the ring holds for an item."""
    return symbol >> 20 & 0xFFFF


def observed_shares(
    state: np.void, length: int
) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]]:
    """Count the visits with each category before and since a change.

    Returns:
        Category symbols, counts before, counts since; each of shape (used,).
    """
    used = int(state["used"])
    ring = state["ring"][(int(state["observed"]) - 1 - np.arange(length)) % RING]
    told = ring["slot"][(ring["slot"] != NO_SLOT) & (ring["flags"] & FIRST != 0)]
    since = np.bincount(told, minlength=used)[:used].astype(np.float64)
    before = np.maximum(state["slots"]["seen"][:used].astype(np.float64) - since, 0)
    return state["slots"]["category"][:used], before, since
