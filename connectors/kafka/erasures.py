"""Users to be erased: asked for on a topic of their own, and taken on by whoever holds anything.

A request names a user, and of each partition of the click topic the offset from which on clicks
count again: whoever reads older ones, because it lags behind or begins anew, passes over them.
Workers and the learner answer with a receipt each; requests and receipts are kept for good.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import numpy as np
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from connectors.kafka.cloudevents import cloud_event
from connectors.kafka.consumer import Consumer
from connectors.kafka.messages import Message
from connectors.kafka.metadata import partitions
from connectors.kafka.publisher import Publisher
from connectors.kafka.security import client_config
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.topics import ERASURES
from connectors.wire import WireError
from pipeline.events import SCHEMA_VERSION, Clicks

LEARNER = "learner"
"""Who signs the learner's receipts."""
LOOK_SECONDS = 2.0
"""Between two looks at who is to be erased."""
_WAIT_MS = 200
_SENT_ON_SECONDS = 30.0

log = logging.getLogger(__name__)


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="request"):
    """That a user be erased."""

    user: str
    asked: int
    """Milliseconds."""
    ends: dict[int, int]
    """By partition of the click topic: clicks of the user before that offset do not count."""
    schema: int = SCHEMA_VERSION


class Receipt(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="receipt"):
    """That a request was taken on by a partition of the click topic, or by the learner."""

    user: str
    asked: int
    by: str
    checkpoints: list[str] = []
    """Of the learner: those that were trained since it met the user, and on disk by then."""
    schema: int = SCHEMA_VERSION


def encode(said: Request | Receipt) -> Message:
    """Return a request or a receipt as a record."""
    if isinstance(said, Receipt):
        key, kind, source = f"{said.user}\x1f{said.by}", "receipt", said.by
    else:
        key, kind, source = said.user, "request", "erase"
    headers = cloud_event(f"erasure.{kind}", f"{key}/{said.asked}", said.asked, source=source)
    return Message(ERASURES, key.encode(), msgspec.json.encode(said), headers)


def decode(data: bytes) -> Request | Receipt:
    """Read a request or a receipt.

    Raises:
        WireError: the bytes are neither.
    """
    try:
        said: Request | Receipt = msgspec.json.decode(data, type=Request | Receipt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"neither a request to erase a user nor a receipt: {error}") from None
    if said.schema != SCHEMA_VERSION:
        raise WireError(f"of schema version {said.schema}: this release reads {SCHEMA_VERSION}")
    return said


class Erasures:
    """What was asked for and what was answered, as far as the topic was read; for one task."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._at = TopicPartition(kafka.topic_prefix + ERASURES, 0)
        self._consumer: Consumer | None = None
        self._requests: dict[str, tuple[int, Request]] = {}
        self._until: dict[int, int] = {}  # by partition, the furthest of the requests' ends
        self.receipts: dict[tuple[str, str], Receipt] = {}
        """By user and by who signed."""
        self.next = 0
        """The offset up to which the topic was read."""

    async def refresh(self) -> None:
        """Read the topic to its present end.

        Raises:
            BusError: no broker answers, or the topic is not there.
        """
        try:
            consumer = self._consumer or await self._connect()
            end = (await consumer.end_offsets([self._at]))[self._at]
            while await consumer.position(self._at) < end:
                for record in (await consumer.getmany(timeout_ms=_WAIT_MS)).get(self._at, ()):
                    self._note(record.offset, record.value)
            self.next = max(self.next, end)
        except KafkaError as error:
            await self.close()
            raise BusError(
                f"the brokers at {self._kafka.servers} do not let {self._at.topic} be read: {error}"
            ) from error

    def request(self, user: str) -> Request | None:
        """Return the newest request to erase a user."""
        return self._requests[user][1] if user in self._requests else None

    def missing(self, request: Request) -> list[str]:
        """Return which partitions of the click topic have not taken a request on."""
        names = [f"{self._kafka.clicks}/{partition}" for partition in sorted(request.ends)]
        return [name for name in names if not self._has_answered(name, request)]

    def since(self, offset: int) -> list[tuple[int, Request]]:
        """Return the requests at an offset and behind it, in order, with their offsets."""
        found = [(at, request) for at, request in self._requests.values() if at >= offset]
        return sorted(found, key=lambda pair: pair[0])

    def taken_on(self, by: str) -> list[tuple[int, Request]]:
        """Return the requests with a receipt signed `by`, in order, with their offsets."""
        return [(at, request) for at, request in self.since(0) if self._has_answered(by, request)]

    def counting(self, clicks: Clicks, partition: int) -> Clicks:
        """Leave out the clicks of erased users that came before they were to be erased."""
        if not len(clicks) or clicks.position[0] >= self._until.get(partition, 0):
            return clicks
        asked = [self.request(user) for user in clicks.user.values]
        ends = [request.ends.get(partition, 0) if request else 0 for request in asked]
        first = np.array(ends, np.int64)
        return clicks.take(np.flatnonzero(clicks.position >= first[clicks.user.codes]))

    async def close(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer:
            await consumer.stop()

    async def _connect(self) -> Consumer:
        await partitions(self._kafka, self._at.topic)
        consumer = Consumer(
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            enable_auto_commit=False,
            **client_config(self._kafka),
        )
        self._consumer = consumer  # for `close`, where it does not start
        await consumer.start()
        consumer.assign([self._at])
        consumer.seek(self._at, self.next)
        return consumer

    def _has_answered(self, by: str, request: Request) -> bool:
        receipt = self.receipts.get((request.user, by))
        return receipt is not None and receipt.asked >= request.asked

    def _note(self, offset: int, value: bytes | None) -> None:
        if value is None:
            return  # somebody has deleted a key: what was asked for under it is asked for still
        try:
            said = decode(value)
        except WireError as error:
            log.error("%s, offset %d: %s; passed over", self._at.topic, offset, error)  # noqa: TRY400
            return
        if isinstance(said, Request):
            self._requests[said.user] = (offset, said)
            for partition, end in said.ends.items():
                self._until[partition] = max(end, self._until.get(partition, 0))
        else:
            self.receipts[said.user, said.by] = said


async def erase_when_asked(app: Any, erase: Callable[[], Awaitable[None]]) -> None:
    """Call `erase` now and then until a Faust app stops, also while no broker answers."""
    while not app.should_stop:
        await app.sleep(LOOK_SECONDS)
        try:
            if not app.should_stop:
                await erase()
        except BusError as error:
            log.warning("cannot be told now who is to be erased: %s", error)


async def _all_sent_on(kafka: Kafka) -> None:
    """Wait until the clicks that are there have been keyed by user: later they would count anew."""
    everywhere = await partitions(kafka, kafka.received)
    async with Consumer(
        group_id=kafka.group,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        enable_auto_commit=False,
        **client_config(kafka),
    ) as consumer:
        ends = await consumer.end_offsets(everywhere)
        until = time.monotonic() + _SENT_ON_SECONDS
        for at in everywhere:
            while not await consumer.is_at_end(at, await consumer.committed(at) or 0, ends[at]):
                if time.monotonic() > until:
                    raise BusError(
                        f"{at.topic}/{at.partition} has clicks that no worker has sent on to "
                        f"{kafka.clicks} yet: start one, wait until it has, and ask again"
                    )
                await asyncio.sleep(1.0)


async def ask(kafka: Kafka, user: str) -> Request:
    """Ask for a user to be erased, with all clicks that are on the click topic by now.

    Raises:
        BusError: no broker answers, or a topic is not there; or no worker sends the clicks on that
            are to be keyed by user.
    """
    publisher = Publisher(kafka)
    try:
        if kafka.rekey:
            await _all_sent_on(kafka)
        everywhere = await partitions(kafka, kafka.clicks)
        async with Consumer(**client_config(kafka)) as consumer:
            ends = await consumer.end_offsets(everywhere)
        request = Request(
            user=user,
            asked=int(time.time() * 1000),
            ends={at.partition: end for at, end in ends.items()},
        )
        await publisher.publish([encode(request)])
    except KafkaError as error:
        raise BusError(f"cannot ask for it: {error}") from error
    finally:
        await publisher.close()
    return request
