"""The changelog: the states of a partition of the click topic, on the bus.

It is a compacted topic with as many partitions as the click topic: partition n bears what the store
of click partition n holds, by the same keys. It is written by transactions, one a flush, so that a
flush is there as a whole or not at all. The transactional id is that of the partition: whoever
claims a partition ends an unfinished transaction of the owner before it, and that one can write no
more, be it only asleep. https://cwiki.apache.org/confluence/display/KAFKA/KIP-98
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any, TypeAlias

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder

from connectors.kafka.consumer import Consumer
from connectors.kafka.messages import Message
from connectors.kafka.records import Headers
from connectors.kafka.security import client_config
from connectors.kafka.sender import partition_of
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.topics import LARGEST, changelog_name
from connectors.store import Pair

_Record: TypeAlias = tuple[bytes | None, bytes | None, Headers]
"""Key, value, headers."""
_Addressed: TypeAlias = tuple[TopicPartition, _Record]
_BATCH_BYTES = 1 << 20
_PACE = 2048
"""Records put into batches before the event loop gets its turn."""
_TRANSACTION_MS = 10 * 60 * 1000
"""Long enough for any flush: one that was left unfinished is ended by the next owner's claim."""
_FETCH_BYTES = 8 << 20
_WAIT_MS = 200


class FencedError(BusError):
    """Another worker has claimed the partition."""


class Changelog:
    """One partition of the changelog topic, to be read and written by the partition's owner."""

    def __init__(self, kafka: Kafka, partition: int) -> None:
        self.name = f"{changelog_name(kafka)}/{partition}"
        self._kafka = kafka
        self._at = TopicPartition(changelog_name(kafka), partition)
        self._producer: AIOKafkaProducer | None = None

    async def claim(self) -> None:
        """Become the only one who can write, once what others have begun is ended.

        Raises:
            BusError: no broker answers.
        """
        producer = AIOKafkaProducer(
            transactional_id=self.name,
            transaction_timeout_ms=_TRANSACTION_MS,
            max_batch_size=_BATCH_BYTES,
            max_request_size=LARGEST,
            compression_type="zstd",
            **client_config(self._kafka),
        )
        try:
            await self.close()
            await producer.start()
        except KafkaError as error:
            await producer.stop()
            raise BusError(f"cannot claim {self.name}: {error}") from error
        self._producer = producer

    async def span(self) -> tuple[int, int]:
        """Return the first offset that is there, and that of the next record.

        Raises:
            BusError: no broker answers, or the topic is not there.
        """
        async with self._reader() as consumer:
            return await self._span(consumer)

    async def read(self, start: int) -> AsyncIterator[tuple[int, Sequence[ConsumerRecord]]]:
        """Read what was committed, from `start` to the end: records, and the offset behind them.

        Raises:
            BusError: no broker answers, or the topic is not there.
        """
        async with self._reader() as consumer:
            first, end = await self._span(consumer)
            consumer.assign([self._at])
            consumer.seek(self._at, max(start, first))
            while (position := await consumer.position(self._at)) < end:
                fetched = await consumer.getmany(self._at, timeout_ms=_WAIT_MS)
                if fetched.get(self._at):
                    yield fetched[self._at][-1].offset + 1, fetched[self._at]
            yield position, []

    async def write(self, items: Iterable[Pair], messages: Sequence[Message]) -> int:
        """Write keys and values, and messages to other topics: all of them or none.

        Returns:
            The offset behind the last of the keys.

        Raises:
            FencedError: another worker has claimed the partition.
            BusError: the brokers did not take it; whether it was written is not known.
        """
        producer = self._producer
        if producer is None:
            raise BusError(f"{self.name} is not claimed")
        try:
            await producer.begin_transaction()
            addressed = await self._addressed(producer, messages)
            own: Iterator[_Addressed] = ((self._at, (key, value, [])) for key, value in items)
            end = await self._send(producer, chain(addressed, own))
            await producer.commit_transaction()
        except (ProducerFenced, IllegalOperation) as error:  # the latter follows any other failure
            fenced = isinstance(error, ProducerFenced) or _is_dead(producer)
            if not fenced:
                raise BusError(f"a flush to {self.name} failed: {error}") from error
            raise FencedError(
                f"another worker has taken over {self.name}: this one was silent for too long"
            ) from error
        except KafkaError as error:
            raise BusError(f"the brokers did not take a flush to {self.name}: {error}") from error
        return end

    async def close(self) -> None:
        """Disconnect."""
        producer, self._producer = self._producer, None
        if producer:
            await producer.stop()

    async def _addressed(
        self, producer: AIOKafkaProducer, messages: Sequence[Message]
    ) -> Iterator[_Addressed]:
        """Say where each message goes."""
        topics = {message.topic: self._kafka.topic_prefix + message.topic for message in messages}
        places = {
            topic: [TopicPartition(name, n) for n in sorted(await producer.partitions_for(name))]
            for topic, name in topics.items()
        }
        return (
            (
                places[message.topic][partition_of(message.key, len(places[message.topic]))],
                (message.key, message.value, message.headers),
            )
            for message in messages
        )

    async def _send(self, producer: AIOKafkaProducer, records: Iterable[_Addressed]) -> int:
        """Send records in batches, and return the offset behind the last one in the changelog."""
        filling: dict[TopicPartition, BatchBuilder] = {}
        sent = []
        for count, (at, record) in enumerate(records, start=1):
            batch = filling.get(at)
            if batch is None or not _put(batch, record):
                if batch is not None:
                    sent.append(await _send_batch(producer, batch, at))
                batch = filling[at] = producer.create_batch()
                _put(batch, record)
            if count % _PACE == 0:
                await asyncio.sleep(0)
        last = filling.pop(self._at)
        behind: int = last.record_count()
        sent += [await _send_batch(producer, batch, at) for at, batch in filling.items()]
        sent.append(await _send_batch(producer, last, self._at))
        acknowledged = await asyncio.gather(*sent)
        return int(acknowledged[-1].offset) + behind

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Consumer]:
        consumer = reader(self._kafka)
        try:
            await consumer.start()
            yield consumer
        except KafkaError as error:
            raise BusError(f"cannot read {self.name}: {error}") from error
        finally:
            await consumer.stop()  # also where it did not start

    async def _span(self, consumer: Consumer) -> tuple[int, int]:
        try:
            first = await consumer.beginning_offsets([self._at])
            end = await consumer.end_offsets([self._at])
        except KafkaError as error:
            raise BusError(
                f"cannot read {self.name}: {error}; `driftline topics check` says what is missing"
            ) from error
        return first[self._at], end[self._at]


def _is_dead(producer: AIOKafkaProducer) -> bool:
    return bool(producer._txn_manager.is_fatal_error())  # noqa: SLF001  it tells nowhere else


def _put(batch: BatchBuilder, record: _Record) -> bool:
    """Put a record into a batch; return False where that is full."""
    key, value, headers = record
    put = batch.append(timestamp=None, key=key, value=value, headers=headers)
    return put is not None


async def _send_batch(
    producer: AIOKafkaProducer, batch: BatchBuilder, at: TopicPartition
) -> asyncio.Future[Any]:
    return _retrieved(await producer.send_batch(batch, at.topic, partition=at.partition))


def _retrieved(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """Keep asyncio quiet about a record that failed along with another one, which is told."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


def reader(kafka: Kafka, *, fetch_bytes: int = _FETCH_BYTES) -> Consumer:
    """Make a consumer, of no group, that sees what was committed; it is yet to be started.

    Where it is sent to an offset that is not there, it says so; it does not go elsewhere.
    """
    return Consumer(
        isolation_level="read_committed",
        auto_offset_reset="none",
        enable_auto_commit=False,
        fetch_max_bytes=_FETCH_BYTES,
        max_partition_fetch_bytes=fetch_bytes,
        **client_config(kafka),
    )
