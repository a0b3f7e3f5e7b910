"""Reads whole topics, outside any consumer group, for callers without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from connectors.kafka.consumer import Consumer
from connectors.kafka.metadata import partitions
from connectors.kafka.security import client_config
from connectors.kafka.settings import Kafka

Fetched = list[ConsumerRecord[bytes, bytes]]
_Result = TypeVar("_Result")
_WAIT_MS = 500


class TopicReader:
    """Reads a topic from its beginning to where it ended when this was made.

    The client runs in a thread of its own: whoever reads may take minutes over a batch, as one
    that learns does, and its requests would time out meanwhile.
    """

    def __init__(self, kafka: Kafka, topic: str) -> None:
        """Name the topic; entering the context connects.

        Raises:
            BusError: on entering, where no broker answers or the topic is not there.
            SettingsError: on entering, see `security.client_config`.
        """
        self._kafka = kafka
        self._topic = topic
        self._ends: dict[TopicPartition, int] = {}

    @property
    def partitions(self) -> list[int]:
        """The numbers of the partitions."""
        return sorted(tp.partition for tp in self._ends)

    def next(self, partition: int) -> Fetched:
        """Return the next records of a partition, in order; none at its end."""
        tp = TopicPartition(self._topic, partition)
        end = self._ends[tp]
        while self._run(self._consumer.position(tp)) < end:
            fetched = self._run(self._consumer.getmany(tp, timeout_ms=_WAIT_MS))
            records = [record for record in fetched.get(tp, []) if record.offset < end]
            if records:
                return records
        return []

    def records(self, partition: int) -> Iterator[ConsumerRecord[bytes, bytes]]:
        """Yield the records of a partition, in order, to its end."""
        while records := self.next(partition):
            yield from records

    def follow(self) -> Iterator[tuple[int, Fetched]]:
        """Wait for what comes, of all partitions; never ends."""
        while True:
            for tp, records in self._run(self._consumer.getmany(timeout_ms=_WAIT_MS)).items():
                yield tp.partition, records

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._loop = undo.enter_context(_running())
            everywhere = self._run(partitions(self._kafka, self._topic))
            self._consumer = self._run(_consumer(self._kafka))
            undo.callback(lambda: self._run(self._consumer.stop()))
            self._run(self._consumer.start())
            self._ends = self._run(_assign(self._consumer, everywhere))
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    def _run(self, step: Coroutine[Any, Any, _Result]) -> _Result:
        try:
            return asyncio.run_coroutine_threadsafe(step, self._loop).result()
        except KafkaError as error:
            raise self._kafka.failure(f"read {self._topic}", error) from error


@contextmanager
def _running() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="topic reader", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _consumer(kafka: Kafka) -> Consumer:
    """Make a consumer, which belongs to the event loop that it is made in."""
    return Consumer(
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        enable_auto_commit=False,
        **client_config(kafka),
    )


async def _assign(
    consumer: Consumer, everywhere: list[TopicPartition]
) -> dict[TopicPartition, int]:
    """Assign partitions, and return where they end."""
    consumer.assign(everywhere)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(everywhere)
    return ends
