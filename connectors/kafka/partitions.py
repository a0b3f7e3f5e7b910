"""What a worker holds of each partition: an engine, the store of its states, and its changelog.

The state bears the offset at which it goes on, so it alone says where to read: the group's
committed offsets are followed by monitors, and tell what was published before.

States are written behind, once a flush, however often they changed. A crash takes them back to the
last flush; the events since are read again, and give the same states and the same alerts.

A flush takes what has changed between two batches, and writes it while further batches are applied.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from connectors.kafka.changelog import Changelog, FencedError
from connectors.kafka.decoding import decode_records
from connectors.kafka.erasures import Erasures, Receipt, Request, encode
from connectors.kafka.messages import (
    Message,
    alert_message,
    dead_letter,
    gone_message,
    late_event,
    profile_messages,
    rollup_message,
)
from connectors.kafka.records import RecordBatch
from connectors.kafka.rekey import Origins
from connectors.kafka.restore import LOG, Followed
from connectors.kafka.settings import BusError
from connectors.kafka.transport import Span
from connectors.store import (
    CorruptStoreError,
    Pair,
    Store,
    StoreError,
    WriteBehind,
    local_key,
    pairs,
    unpack,
)
from connectors.validate import Reject
from pipeline.engine import Effects, Engine
from pipeline.events import AlertKind
from pipeline.prior import Prior
from pipeline.settings import Settings
from pipeline.snapshots import NewestSnapshots, Snapshots

log = logging.getLogger(__name__)

PROFILES_AT_ONCE = 256
"""Profiles put into records before the event loop gets its turn."""
CHUNK = 2048
"""Records dealt with before the event loop gets its turn."""
LOOKED_AT = 1024
"""Users that a flush looks at to see whether they are to be forgotten."""
PATIENCE = 1.0
"""Seconds between two attempts to write what the brokers or the disk did not take."""
_STAMP = "stamp"
_LOOKED = "looked"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flush:
    """What a flush makes durable: all that changed up to an offset."""

    next: int
    items: list[Pair]
    profiles: Snapshots
    messages: list[Message]
    looked: str
    """The user up to whom the store was looked through for those to be forgotten."""


class Stamp(msgspec.Struct, kw_only=True):
    """How far a partition has come; durable together with the states."""

    next: int = 0
    """The offset to go on at."""
    dead_letters: int = 0
    origins: Origins = msgspec.field(default_factory=Origins)
    erased: int = 0
    """The offset of the erasures at which to go on."""
    passed_over: int = 0
    """Clicks that came before their user was to be erased."""


def stamp_of(store: Store) -> Stamp:
    """Return how far the partition of a store has come.

    Raises:
        StoreError: the store cannot be read, or another version wrote it.
    """
    return unpack(store.get(_STAMP), Stamp, str(store.path))


def first_offset(span: Span, stamped: int, store: Path) -> int:
    """Return where to read on, for a state that has come to the offset `stamped`.

    Raises:
        BusError: the state has seen records that the topic does not have.
    """
    name = f"{span.topic}/{span.partition}"
    if stamped > span.end:
        raise BusError(
            f"{store} has read {name} up to offset {stamped}, but that ends at {span.end}: the "
            "topic was made anew, or has lost records. Delete that directory to begin again, or "
            "name another one (worker.data)"
        )
    if stamped < span.earliest:
        log.error(
            "%s: offsets %d to %d are gone, deleted before they were read here: going on at %d; "
            "longer retention of the topic prevents it",
            *(name, stamped, span.earliest - 1, span.earliest),
        )
    if stamped < span.committed:
        log.warning("%s: rebuilding the state from offset %d to %d", name, stamped, span.committed)
    return max(stamped, span.earliest)


class Partition:
    """One partition of the click topic.

    What lies before `published`, the committed offset, was published before that was committed:
    where the state is rebuilt from there, nothing is said twice.

    Whoever calls `apply`, `erase`, `flush` or `written` holds `turn`: a flush takes what changed up
    to the end of a batch.
    """

    def __init__(
        self,
        source: str,
        settings: Settings,
        prior: Prior,
        *,
        store: Store,
        changelog: Changelog,
        followed: Followed,
        erasures: Erasures,
        capacity: int,
    ) -> None:
        """Go on with what `restore.open_state` opened; `close` closes it."""
        self.source = source
        self._states = WriteBehind(store)
        self.turn = asyncio.Lock()
        self.leaving = False
        """Set where the partition is to go elsewhere: nothing more is waited for."""
        self.broken = False
        """Set where what is in memory must not become durable."""
        self.lost_at: float | None = None
        """When it turned out that another worker has the partition, by the monotonic clock."""
        self.trouble = ""
        """Why nothing is published, or nothing goes on for good."""
        self.unwritten = ""
        """Why a flush does not come to its end."""
        self.stamp = stamp_of(store)
        self.durable = self.stamp.next
        """The offset that the newest flush written has come to."""
        self.engine = Engine(
            settings,
            load=self._states.load,
            name=self._states.name,
            prior=prior,
            progress=store.progress(),
            capacity=capacity,
        )
        self.published = 0
        self.lag = 0
        self.alerts = {AlertKind.USER_JUMP: 0, AlertKind.USER_MIGRATION: 0}
        self._settings = settings
        self._changelog = changelog
        self._followed = followed
        self._erasures = erasures
        self._taken: list[Request] = []
        self._profiles = NewestSnapshots()
        self._begun = self.durable
        """The offset that the newest flush, written or not, has come to."""
        self._flushed = time.monotonic()
        self._writing: asyncio.Task[None] | None = None
        self._readable = asyncio.Lock()
        """Held while the store cannot be read."""

    @property
    def store(self) -> Store:
        """Where the states are durable on this disk."""
        return self._states.store

    def begin(self, span: Span) -> int:
        """Return the offset to read on at."""
        self.published = span.committed
        return first_offset(span, self.stamp.next, self.store.path)

    def due(self, *, records: int, seconds: float) -> bool:
        """Tell whether it is time for a flush: so many records read, or seconds gone, since one.

        While one is being written, time alone is no reason to begin the next, and to wait for it.
        """
        unflushed = self.stamp.next - self._begun
        idle = self._writing is None or self._writing.done()
        return unflushed > 0 and (
            unflushed >= records
            or self.engine.crowded
            or (idle and time.monotonic() - self._flushed >= seconds)
        )

    async def apply(self, batch: RecordBatch) -> list[Message]:
        """Decode a batch, apply it to the states, and return what is to be published."""
        offsets = batch.records.offsets
        self._tell_gap(int(offsets[0]))
        messages: list[Message] = []
        first = int(np.searchsorted(offsets, self.stamp.next))
        for start in range(first, len(batch), CHUNK):
            records = batch.records.slice(start, start + CHUNK)
            # 1. Decode.
            clicks, rejects = decode_records(
                self.stamp.origins.fresh(batch.topic, records), self.source, self._settings.source
            )
            counting = self._erasures.counting(clicks, batch.partition)
            self.stamp.passed_over += len(clicks) - len(counting)
            # 2. Apply.
            async with self._readable:
                effects = self.engine.process(counting)
            messages += self._dead_letters(rejects, batch)
            messages += self._late(effects.late, batch)
            messages += self._messages(effects)
            await asyncio.sleep(0)
        self.stamp.next = max(self.stamp.next, batch.end)
        self.lag = batch.lag
        return messages

    async def flush(self) -> None:
        """Begin to make durable what was applied; its alerts must have been published.

        The flush before it is waited for, as by `written`.
        """
        await self.written()
        if self.stamp.next == self._begun and not self._taken:
            return
        flush = await self._take()
        self._begun = flush.next
        self._states.on_its_way = dict(flush.items)
        self._writing = asyncio.create_task(self._write(flush))

    async def written(self, *, wait: bool = True) -> None:
        """Wait until the flush that was begun is durable, or only see whether it has failed.

        It waits as long as the brokers or the disk take nothing, unless the partition is to leave.

        Raises:
            FencedError: another worker has the partition now.
            BusError: the partition is to leave, and the brokers take nothing; or it was closed.
            StoreError: the same of the disk; or it is damaged.
        """
        if self._writing and (wait or self._writing.done()):
            await asyncio.wait([self._writing])
            writing, self._writing = self._writing, None
            if writing.cancelled():
                raise BusError(f"a flush of {self.source} was broken off")
            writing.result()

    async def _take(self) -> _Flush:
        """Take what has changed since the last flush."""
        stored = await self._some_stored()
        changes = self.engine.changes(stored)
        stamp = msgspec.msgpack.encode(self.stamp)
        receipts = [
            encode(Receipt(user=request.user, asked=request.asked, by=self.source))
            for request in self._taken
        ]
        profiles, self._profiles, self._taken = self._profiles.all(), NewestSnapshots(), []
        return _Flush(
            next=self.stamp.next,
            items=pairs(changes, {LOG: self._followed.log.encode(), _STAMP: stamp}),
            profiles=profiles,
            messages=[gone_message(user) for user in changes.gone] + receipts,
            looked=stored[-1][0] if len(stored) == LOOKED_AT else "",
        )

    async def _write(self, flush: _Flush) -> None:
        messages = await self._profile_messages(flush.profiles) + flush.messages
        # 4. The changelog, and with it profiles: both or none.
        end = await self._replicate(flush.items, messages)
        # 5. The store on this disk.
        followed = Followed.now(self._followed.log, end)
        looked = local_key(_LOOKED), flush.looked.encode()
        await self._keep([*flush.items, followed.pair(), looked])
        # 6. From now on the source offset may be committed.
        self.unwritten = ""
        self._followed = followed
        self._states.on_its_way = {}
        self.durable = flush.next
        self._flushed = time.monotonic()

    def erase(self) -> bool:
        """Take on what was asked for; say whether there is anything, which a flush makes durable.

        What comes after that flush is told of a user who is new, so it has to come at once.
        """
        self._taken = [request for _, request in self._erasures.since(self.stamp.erased)]
        for request in self._taken:
            self.engine.erase(request.user)
            self._profiles.forget(request.user)
        self.stamp.erased = self._erasures.next
        return bool(self._taken)

    async def _some_stored(self) -> list[tuple[str, bytes]]:
        """Return the next of the store's users, in turn, to see who is to be forgotten."""
        if not self.engine.forgetful:
            return []
        looked = (self.store.local(_LOOKED) or b"").decode()
        return await asyncio.to_thread(self.store.after, looked, LOOKED_AT)

    def wait_for(self, error: Exception) -> str:
        """Say that nothing goes on before the cause of an error is gone; return what it is."""
        log.error("%s stands still until this is mended: %s", self.source, error)
        return str(error)

    async def _profile_messages(self, taken: Snapshots) -> list[Message]:
        """Put profiles into records, and let batches have their turn meanwhile."""
        messages: list[Message] = []
        for some in taken.parts(PROFILES_AT_ONCE):
            messages += profile_messages(some, self.engine.names, self.source)
            await asyncio.sleep(0)
        return messages

    async def close(self) -> None:
        """Release store and changelog; a flush that is not yet durable is broken off."""
        if self._writing:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        try:
            await self._changelog.close()
        finally:
            self.store.close()

    async def _replicate(self, items: list[Pair], messages: list[Message]) -> int:
        """Write a flush to the changelog, once, whatever the brokers do meanwhile."""
        while True:
            try:
                return await self._changelog.write(items, messages)
            except FencedError:
                raise
            except BusError as error:
                if self.leaving:
                    raise
                self.unwritten = self.wait_for(error)
            await asyncio.sleep(PATIENCE)
            try:
                end = await self._fate(items)
            except FencedError:
                raise
            except BusError as error:
                log.warning("%s", error)
            else:
                if end is not None:
                    return end

    async def _fate(self, items: list[Pair]) -> int | None:
        """Claim the changelog anew; return where the flush ends in it, None where it is not there.

        Raises:
            FencedError: somebody else has written meanwhile.
        """
        await self._changelog.claim()
        key, stamp = items[-1]
        written: list[bytes | None] = []
        position = self._followed.next
        async for position, records in self._changelog.read(self._followed.next):  # noqa: B007
            written += [record.value for record in records if record.key == key]
        if not written:
            return None
        if written != [stamp]:
            raise FencedError(f"another worker has written the states of {self.source} meanwhile")
        return position

    async def _keep(self, items: list[Pair]) -> None:
        """Write a flush to the store, as soon as the disk takes it."""
        if await self._kept(items):
            return
        async with self._readable:
            while not await self._kept(items):
                await asyncio.sleep(PATIENCE)
                try:
                    self._states.store = await asyncio.to_thread(reopened, self.store)
                except CorruptStoreError:
                    raise
                except StoreError as error:
                    log.error("%s", error)  # noqa: TRY400

    async def _kept(self, items: list[Pair]) -> bool:
        try:
            await _to_its_end(asyncio.to_thread(self.store.write, items))
        except CorruptStoreError:
            raise
        except StoreError as error:
            if self.leaving:
                raise
            self.unwritten = self.wait_for(error)
            return False
        return True

    def _messages(self, effects: Effects) -> list[Message]:
        """Put effects into records. Profiles wait for the flush: of a user's, the newest counts."""
        profiles = effects.profiles
        self._profiles.put(profiles.where(profiles.taken["position"] >= self.published))
        alerts = [alert for alert in effects.alerts if alert.source.position >= self.published]
        for alert in alerts:
            self.alerts[alert.kind] += 1
        return [
            *(alert_message(alert) for alert in alerts),
            *(
                rollup_message(rollup)
                for rollup in effects.rollups
                if rollup.position >= self.published
            ),
        ]

    def _dead_letters(self, rejects: list[Reject], batch: RecordBatch) -> list[Message]:
        self.stamp.dead_letters += len(rejects)
        rows = np.searchsorted(batch.records.offsets, [reject.position for reject in rejects])
        return [
            dead_letter(reject, batch, row)
            for reject, row in zip(rejects, rows.tolist(), strict=True)
            if reject.position >= self.published
        ]

    def _late(self, late: list[int], batch: RecordBatch) -> list[Message]:
        rows = np.searchsorted(batch.records.offsets, late).tolist()
        return [
            late_event(batch, row)
            for row, position in zip(rows, late, strict=True)
            if position >= self.published
        ]

    def _tell_gap(self, first: int) -> None:
        missing = first - self.stamp.next
        if missing > 1:  # a single one may be the mark at the end of a transaction
            log.error(
                "%s: %d offsets before %d do not come: deleted by retention, or taken by "
                "transactions or compaction",
                *(self.source, missing, first),
            )


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await work in a thread; where this is cancelled, no sooner than it has ended.

    A store that is being written cannot be closed.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def reopened(store: Store) -> Store:
    """Open a store anew: after a write that failed RocksDB may refuse all others."""
    with suppress(StoreError):
        store.close()
    return Store(store.path)
