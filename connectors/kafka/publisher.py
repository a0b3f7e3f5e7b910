"""Sends records and waits until the brokers have them for good."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from connectors.kafka.messages import Message
from connectors.kafka.security import client_config
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.topics import LARGEST

_BATCH_BYTES = 1 << 17


class Publisher:
    """An idempotent producer, connected when first used; for one task at a time."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._producer: AIOKafkaProducer | None = None
        self._known: set[str] = set()

    async def publish(self, messages: Iterable[Message]) -> None:
        """Send messages, and return when all of them are acknowledged by all replicas in sync.

        Raises:
            BusError: a topic is not there, or the brokers did not take a message in time.
        """
        try:
            sent = [await self._send(message) for message in messages]
            await asyncio.gather(*sent)
        except KafkaError as error:
            raise BusError(
                f"the brokers at {self._kafka.servers} did not take what was sent: {error}"
            ) from error

    async def partitions(self, topic: str) -> list[int]:
        """Return the partitions of a topic, its name without the prefix.

        Raises:
            BusError: the topic is not there.
        """
        producer = self._producer or await self._connect()
        name = self._kafka.topic_prefix + topic
        found = (await producer.client.fetch_all_metadata()).partitions_for_topic(name)
        if not found:
            raise _missing(name)
        return sorted(found)

    async def close(self) -> None:
        """Disconnect."""
        if self._producer:
            await self._producer.stop()
            self._producer = None

    async def _send(self, message: Message) -> asyncio.Future[object]:
        producer = self._producer or await self._connect()
        topic = self._kafka.topic_prefix + message.topic
        if topic not in self._known:
            await self._require(producer, topic)
        sent: asyncio.Future[object] = await producer.send(
            topic, message.value, message.key, headers=message.headers
        )
        return sent

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH_BYTES,
            max_request_size=LARGEST,
            **client_config(self._kafka),
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        return producer

    async def _require(self, producer: AIOKafkaProducer, topic: str) -> None:
        """Raise at once where a topic is missing; the client would wait for it, silently."""
        if topic not in (await producer.client.fetch_all_metadata()).topics():
            raise _missing(topic)
        self._known.add(topic)


def _missing(topic: str) -> BusError:
    return BusError(f"topic {topic} is not there: make it with `driftline topics create`")
