"""Category trends on the bus: every partition's rollups in, alerts and forecasts out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from connectors.kafka.consumer import Consumer
from connectors.kafka.messages import Message, alert_message, forecast_message
from connectors.kafka.partitions import PATIENCE, Stamp, first_offset
from connectors.kafka.publisher import Publisher
from connectors.kafka.records import RecordBatch
from connectors.kafka.restore import opened, set_aside, state_path
from connectors.kafka.rollup_merge import MergeState, RollupMerge
from connectors.kafka.security import client_config
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.topics import ROLLUPS
from connectors.kafka.transport import Span
from connectors.prior_file import load_prior
from connectors.store import CorruptStoreError, Store, StoreError, unpack
from connectors.wire import WireError, decode_rollup
from pipeline.engine import Changes
from pipeline.settings import Settings
from pipeline.trends import Trends, TrendsState

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class _LeavingError(Exception):
    """Something cannot be done now, and it is somebody else's from now on."""


class TrendProgress(msgspec.Struct, kw_only=True):
    """All that the stage knows, and the settings that it is bound to; durable in one piece."""

    window: int = 0
    horizons: int = 0
    stamp: Stamp = msgspec.field(default_factory=Stamp)
    merge: MergeState = msgspec.field(default_factory=MergeState)
    trends: TrendsState = msgspec.field(default_factory=TrendsState)


class TrendStage:
    """Merges rollups and judges windows. One worker does so for all: the topic has one partition.

    A window is judged when all partitions have reported it or a later one. A partition that has
    been read to its end is not waited for when another is far ahead in event time; one that is
    merely slow is, so that the outcome does not depend on which worker is faster.
    """

    def __init__(self, settings: Settings, kafka: Kafka, data: Path) -> None:
        self._settings = settings
        self._kafka = kafka
        self._data = data
        self._prior = load_prior(settings.drift.prior).version
        self._publisher = Publisher(kafka)
        self._store: Store | None = None
        self._published = 0
        self._turn = 0
        self._busy = asyncio.Lock()
        self._leaving = False
        self._trouble = ""
        self._durable: int | None = None

    @property
    def here(self) -> bool:
        """Whether this worker is the one that does it."""
        return self._store is not None

    def troubles(self) -> list[str]:
        """Say what does not go on, and why; empty where all goes on."""
        return [f"{ROLLUPS}: {self._trouble}"] if self._trouble else []

    async def begin(self, span: Span) -> int:
        """Open the state where it is not open, and say where to read on."""
        async with self._busy:
            self._leaving = False
            self._turn = span.turn
            return self._begin(span)

    def _begin(self, span: Span) -> int:
        if self._store is None:
            path = state_path(str(self._data), span.topic, span.partition)
            self._store, self._progress = self._open(path)
            self._merge = RollupMerge(self._progress.merge)
            self._trends = Trends(self._settings, self._progress.trends, self._prior)
        self._published = span.committed
        return first_offset(span, self._progress.stamp.next, self._store.path)

    def _open(self, path: Path) -> tuple[Store, TrendProgress]:
        """Open what is known, or begin anew where that is damaged or of other settings."""
        trends = self._settings.trends
        new = TrendProgress(window=int(trends.window), horizons=trends.horizons)
        store = opened(path)
        try:
            kept = store.progress()
            progress = unpack(kept, TrendProgress, str(path)) if kept else new
        except CorruptStoreError as error:
            return _reopened(store, error), new
        except StoreError:
            store.close()
            raise
        if (progress.window, progress.horizons) != (new.window, new.horizons):
            log.warning(
                "%s is of other settings (trends.window, trends.horizons): trends begin anew, with "
                "the windows of %s that have the new length",
                *(path, ROLLUPS),
            )
            progress = new
        return store, progress

    async def handle(self, batch: RecordBatch) -> None:
        """Deal with a batch: apply, publish, make durable; its offset may then be committed.

        Waits as long as the brokers or the disk take nothing, unless the partition is to leave:
        then the batch is left as it is, for who has the partition next.
        """
        async with self._busy:
            if self._store is not None and batch.turn == self._turn:
                with suppress(_LeavingError):
                    await self._handle(batch)
                self._trouble = ""

    async def _handle(self, batch: RecordBatch) -> None:
        messages: list[Message] = []
        sources = await self._patiently(self._sources)
        records = batch.records
        for offset, value in zip(records.offsets.tolist(), records.values, strict=True):
            if offset >= self._progress.stamp.next:
                told = self._apply(offset, value, sources)
                messages += told if offset >= self._published else []
        await self._patiently(lambda: self._publisher.publish(messages))
        self._progress.stamp.next = max(self._progress.stamp.next, batch.end)
        await self._patiently(self._commit)

    async def look_again(self) -> None:
        """Judge the windows that wait for a partition far behind, if that has fallen silent.

        To be called now and then: it may be read to its end after the last rollup has come.
        """
        async with self._busy:
            if self._store is not None and self._merge.overdue():
                with suppress(_LeavingError):
                    await self._judge_overdue()
                self._trouble = ""

    async def _judge_overdue(self) -> None:
        sources = await self._patiently(self._sources)
        silent = await self._patiently(lambda: self._silent(sources))
        messages = self._judge(sources, silent)
        await self._patiently(lambda: self._publisher.publish(messages))
        await self._patiently(self._commit)

    async def release(self, revoked: set[TP]) -> None:
        """Close the state where its partition goes elsewhere."""
        if any(tp.topic == self._kafka.topic_prefix + ROLLUPS for tp in revoked):
            await self._release()

    def durable(self, _: TP) -> int | None:
        """Return the offset that may be committed."""
        return self._durable

    async def close(self) -> None:
        """Close the state, and disconnect."""
        await self._release()
        await self._publisher.close()

    async def _patiently(self, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do something that can be done again, as soon as brokers and disk let it be done."""
        while True:
            try:
                return await attempt()
            except (BusError, KafkaError, StoreError) as error:
                if self._leaving:
                    raise _LeavingError from error
                silent = "no answer from the brokers: " if isinstance(error, KafkaError) else ""
                self._trouble = f"{silent}{error}"
                log.error("%s stands still until this is mended: %s", ROLLUPS, self._trouble)  # noqa: TRY400
            await self._publisher.close()
            await asyncio.sleep(PATIENCE)

    async def _release(self) -> None:
        self._leaving = True
        async with self._busy:
            if self._store:
                self._store.close()
                self._store = None

    def _apply(self, offset: int, value: bytes | None, sources: Collection[str]) -> list[Message]:
        try:
            rollup = decode_rollup(value or b"")
        except WireError as error:
            log.error("%s, offset %d: %s; passed over", ROLLUPS, offset, error)  # noqa: TRY400
            return []
        window = self._progress.window
        if rollup.end - rollup.start != window or rollup.start % window:
            return []  # counted under other settings
        self._merge.add(rollup)
        return self._judge(sources)

    async def _sources(self) -> dict[str, TopicPartition]:
        """Return the click topic's partitions by the names that rollups give them."""
        topic = self._kafka.clicks
        partitions = await self._publisher.partitions(topic.removeprefix(self._kafka.topic_prefix))
        return {f"{topic}/{number}": TopicPartition(topic, number) for number in partitions}

    async def _silent(self, sources: dict[str, TopicPartition]) -> set[str]:
        """Return the sources read to their end all of whose rollups were merged."""
        rollups = TopicPartition(self._kafka.topic_prefix + ROLLUPS, 0)
        config = client_config(self._kafka) | {"enable_auto_commit": False}
        config |= {"isolation_level": "read_committed", "auto_offset_reset": "earliest"}
        async with Consumer(group_id=self._kafka.group, **config) as consumer:
            ends = await consumer.end_offsets(list(sources.values()))
            read = {name: await consumer.committed(tp) or 0 for name, tp in sources.items()}
            # Rollups are on the bus before the clicks behind them are committed as read.
            if (await consumer.end_offsets([rollups]))[rollups] > self._progress.stamp.next:
                return set()
            at_end = {
                name: await consumer.is_at_end(tp, read[name], ends[tp])
                for name, tp in sources.items()
            }
        return {name for name, silent in at_end.items() if silent}

    def _judge(self, sources: Collection[str], silent: Collection[str] = ()) -> list[Message]:
        messages = []
        for rollup in self._merge.closed(sources, silent):
            outlook = self._trends.add(rollup)
            messages += [alert_message(alert) for alert in outlook.alerts]
            messages += [forecast_message(f, rollup.source) for f in outlook.forecasts]
        return messages

    async def _commit(self) -> None:
        if self._store is None:
            return
        progress = msgspec.msgpack.encode(self._progress)
        try:
            self._store.commit(Changes(states=[], names={}, progress=progress), {})
        except StoreError as error:
            self._store = await asyncio.to_thread(_reopened, self._store, error)
            raise
        self._durable = self._progress.stamp.next


def _reopened(store: Store, error: StoreError) -> Store:
    """Open a store anew, an empty one in its place where it is damaged.

    After a write that failed RocksDB may refuse all others.
    """
    with suppress(StoreError):
        store.close()
    if isinstance(error, CorruptStoreError):
        set_aside(store.path, error)
    return opened(store.path)
