"""The interest stage on the bus: clicks in, alerts, profiles, rollups and dead letters out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from aiokafka.errors import KafkaError
from faust.types import TP

from connectors.kafka.changelog import Changelog, FencedError
from connectors.kafka.erasures import Erasures
from connectors.kafka.left_behind import drop_damaged, erase_from, left_behind
from connectors.kafka.live_settings import Worker
from connectors.kafka.messages import Message
from connectors.kafka.metrics import Metrics, Pulse, Troubles
from connectors.kafka.partitions import PATIENCE, Partition
from connectors.kafka.publisher import Publisher
from connectors.kafka.records import RecordBatch
from connectors.kafka.restore import open_state, set_aside, state_path
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.standby import Standby
from connectors.kafka.transport import Span
from connectors.prior_file import load_prior
from connectors.store import CorruptStoreError, StoreError
from pipeline.river_drift import OURS
from pipeline.settings import Settings, SettingsError

log = logging.getLogger(__name__)

GRACE_SECONDS = 20.0
"""How long a partition that is to leave may take to finish its batch and flush."""


class InterestStage:
    """The partitions of the click topic that are this worker's at present."""

    def __init__(self, settings: Settings, kafka: Kafka, worker: Worker) -> None:
        if settings.drift.detector != OURS:
            raise SettingsError(
                f"drift.detector = {settings.drift.detector!r}: a worker has {OURS} alone; "
                "River's detectors are for `driftline replay`"
            )
        self._settings = settings
        self._kafka = kafka
        self._worker = worker
        self._prior = load_prior(settings.drift.prior)
        self._publisher = Publisher(kafka)
        self._erasures = Erasures(kafka)
        self._asking = asyncio.Lock()
        self._silence = ""
        self._partitions: dict[TP, Partition] = {}
        self._turns: dict[TP, int] = {}
        self._opening: dict[TP, asyncio.Lock] = {}
        self._durable: dict[TP, int] = {}
        self._cleaned: dict[TP, set[int]] = {}
        """By store left behind, which requests it has no user of any more."""
        self._undamaged = 0
        """The offset of the erasures up to which no damaged store has a user of theirs."""
        self.standby = Standby(kafka, worker.data, quiet=worker.session_timeout / 3000)
        """Copies of the partitions that are not here."""
        self.pulse = Pulse()
        self.further_troubles: Troubles = list
        """Says what stands still beside the partitions."""
        self.metrics = Metrics(lambda: list(self._partitions.values()), copies=self.standby.behind)

    async def begin(self, span: Span) -> int:
        """Open and restore a partition's state where it is not open, and say where to read on.

        Raises:
            StoreError: the store cannot be opened.
            BusError: the state cannot be restored, or belongs to another topic of that name.
        """
        tp = TP(span.topic, span.partition)
        async with self._opening.setdefault(tp, asyncio.Lock()):
            partition = self._partitions.get(tp) or await self._open(tp)
            try:
                async with partition.turn:
                    start = partition.begin(span)
            except BusError:  # also where the span is of before a long sleep, and nobody is told
                self._partitions.pop(tp, None)
                await self._discard(partition)
                self.standby.may_have(tp.partition)
                raise
            self._partitions[tp] = partition
            self._cleaned.pop(tp, None)
            self._undamaged = 0  # to open it may have set a damaged one aside
            self._turns[tp] = span.turn
        return start

    async def handle(self, batch: RecordBatch) -> None:
        """Deal with a batch. A crash anywhere repeats what follows the last flush, no more.

        1. Decode, and 2. apply to the states in memory.
        3. Publish alerts, and wait until the brokers have them for good.

        Now and then, of what changed up to this batch, while the next ones are dealt with:

        4. Write changed states to the changelog, and with them the offset to go on at.
        5. Write the same to the store on the disk.
        6. The source offset may be committed.
        """
        tp = TP(batch.topic, batch.partition)
        partition = self._partitions.get(tp)
        if partition is None or self._turns[tp] != batch.turn:
            return  # fetched before the partition went elsewhere: it will be read again
        await self._in_turn(partition, partial(self._handle, batch))

    async def flush(self) -> None:
        """Flush the partitions for which it is time: where little comes, time alone decides.

        Raises:
            FencedError: another worker has a partition, and yet it is not taken from this one.
        """
        for partition in list(self._partitions.values()):
            self._require_news_of(partition)
            await self._in_turn(partition, self._flush_if_due)

    async def erase(self) -> None:
        """Erase the users that this was asked for, from all that is here.

        A store that was left behind and cannot be opened waits until the next time.

        Raises:
            BusError: no broker answers, or the topic of erasures is not there.
            StoreError: a partition's own store cannot be read, and it goes no further.
        """
        await self._listen()
        for partition in list(self._partitions.values()):
            if not self._erasures.since(partition.stamp.erased):
                continue  # without its turn, which may be held for as long as brokers are away
            await self._in_turn(partition, _erase)
        try:
            await self._clean_left_behind()
        except StoreError as error:
            log.warning("cannot erase now who is to be erased: %s", error)

    async def release(self, revoked: set[TP]) -> None:
        """Flush and close the states of partitions that go elsewhere."""
        await asyncio.gather(*(self._release(tp) for tp in revoked))

    def durable(self, tp: TP) -> int | None:
        """Return the offset that may be committed."""
        partition = self._partitions.get(tp)
        return partition.durable if partition else self._durable.get(tp)

    async def close(self) -> None:
        """Flush and close all states, and disconnect."""
        await self.release(set(self._partitions))
        await self.standby.close()
        await self._publisher.close()
        await self._erasures.close()

    def sickness(self) -> list[str]:
        """Say what only a restart mends; empty where there is nothing."""
        broken = [p for p in self._partitions.values() if p.broken]
        return self.pulse.sickness() + [f"{p.source}: {p.trouble}" for p in broken]

    def troubles(self) -> list[str]:
        """Say what does not go on, and why; empty where all goes on."""
        everywhere = self._partitions.values()
        troubles = [(p.source, p.trouble or p.unwritten) for p in everywhere]
        told = [f"{source}: {trouble}" for source, trouble in troubles if trouble]
        opening = [f"{tp.topic}/{tp.partition}" for tp in self._opening if self._is_opening(tp)]
        told += [f"{source}: its state is being restored" for source in opening]
        told += [self._silence] if self._silence else []
        return self.sickness() + told + self.further_troubles()

    async def _listen(self) -> None:
        """Read who is to be erased; an idle worker learns by it alone that no broker answers."""
        try:
            async with self._asking:
                await self._erasures.refresh()
        except BusError as error:
            self._silence = str(error)
            raise
        self._silence = ""

    async def _clean_left_behind(self) -> None:
        """Erase users from stores of partitions that are elsewhere, which nobody else would do.

        Where such stores are copies, the changelog does it.
        """
        data, topic = Path(self._worker.data), self._kafka.clicks
        if self._erasures.since(self._undamaged):
            await asyncio.to_thread(drop_damaged, data, topic)
            self._undamaged = self._erasures.next
        if self._worker.standby:
            return
        for tp, path in left_behind(data, topic):
            cleaned = self._cleaned.setdefault(tp, set())
            taken_on = self._erasures.taken_on(f"{tp.topic}/{tp.partition}")
            requests = [(at, request) for at, request in taken_on if at not in cleaned]
            if not requests:
                continue
            async with self._opening.setdefault(tp, asyncio.Lock()):
                if tp not in self._partitions:
                    await asyncio.to_thread(erase_from, path, requests)
                    cleaned.update(at for at, _ in requests)

    def _is_opening(self, tp: TP) -> bool:
        return self._opening[tp].locked() and tp not in self._partitions

    def _require_news_of(self, partition: Partition) -> None:
        """Raise where a partition is lost and no assignment has said so for two sessions."""
        patience = 2 * self._worker.session_timeout / 1000
        if partition.lost_at is not None and time.monotonic() > partition.lost_at + patience:
            raise FencedError(partition.trouble)

    async def _publish(self, partition: Partition, messages: list[Message]) -> None:
        """Publish, as soon as the brokers take it; what they have taken before is said again."""
        while True:
            try:
                await self._publisher.publish(messages)
            except BusError as error:
                if partition.leaving:
                    raise
                partition.trouble = partition.wait_for(error)
            else:
                partition.trouble = ""
                return
            await self._publisher.close()
            await asyncio.sleep(PATIENCE)

    @property
    def _seconds(self) -> float:
        return self._worker.flush_interval / 1000

    async def _open(self, tp: TP) -> Partition:
        await self._listen()
        await self.standby.let_go(tp.partition)
        changelog = Changelog(self._kafka, tp.partition)
        path = state_path(self._worker.data, tp.topic, tp.partition)
        try:
            store, followed = await open_state(path, changelog)
        except BaseException:
            await changelog.close()
            raise
        return Partition(
            f"{tp.topic}/{tp.partition}",
            self._settings,
            self._prior,
            store=store,
            changelog=changelog,
            followed=followed,
            erasures=self._erasures,
            capacity=self._worker.hot_users,
        )

    async def _in_turn(
        self, partition: Partition, work: Callable[[Partition], Awaitable[None]]
    ) -> None:
        """Work on a partition when it is its turn, if it is still to be worked on.

        What goes wrong, or has gone wrong with its flush, breaks it: all since the last flush that
        was written is to be read again.
        """
        async with partition.turn:
            if partition.leaving or partition.broken:
                return
            try:
                await partition.written(wait=False)
                await work(partition)
            except FencedError as error:
                _lose(partition, error)
            except CorruptStoreError as error:
                _break(partition, error)
                await self._discard(partition)
                set_aside(partition.store.path, error)
                raise
            except (BusError, StoreError, KafkaError) as error:
                _break(partition, error)
                if not partition.leaving:
                    raise
                log.warning("%s: %s", partition.source, error)
            except BaseException as error:
                _break(partition, error)
                raise

    async def _handle(self, batch: RecordBatch, partition: Partition) -> None:
        await self._publish(partition, await partition.apply(batch))
        await self._flush_if_due(partition)

    async def _flush_if_due(self, partition: Partition) -> None:
        if partition.due(records=self._worker.flush_records, seconds=self._seconds):
            await partition.flush()

    async def _release(self, tp: TP) -> None:
        async with self._opening.setdefault(tp, asyncio.Lock()):
            partition = self._partitions.pop(tp, None)
            if partition is not None:
                self._durable[tp] = partition.durable
                await self._part_with(partition)
                self._durable[tp] = partition.durable
            self.standby.may_have(tp.partition)

    async def _part_with(self, partition: Partition) -> None:
        partition.leaving = True
        try:
            async with asyncio.timeout(GRACE_SECONDS), partition.turn:
                if not partition.broken:
                    await partition.flush()
                    await partition.written()
        except (BusError, StoreError, KafkaError, TimeoutError, FencedError) as error:
            log.warning(
                "%s goes without its newest changes, and is read again from offset %d: %s",
                *(partition.source, partition.durable, error or "it takes too long"),
            )
        await self._discard(partition)

    async def _discard(self, partition: Partition) -> None:
        """Close a partition as it is."""
        try:
            await partition.close()
        except (StoreError, KafkaError) as error:
            log.warning("%s: %s", partition.source, error)


async def _erase(partition: Partition) -> None:
    await partition.written()
    if partition.erase():
        await partition.flush()


def _lose(partition: Partition, error: FencedError) -> None:
    """Do nothing more with a partition that is another worker's; an assignment will say so."""
    _break(partition, error)
    partition.lost_at = time.monotonic()
    log.warning("%s is not touched any more: %s", partition.source, error)


def _break(partition: Partition, error: BaseException) -> None:
    """Let nothing more of a partition become durable."""
    partition.broken = True
    partition.trouble = str(error) or repr(error)
