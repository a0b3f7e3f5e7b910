"""A transport for Faust that hands over record batches.

Stock Faust creates several tasks for every record, which caps it at some 4,000 records a second.
Here a topic made with `batch_topic` delivers, per fetch and partition, ONE message whose value is
a `RecordBatch`: Faust's agents, rebalancing and heartbeats at the speed of the client beneath.
Other topics of the same app behave as ever, but for one thing: an agent that fails stops the
worker, where Faust would skip what it failed on.

Offsets are committed by the end of a batch. Per partition, batches are handed over and must be
acknowledged in order, so an agent has concurrency 1; scale by partitions and workers. `batch_agent`
makes such an agent.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, cast

import faust
from faust.transport.drivers import TRANSPORTS, aiokafka
from faust.types import TP, ConsumerMessage

from connectors.kafka.fetching import fetch_by_block
from connectors.kafka.log_format import unpacked
from connectors.kafka.records import RecordBatch, Records
from connectors.kafka.security import SCHEME, faust_config
from connectors.kafka.settings import Kafka

log = logging.getLogger(__name__)

Handler = Callable[["RecordBatch"], Awaitable[None]]


class Keeper(Protocol):
    """Keeps states by partition: it knows better than the bus how far a partition has come."""

    async def begin(self, span: Span) -> int:
        """Make a partition just assigned ready, and return the offset to read it from."""

    async def release(self, revoked: set[TP]) -> None:
        """Let go of partitions that go elsewhere: what was read of them is durable, or undone."""

    def durable(self, tp: TP) -> int | None:
        """Return the offset that may be committed: what lies before it is in the state for good."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a partition holds, earliest <= offset < end, and how far the group has come in it."""

    topic: str
    partition: int
    earliest: int
    end: int
    committed: int
    """The offset that the group goes on at; 0 where it never committed one."""
    turn: int = 0
    """Counts this worker's assignments: batches of an earlier one may still be on their way."""


class BatchSchema(faust.Schema[bytes, RecordBatch]):
    """Passes bytes and batches through untouched, and marks a topic as one of batches.

    Faust would throw a decoding error into the stream and lose the record, so nothing is decoded.
    """

    keeper: Keeper | None = None

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        """Return the function that makes an event of a message."""

        async def decode(message: Any, **_: Any) -> Any:
            return app.create_event(message.key, message.value, message.headers, message)

        return decode


STOP_SECONDS = 40.0
"""How long stopping may take: a batch, a flush, the end of a training process."""
CRASH_SECONDS = 20.0
"""The same after a failure: what it cuts off is read again, and a supervisor waits for the end."""
START_SECONDS = 20.0
"""How long an assignment waits for its partitions; one that takes longer follows by itself."""
FETCH_WAIT_MS = 100
"""How long a broker may hold back its answer when none of the partitions asked for has news."""


ROOM_SECONDS = 0.02
"""How long a partition whose buffer is full is left aside before it is looked at again."""


YOUNG_OBJECTS = 100_000
"""Objects made and still there before Python's collector looks for cycles among them.

A flush makes tens of thousands, and none is in a cycle. By default the collector would look after
every 700 of them, now and then at everything that there is.
"""


LARGE_BYTES = 1_000_000
"""What is as large is taken from the system, and given back to it as soon as it is freed.

glibc moves that bound up to what was freed last. RocksDB's tables in memory, in blocks of 1 MiB,
then come from the heaps of whichever threads write them, and these heaps grow for hours.
"""
HEAPS = 1
"""For all threads: what one has freed is there for the others."""
SPARE_BYTES = 64 << 20
"""What a heap may keep of what was freed in it; to ask for it anew took an eighth of the time."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Records on their way from the client, and the turn that they were taken in."""

    records: Records
    turn: int

    @property
    def offset(self) -> int:
        """That of the last record."""
        return int(self.records.offsets[-1])


class ConsumerThread(aiokafka.AIOKafkaConsumerThread):
    """Runs the client.

    It has one request at a time in flight to a broker. While records of the busy partitions wait
    here, it asks for the idle ones alone; Faust's 1.5 seconds of waiting for these would keep the
    busy ones waiting, too.
    """

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001  Faust has no setting for it
        consumer._isolation_level = "read_committed"  # noqa: SLF001  nor for this, by itself
        return consumer

    async def on_start(self) -> None:
        """Start the client, and have it fetch in our way."""
        await super().on_start()
        fetcher: Any = self._ensure_consumer()._fetcher  # noqa: SLF001  made as the client starts
        fetch_by_block(fetcher, cast("Consumer", self.consumer).hands_over_batches)

    async def _fetch_records(self, *request: Any, **limits: Any) -> Any:
        """Take what was fetched, and note the turn in which it was taken.

        A request that began before a rebalance may be answered after it, from where the new turn
        begins to read: were that taken for the old turn's, nobody would read it again.
        """
        fetched = dict(await super()._fetch_records(*request, **limits))
        consumer = cast("Consumer", self.consumer)
        turn = consumer.turn
        blocks = {tp: found for tp, found in fetched.items() if isinstance(found[0], list)}
        for tp, found in blocks.items():
            records = unpacked(list(chain.from_iterable(found)))
            if len(records):
                fetched[tp] = [_Fetched(records, turn)]
            else:
                del fetched[tp]
        consumer.note(fetched, request[0])
        return fetched


class ReadOffsets(dict[TP, int | None]):
    """How far Faust has handed partitions over; unknown where it hands over batches.

    Faust passes over what lies before. A batch that was on its way when a rebalance began sets that
    behind the place where the new turn begins to read, and records would be lost. Nor are those
    between the ends of two batches missing, as Faust would have it.
    """

    def __init__(self, hands_over_batches: Callable[[str], bool]) -> None:
        self._hands_over_batches = hands_over_batches

    def __getitem__(self, tp: TP) -> int | None:
        return None if self._hands_over_batches(tp.topic) else self.get(tp)


class Consumer(aiokafka.Consumer):
    """Fetches as Faust's consumer does, and hands over batches where a topic asks for them."""

    _ours: frozenset[TP] = frozenset()
    """The partitions assigned; none once they have been given away."""
    turn: int = 0
    """Counts assignments and revocations."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._read_offset = ReadOffsets(self.hands_over_batches)
        self._fetched: dict[TP, int] = {}
        self._positions: dict[TP, int] = {}

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 (Faust's signature)
        """Wait for records, but not for long while a partition's buffer is full.

        Faust would wait out its second for news of the others, or sleep as long where there are
        none, while what fills the buffer is done with in no time.
        """
        if self.flow_active and self._buffered_partitions & self._ours:
            timeout = ROOM_SECONDS
            if not self._get_active_partitions():
                await asyncio.sleep(ROOM_SECONDS)
                return {}, set()
        return await super()._wait_next_records(timeout)

    def _to_message(self, tp: TP, record: Any) -> Any:
        if not isinstance(record, _Fetched):
            return super()._to_message(tp, record)
        records = record.records
        batch: Any = RecordBatch(tp.topic, tp.partition, records, self.end_of(tp), record.turn)
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=batch.end - 1,
            timestamp=records.timestamps[-1] / 1000,
            timestamp_type=0,
            headers=None,
            key=None,
            value=batch,
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    def note(self, fetched: Mapping[TP, Sequence[Any]], client: Any) -> None:
        """Note how far the client has come with a fetch."""
        for tp, records in fetched.items():
            self._fetched[tp] = records[-1].offset + 1
        subscription = client._subscription.subscription  # noqa: SLF001  `position` would wait
        if subscription and subscription.assignment:
            consumed = subscription.assignment.all_consumed_offsets()
            self._positions = {tp: at.offset for tp, at in consumed.items()}

    def end_of(self, tp: TP) -> int | None:
        """Return the offset behind the last record of a partition, as far as is known.

        Marks that end transactions, and what was aborted, may follow: where the client has passed
        over them, they are no records that have yet to come.
        """
        highwater: int | None = self.highwater(tp)
        # The position first: who has the newer one must not have the older end of the records.
        if highwater is None or self._positions.get(tp, -1) < highwater:
            return highwater
        return self._fetched.get(tp, 0)

    async def perform_seek(self) -> None:
        """Go to the committed offsets, and from there to where the states ask to begin.

        A partition stands still until its state is ready. One whose state takes long to restore
        holds up neither the others nor Faust, which would give up.
        """
        await super().perform_seek()
        kept = [tp for tp in self._ours if self._keeper_of(tp.topic)]
        if not kept:
            return
        turn = self.turn
        earliest = await self.earliest_offsets(*kept)
        ends = await self.highwaters(*kept)
        begun = []
        for tp in kept:
            if turn == self.turn:  # else a rebalance has begun
                committed = self._committed_offset[tp] or 0
                span = Span(tp.topic, tp.partition, earliest[tp], ends[tp], committed, turn)
                self.pause_partitions([tp])
                begun.append(self.add_future(self._begin(tp, span)))
        if begun:
            await asyncio.wait(begun, timeout=START_SECONDS)

    async def _begin(self, tp: TP, span: Span) -> None:
        keeper = self._keeper_of(tp.topic)
        try:
            start = await keeper.begin(span) if keeper else span.committed
            if span.turn != self.turn:
                return
            await self.seek_wait({tp: start})
            # A crash came between the state and the commit. Where nothing more comes, no batch
            # would ever commit it, and whoever watches the group would see a lag that is none.
            if start > span.committed:
                await self._commit({tp: start})
                self._committed_offset[tp] = start
        except Exception as error:  # noqa: BLE001  whatever it is, the partition cannot be read
            if span.turn == self.turn and not self.app.should_stop:
                await self.app.crash(error)
        else:
            if span.turn == self.turn:
                self.resume_partitions([tp])

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Have the states made durable and commit, before Faust forgets what was acknowledged."""
        self.turn += 1
        for keeper in {self._keeper_of(tp.topic) for tp in revoked} - {None}:
            if keeper:
                await keeper.release(revoked)
        await self.commit()
        self._ours = frozenset()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Forget acknowledgements of an earlier turn: others may have stood further behind."""
        for tp in assigned:
            self._acked.pop(tp, None)
            self._acked_index.pop(tp, None)
        self.turn += 1
        self._ours = frozenset(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_task_error(self, exc: BaseException) -> None:
        """Crash the app. Faust would commit, restart the agent and go on behind what failed."""
        await self.app.crash(exc)

    def _new_offset(self, tp: TP) -> int | None:
        if not self.hands_over_batches(tp.topic):
            return super()._new_offset(tp)
        acked = self._acked[tp]
        if not acked or self.app.crashed:
            return None  # a crash closes the stream, and closing acknowledges what had failed
        end = max(acked) + 1
        keeper = self._keeper_of(tp.topic)
        if keeper and tp not in self._ours:
            return None  # somebody else's by now, and further on
        offset = keeper.durable(tp) if keeper else end
        if offset is not None and offset >= end:
            acked.clear()
            self._acked_index[tp].clear()
        else:  # written behind: asked again with the next commit
            acked[:] = [end - 1]
            self._acked_index[tp] = {end - 1}
        return offset

    def _keeper_of(self, topic: str) -> Keeper | None:
        schema = self._batch_schema(topic)
        return schema.keeper if schema else None

    def hands_over_batches(self, topic: str) -> bool:
        """Tell whether a topic was made by `batch_topic`."""
        return self._batch_schema(topic) is not None

    def _batch_schema(self, topic: str) -> BatchSchema | None:
        for known in self.app.topics:
            if isinstance(known.schema, BatchSchema) and topic in known.topics:
                return known.schema
        return None


class Transport(aiokafka.Transport):
    """Faust's Kafka transport with the consumer above; the URL scheme is `driftline://`."""

    Consumer = Consumer


class App(faust.App):
    """A Faust app that ends when it is told to, or has crashed.

    Faust hangs where a rebalance is going on in its other thread at that moment. Whatever has been
    committed is durable by then, so that a hard end costs no more than a crash.
    """

    async def crash(self, reason: BaseException) -> None:
        """Stop for a failure."""
        _end_by_force(CRASH_SECONDS)
        await super().crash(reason)

    async def stop(self) -> None:
        """Stop in good order."""
        _end_by_force(STOP_SECONDS)
        await super().stop()


@cache
def _end_by_force(seconds: float) -> None:
    """End the process once it has had its time to stop, if it is there still; ask once."""

    def end() -> None:
        log.error("not stopped within %.0f s: ending by force", seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def batch_app(kafka: Kafka, *, datadir: Path, **settings: Any) -> faust.App:
    """Make a Faust app on this transport; its name is the consumer group's.

    From then on the process's collector runs less often, see `YOUNG_OBJECTS`, and its memory is
    given back sooner, see `LARGE_BYTES`.

    Args:
        kafka: where the brokers are.
        datadir: where Faust keeps its own files.
        settings: of `faust.App`, to add or replace.

    Raises:
        SettingsError: see `security.faust_config`.
    """
    defaults: dict[str, Any] = {
        "datadir": datadir,
        "store": "memory://",
        "autodiscover": False,
        "web_enabled": False,
        "topic_disable_leader": True,
        "stream_buffer_maxsize": 4,  # batches, not records: a queue of thousands would fill memory
        "consumer_auto_offset_reset": "earliest",
    }
    unpacked([])  # compiles it, where it is not: within the client heartbeats would wait for that
    gc.set_threshold(YOUNG_OBJECTS)
    with suppress(AttributeError):  # glibc alone has it
        set_malloc = ctypes.CDLL(None).mallopt
        set_malloc(_M_ARENA_MAX, HEAPS)
        set_malloc(_M_TRIM_THRESHOLD, SPARE_BYTES)
        set_malloc(_M_MMAP_THRESHOLD, LARGE_BYTES)
    return App(kafka.group, **(defaults | faust_config(kafka) | settings))


def batch_topic(app: faust.App, name: str, keeper: Keeper | None = None) -> Any:
    """Declare a topic that delivers record batches; the topic itself is not created."""
    schema = BatchSchema()
    schema.keeper = keeper
    return app.topic(name, schema=schema, internal=False)


def batch_agent(
    app: faust.App, topic: str, keeper: Keeper | None = None
) -> Callable[[Handler], Any]:
    """Make a Faust agent of a coroutine that deals with one batch.

    Each partition begins at its committed offset, or where the `keeper` of its state says at every
    assignment.

    A batch counts as read when the coroutine returns. Its end may be committed then, or when the
    keeper says that it is durable; without one, whatever must not be lost has to be durable before
    the coroutine returns. Where it raises, the app crashes and nothing more is committed: the batch
    is read again after a restart.
    """

    def make(handle: Handler) -> Any:
        async def consume(stream: Any) -> None:
            unacknowledged = stream.noack()
            async for event in unacknowledged.events():
                if app.crashed:
                    return  # Faust restarts a failed agent: it must not go on behind the failure
                await handle(event.value)
                await unacknowledged.ack(event)

        source = batch_topic(app, topic, keeper)
        return app.agent(source, name=topic, concurrency=1)(consume)

    return make


TRANSPORTS.aliases[SCHEME] = f"{__name__}:Transport"
