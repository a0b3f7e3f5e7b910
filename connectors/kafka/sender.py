"""Sends records by the batch; one by one takes three times as long."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from connectors.kafka.metadata import partitions
from connectors.kafka.records import Headers
from connectors.kafka.security import client_config
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.topics import LARGEST

BATCH_BYTES = 1 << 17
KEYS = 1 << 17
"""Keys whose partitions are kept at hand: to hash one anew takes as long as all else."""


@lru_cache(KEYS)
def partition_of(key: bytes | None, count: int) -> int:
    """Return which of so many partitions a record goes to, as Java's clients choose it.

    One without a key goes to the first.
    """
    return 0 if key is None else (murmur2(key) & 0x7FFFFFFF) % count


async def connect(kafka: Kafka, topic: str) -> Sender:
    """Make a sender to a topic; its `close` has to be called.

    Raises:
        BusError: the topic is not there.
        KafkaError: no broker answers.
        SettingsError: see `security.client_config`.
    """
    count = len(await partitions(kafka, topic))
    producer = AIOKafkaProducer(
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES,
        max_request_size=LARGEST,
        **client_config(kafka),
    )
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return Sender(producer, topic, count)


class Sender:
    """Fills one batch a partition; those of one key go to one partition, in order."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, count: int) -> None:
        """Take a producer that is started, and how many partitions the topic has."""
        self.events = 0
        self.fresh = False
        """Whether a batch left since this was last set to False."""
        self._producer = producer
        self._topic = topic
        self._open = [producer.create_batch() for _ in range(count)]
        self._sent: list[asyncio.Future[object] | None] = [None] * count

    async def send(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
    ) -> None:
        """Put a record into its batch, and let that go when it is full.

        Raises:
            BusError: the record is too large.
            KafkaError: the brokers did not take an earlier one.
        """
        partition = partition_of(key, len(self._open))
        record = {"timestamp": None, "key": key, "value": value, "headers": list(headers)}
        if self._open[partition].append(**record) is None:
            await self._close(partition)
            if self._open[partition].append(**record) is None:
                size = len(value or b"")
                raise BusError(f"a record of {size} bytes is too large for the bus")
        self.events += 1

    async def flush(self) -> None:
        """Let all batches go."""
        for partition, batch in enumerate(self._open):
            if batch.record_count():
                await self._close(partition)

    async def finish(self) -> None:
        """Let all batches go, and return when the brokers have them for good."""
        await self.flush()
        await asyncio.gather(*(sent for sent in self._sent if sent is not None))

    async def close(self) -> None:
        """Disconnect."""
        await self._producer.stop()

    async def _close(self, partition: int) -> None:
        batch, self._open[partition] = self._open[partition], self._producer.create_batch()
        batch.close()
        sent = await self._producer.send_batch(batch, self._topic, partition=partition)
        before, self._sent[partition] = self._sent[partition], sent
        if before is not None:
            await before
        self.fresh = True
