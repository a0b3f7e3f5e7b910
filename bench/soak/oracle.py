"""What should be there, counted from the topic in one plain pass, and what differs from it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise

import msgspec
import numpy as np

from connectors.kafka.erasures import Request
from connectors.kafka.partitions import Stamp
from connectors.kafka.rollup_merge import RollupMerge
from connectors.store import meta_key, pairs
from connectors.wire import decode_clicks, encode_alert
from pipeline.engine import Counts, Engine, Progress
from pipeline.events import DriftAlert
from pipeline.packing import decode
from pipeline.prior import UNIFORM
from pipeline.rollups import Rollup
from pipeline.settings import Settings
from pipeline.trends import Trends

_STEP = 5000
_KEPT = 100_000_000
"""Users: none leaves the memory of the one plain pass."""
_STAMP = meta_key("stamp")

Log = list[tuple[int, bytes | None]]
"""Offsets and values of a partition, in order."""

Content = dict[bytes, bytes]
"""What a store or a changelog bears of a partition, but for names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What one plain pass over the topic gives."""

    records: int
    states: dict[int, Content]
    """By partition."""
    expiries: dict[int, int]
    """By partition: a state whose newest event is before counts as absent, deleted or not."""
    alerts: dict[str, bytes]
    """Content by id, of users and categories."""
    counts: Counts
    dead_letters: set[tuple[int, int]]
    """Partition and offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What workers left behind."""

    disks: dict[int, Content]
    """By partition: the store that came furthest."""
    changelogs: dict[int, Content]
    alerts: list[tuple[str, bytes]]
    """Id and content, as often as it was said."""
    learners: set[str]
    """Ids of those that a learner raised: a training decides on them, which a pass has none of."""
    dead_letters: list[tuple[int, int]]
    not_erased: list[str]
    """Where an erased user is found all the same."""


@dataclass(slots=True)
class Verdict:
    """Everything that is not as it should be."""

    lost_alerts: list[str] = field(default_factory=list)
    unknown_alerts: list[str] = field(default_factory=list)
    two_contents: list[str] = field(default_factory=list)
    wrong_states: list[str] = field(default_factory=list)
    wrong_counts: list[str] = field(default_factory=list)
    lost_dead_letters: list[str] = field(default_factory=list)
    not_erased: list[str] = field(default_factory=list)
    duplicates: int = 0
    """Alerts said again with the same id and content: allowed, and counted."""

    def problems(self) -> dict[str, list[str]]:
        """Return what differs, by kind; empty where all is well."""
        found = {kind.name: getattr(self, kind.name) for kind in fields(self)}
        del found["duplicates"]
        return {kind: told for kind, told in found.items() if told}


def expect(
    logs: dict[int, Log], topic: str, settings: Settings, erased: Sequence[Request] = ()
) -> Expected:
    """Compute it from the click topic by partition; users were erased before their next click."""
    alerts: list[DriftAlert] = []
    rollups: list[Rollup] = []
    states: dict[int, Content] = {}
    expiries: dict[int, int] = {}
    counts = Counts()
    dead: set[tuple[int, int]] = set()
    for partition, log in logs.items():
        engine = Engine(settings, capacity=_KEPT)
        letters = 0
        for rows, gone in _steps(log, partition, erased):
            for user in gone:
                engine.erase(user)
            offsets = np.array([offset for offset, _ in rows], np.int64)
            values = [value for _, value in rows]
            source = f"{topic}/{partition}"
            batch, rejects = decode_clicks(values, offsets, source, settings.source)
            effects = engine.process(batch)
            alerts += effects.alerts
            rollups += effects.rollups
            dead |= {(partition, reject.position) for reject in rejects}
            letters += len(rejects)
        stamp = Stamp(next=log[-1][0] + 1 if log else 0, dead_letters=letters)
        stamped = {"stamp": msgspec.msgpack.encode(stamp)}
        expiries[partition] = engine.expiry
        left = replace(engine.changes(), gone=[])  # who was erased is here only if back
        states[partition] = content(pairs(left, stamped)) if log else {}
        counts = _sum(counts, engine.progress.counts)
    alerts += _category_alerts(rollups, [f"{topic}/{number}" for number in logs], settings)
    return Expected(
        records=sum(len(log) for log in logs.values()),
        states={number: _kept(states[number], expiries[number]) for number in states},
        expiries=expiries,
        alerts={alert.id: encode_alert(alert) for alert in alerts},
        counts=counts,
        dead_letters=dead,
    )


def content(items: Iterable[tuple[bytes, bytes | None]]) -> Content:
    """Return states, stamp and progress, with what comes later in the place of what comes first."""
    known: Content = {}
    for key, value in items:
        if value is None:
            known.pop(key, None)
        elif key.startswith((b"s", b"mprogress", _STAMP)):
            known[key] = value
    return known


def judge(expected: Expected, observed: Observed) -> Verdict:
    """Compare what is there with what should be."""
    verdict = Verdict()
    said: dict[str, set[bytes]] = {}
    for name, alert in observed.alerts:
        said.setdefault(name, set()).add(alert)
    verdict.duplicates = len(observed.alerts) - len(said)
    verdict.lost_alerts = sorted(expected.alerts.keys() - said.keys())
    verdict.unknown_alerts = sorted(said.keys() - expected.alerts.keys() - observed.learners)
    verdict.two_contents = sorted(
        name for name, kinds in said.items() if kinds != {expected.alerts.get(name, min(kinds))}
    )
    for place, contents in (("disk", observed.disks), ("changelog", observed.changelogs)):
        for partition, should in expected.states.items():
            found = _kept(contents.get(partition, {}), expected.expiries[partition])
            verdict.wrong_states += _differences(f"{place} {partition}", should, found)
        verdict.wrong_counts += _miscounts(place, expected, contents)
    verdict.not_erased = observed.not_erased
    missing = expected.dead_letters - set(observed.dead_letters)
    verdict.lost_dead_letters = [f"{partition}@{offset}" for partition, offset in sorted(missing)]
    return verdict


def _steps(log: Log, partition: int, erased: Sequence[Request]) -> Iterator[tuple[Log, list[str]]]:
    """Yield a log piece by piece, and the users that are erased before each."""
    gone: dict[int, list[str]] = {}
    for request in erased:
        at = bisect_left(log, request.ends[partition], key=lambda row: row[0])
        gone.setdefault(at, []).append(request.user)
    starts = sorted({*range(0, len(log), _STEP), *gone})
    for start, stop in pairwise([*starts, len(log)]):
        yield log[start:stop], gone.get(start, [])


def _category_alerts(
    rollups: list[Rollup], sources: list[str], settings: Settings
) -> list[DriftAlert]:
    merge, trends = RollupMerge(), Trends(settings, prior=UNIFORM.version)
    for rollup in rollups:
        merge.add(rollup)
    return [alert for rollup in merge.closed(sources) for alert in trends.add(rollup).alerts]


def _kept(content: Content, expiry: int) -> Content:
    """Leave out the states that are to be deleted: when they are depends on timing."""
    return {
        key: value
        for key, value in content.items()
        if not (key.startswith(b"s") and decode([value])["time"][0] < expiry)
    }


def _differences(place: str, should: Content, found: Content) -> list[str]:
    return [
        f"{place}: {key.decode(errors='replace')} is {_told(found.get(key))}, "
        f"not {_told(should.get(key))}"
        for key in sorted(should.keys() | found.keys())
        if _plain(key, should.get(key)) != _plain(key, found.get(key))
    ]


def _plain(key: bytes, value: bytes | None) -> object:
    """Decode what may be written in different orders, or at different times."""
    if key == b"mprogress" and value is not None:
        return msgspec.msgpack.decode(value, type=Progress)
    if key == _STAMP and value is not None:
        return msgspec.structs.replace(msgspec.msgpack.decode(value, type=Stamp), erased=0)
    return value


def _told(value: bytes | None) -> str:
    return "missing" if value is None else f"{len(value)} bytes {value[:40].hex()}…"


def _miscounts(place: str, expected: Expected, contents: dict[int, Content]) -> list[str]:
    total, letters = Counts(), 0
    for found in contents.values():
        if b"mprogress" in found:
            progress = msgspec.msgpack.decode(found[b"mprogress"], type=Progress)
            total = _sum(total, progress.counts)
            stamp = msgspec.msgpack.decode(found[_STAMP], type=Stamp)
            letters += stamp.dead_letters
    accounted = total.applied + total.late + total.duplicates + letters
    told = []
    if total != expected.counts:
        told.append(f"{place}: {total}, not {expected.counts}")
    if accounted != expected.records:
        told.append(f"{place}: {accounted} records accounted for, of {expected.records}")
    return told


def _sum(one: Counts, other: Counts) -> Counts:
    names = Counter({name: getattr(one, name) for name in Counts.__struct_fields__})
    names.update({name: getattr(other, name) for name in Counts.__struct_fields__})
    return Counts(**names)
