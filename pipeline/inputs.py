"""Whether what comes in is still what came in before: a broken producer told from other people.

People who change move between categories. A producer that breaks loses types of events, sends items
that nobody knows or events without a category, falls silent or sends all of it twice.
"""

from __future__ import annotations

import math
from heapq import nlargest, nsmallest

import msgspec
from scipy.special import stdtrit

from pipeline.events import Interest
from pipeline.rollups import FURTHER, SAMPLED_ITEMS, Rollup
from pipeline.volume import Volume

RATE = 0.001
"""How often a signal may pass its threshold in a window without a change."""
SMOOTHING = 0.2
"""Weight of the newest window in what is expected of a signal."""
LEAST_MOVE = 0.1
"""A share has to move by so much, or fall to a tenth, to be a fault."""
LEAST_UNSEEN = 0.5
"""The share of events with items never met has to move by so much: people do take to new ones."""
LEAST_FACTOR = 2.0
"""The volume has to grow or shrink by so much."""
ACCEPTED = 4
"""Windows after which what was a fault is how things are."""
KNOWN_ITEMS = 8192
"""Items remembered: those with the smallest symbols, so that windows are compared on the same."""
MOST_SIGNALS = 1000
"""Signals remembered, those of the largest shares: a producer may make a type of every event."""
VOLUME, UNSEEN, UNCATEGORISED = "volume", "unseen items", "no category"


class Signal(msgspec.Struct, array_like=True):
    """A share of the events: what is expected of it, and how far it strays."""

    level: float
    spread: float
    windows: int


class InputsState(msgspec.Struct, kw_only=True):
    """The signals, the items known, and how long a fault has lasted."""

    windows: int = 0
    signals: dict[str, Signal] = {}
    known: dict[int, int] = {}
    """Of items met, by symbol, the newest window that had them."""
    limit: int = 2**64 - 1
    """The largest symbol up to which every window's sample had all items."""
    faulty: int = 0


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What a window's input differs in, each signal with its share before and after.

    For the volume, the share is of what was expected. `new` tells whether the window before had no
    fault, `blinding` whether nothing can be said of people: events differ, or too few came.
    """

    before: list[Interest]
    after: list[Interest]
    score: float
    threshold: float
    new: bool
    blinding: bool


class Inputs:
    """Watches what share of the events has each type, an item never met, or no category.

    A share is off when it is further from its exponentially smoothed level than Student's bound on
    its spread, and far in absolute terms: real streams stray, and a producer that breaks does so
    thoroughly. Nothing is learnt from a window that is off, until that has lasted.
    """

    def __init__(self, state: InputsState, *, size: int, warm_up: int, least: int) -> None:
        """Set how windows of a size in milliseconds are judged, and after how many of them.

        Args:
            state: What is known so far.
            size: The length of a window.
            warm_up: Windows seen before anything is found.
            least: Events that a window has or should have to be judged.
        """
        self.state = state
        self._size = size
        self._warm_up = warm_up
        self._least = least

    def add(self, rollup: Rollup, volume: Volume) -> Fault | None:
        """Judge a window against those before it, then learn from it.

        Args:
            rollup: The window.
            volume: What is expected of the volume; the window itself not yet in it.
        """
        shares = _shares(rollup, self.state)
        off = self._off(rollup, shares)
        loud = self._volume(rollup, volume)
        if self.state.windows < self._warm_up:
            off, loud = {}, None
        if rollup.cut:
            loud = None
        fault = self._fault(shares, off, loud)
        if off and self.state.faulty < ACCEPTED:
            self.state.faulty += 1
            return fault
        self._meet(rollup)
        large = max(sum(rollup.types.values()), rollup.total) >= self._least
        if large:  # a share of few events, or of none at night, says nothing of the next day
            self._learn(shares, at_once=bool(off))
        if loud or large:
            self.state.faulty = 1 if loud else 0
        return fault

    def _fault(
        self,
        shares: dict[str, float],
        off: dict[str, tuple[float, float]],
        loud: tuple[float, float, float] | None,
    ) -> Fault | None:
        if not off and not loud:
            return None
        known = self.state.signals
        before = [Interest(n, round(known[n].level if n in known else 0.0, 4)) for n in off]
        after = [Interest(name, round(shares.get(name, 0.0), 4)) for name in off]
        passed = list(off.values())
        if loud:
            before.append(Interest(VOLUME, 1.0))
            after.append(Interest(VOLUME, round(loud[2], 4)))
            passed.append(loud[:2])
        score, threshold = max(passed, key=lambda pair: abs(pair[0]) / pair[1])
        return Fault(
            before=before,
            after=after,
            score=round(score, 4),
            threshold=round(threshold, 4),
            new=self.state.faulty == 0,
            blinding=bool(off) or (loud is not None and loud[2] < 1),
        )

    def _off(self, rollup: Rollup, shares: dict[str, float]) -> dict[str, tuple[float, float]]:
        """Return the shares that are off, each with its score and threshold."""
        total, found = sum(rollup.types.values()), {}
        if total < self._least:
            return {}
        for name in sorted(self.state.signals.keys() | shares.keys()):
            signal = self.state.signals.get(name) or Signal(0.0, 0.0, self.state.windows)
            share = shares.get(name, 0.0)
            threshold = -float(stdtrit(max(signal.windows - 1, 1), RATE / 2))
            chance = math.sqrt(max(signal.level * (1 - signal.level), 1 / total) / total)
            score = (share - signal.level) / max(signal.spread, chance)
            vanished = share <= signal.level / 10 and signal.level * total >= self._least
            least = LEAST_UNSEEN if name == UNSEEN else LEAST_MOVE
            far = vanished or abs(share - signal.level) >= least
            fault = share > signal.level or name not in {UNSEEN, UNCATEGORISED}
            if far and fault and abs(score) > threshold:
                found[name] = (score, threshold)
        return found

    def _volume(self, rollup: Rollup, volume: Volume) -> tuple[float, float, float] | None:
        """Return score, threshold and the share of the volume expected, where that is off."""
        ahead = rollup.start // self._size - volume.state.newest
        expected = volume.forecast(ahead)
        surprise = math.log(max(rollup.total, 1)) - expected
        threshold = -float(stdtrit(max(volume.state.windows - 1, 1), RATE / 2))
        score = surprise / max(volume.state.spread, math.exp(-expected / 2))
        judged = max(rollup.total, math.exp(expected)) >= self._least
        if judged and abs(surprise) >= math.log(LEAST_FACTOR) and abs(score) > threshold:
            return score, threshold, rollup.total / math.exp(expected)
        return None

    def _meet(self, rollup: Rollup) -> None:
        """Remember the items of a window."""
        known = self.state.known | dict.fromkeys(rollup.items, rollup.start // self._size)
        if len(rollup.items) >= SAMPLED_ITEMS:
            self.state.limit = min(self.state.limit, max(rollup.items))
        kept = [item for item in nsmallest(KNOWN_ITEMS, known) if item <= self.state.limit]
        self.state.known = {item: known[item] for item in kept}

    def _learn(self, shares: dict[str, float], *, at_once: bool) -> None:
        for name in sorted(self.state.signals.keys() | shares.keys()):
            share = shares.get(name, 0.0)
            signal = self.state.signals.setdefault(name, Signal(share, 0.0, 0))
            signal.windows += 1
            weight = 1.0 if at_once else max(SMOOTHING, 1 / signal.windows)
            moved = share - signal.level
            signal.level += weight * moved
            if not at_once:
                signal.spread += weight * (1.25 * abs(moved) - signal.spread)
        self.state.signals = dict(nlargest(MOST_SIGNALS, self.state.signals.items(), key=_rank))
        self.state.windows += 1


def _rank(named: tuple[str, Signal]) -> tuple[bool, float, str]:
    name, signal = named
    return name in {UNSEEN, UNCATEGORISED}, signal.level, name


def _shares(rollup: Rollup, state: InputsState) -> dict[str, float]:
    """Return the share of each type, of items never met and of events without a category."""
    events = max(sum(rollup.types.values()), 1)
    shares = {f"type {name}": n / events for name, n in rollup.types.items() if name != FURTHER}
    shares[UNCATEGORISED] = rollup.uncategorised / max(rollup.total, 1)
    known = state.known
    limit = max(known) if len(known) == KNOWN_ITEMS else state.limit
    asked = {item: n for item, n in rollup.items.items() if item <= limit}
    if known and asked:
        unseen = sum(n for item, n in asked.items() if item not in known)
        shares[UNSEEN] = unseen / sum(asked.values())
    return shares
