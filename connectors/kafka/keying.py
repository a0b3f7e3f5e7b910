"""Notices that a click topic is not keyed by user: that one user's clicks are in two partitions.

Each partition has states of its own, so such a user has two halves of a state, and neither is
right. Which worker has which partition does not matter here: one of them looks at all partitions,
now and then, outside the group. Users are compared on a sample that is the same everywhere, those
with the smallest hashes (bottom-k, Cohen & Kaplan 2007), so that memory stays bounded and a user
who is in the sample of one partition is in that of another, if met there.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from xxhash import xxh3_64_intdigest

from connectors.kafka.consumer import Consumer
from connectors.kafka.decoding import decode_records
from connectors.kafka.metadata import partitions
from connectors.kafka.records import Records
from connectors.kafka.security import client_config
from connectors.kafka.settings import Kafka
from pipeline.events import Clicks
from pipeline.settings import Source

EVERY_SECONDS = 20.0
LOOK = 500
"""Records of a partition that are looked at, the newest, and at first in each of its parts."""
PARTS = 8
SAMPLE = 4096
"""Users remembered of each partition."""

_WAIT_MS = 1000
_TRIES = 10

log = logging.getLogger(__name__)


class Sample:
    """The users of one partition with the smallest hashes, and where each was met first."""

    def __init__(self, size: int = SAMPLE) -> None:
        self._size = size
        self.places: dict[int, int] = {}
        """Offset by hash."""

    def meet(self, clicks: Clicks) -> None:
        """Take the users of a batch in."""
        for code, offset in zip(clicks.user.codes.tolist(), clicks.position.tolist(), strict=True):
            number = xxh3_64_intdigest(clicks.user.values[code].encode())
            self.places.setdefault(number, offset)
        if len(self.places) > self._size:
            kept = heapq.nsmallest(self._size, self.places)
            self.places = {number: self.places[number] for number in kept}


class KeyWatch:
    """Looks for users met in several partitions; says so once, and counts them."""

    def __init__(self, source: Source, kafka: Kafka) -> None:
        self.topic = kafka.clicks
        self._source = source
        self._kafka = kafka
        self._samples: dict[int, Sample] = {}
        self._seen: dict[int, int] = {}
        self._told = False
        self.split_users = 0
        """Users met in several partitions, of those in the samples."""

    async def look(self) -> None:
        """Look at the newest records of every partition; the first time all through the log.

        Raises:
            BusError: the topic is not there.
            KafkaError: no broker answers.
        """
        async with _reader(self._kafka) as (consumer, everywhere):
            first = await consumer.beginning_offsets(everywhere)
            last = await consumer.end_offsets(everywhere)
            for at in everywhere:
                for start in self._starts(at.partition, first[at], last[at]):
                    await self._read(consumer, at, start, last[at])
                self._seen[at.partition] = last[at]
        self._compare()

    def _starts(self, partition: int, first: int, last: int) -> Sequence[int]:
        if partition not in self._seen:
            step = max(LOOK, (last - first) // PARTS)
            return range(first, last, step)
        start = max(self._seen[partition], last - LOOK, first)
        return [start] if start < last else []

    async def _read(self, consumer: Any, at: TopicPartition, start: int, end: int) -> None:
        consumer.seek(at, start)
        for _attempt in range(_TRIES):
            fetched = await consumer.getmany(at, timeout_ms=_WAIT_MS, max_records=LOOK)
            records = [record for record in fetched.get(at, []) if record.offset < end]
            clicks, _rejects = decode_records(
                Records.of(records), f"{at.topic}/{at.partition}", self._source
            )
            self._samples.setdefault(at.partition, Sample()).meet(clicks)
            if records or await consumer.position(at) >= end:
                return

    def _compare(self) -> None:
        met: dict[int, tuple[int, int]] = {}
        split: dict[int, tuple[int, int]] = {}
        for partition, sample in self._samples.items():
            for number, offset in sample.places.items():
                if met.setdefault(number, (partition, offset))[0] != partition:
                    split[number] = (partition, offset)
        self.split_users = len(split)
        if split and not self._told:
            number, place = next(iter(split.items()))
            self._tell(met[number], place)
            self._told = True

    def _tell(self, one: tuple[int, int], other: tuple[int, int]) -> None:
        log.error(
            "%s is not keyed by user: one user was met in partition %d at offset %d and in "
            "partition %d at offset %d. Interests, profiles and alerts of such users are wrong, "
            "for each partition sees a part of their clicks. Key the topic by user id, or set "
            "kafka.rekey = true. (Partitions that were added to a topic have the same effect.)",
            *(self.topic, *one, *other),
        )


@asynccontextmanager
async def _reader(kafka: Kafka) -> AsyncIterator[tuple[Any, list[TopicPartition]]]:
    everywhere = await partitions(kafka, kafka.clicks)
    consumer = Consumer(
        isolation_level="read_committed", enable_auto_commit=False, **client_config(kafka)
    )
    try:
        await consumer.start()
        consumer.assign(everywhere)
        yield consumer, everywhere
    finally:
        await consumer.stop()
