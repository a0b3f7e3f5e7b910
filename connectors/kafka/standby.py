"""Copies of the partitions that other workers have, so that one that moves here is soon ready.

A copy is the store of a partition, kept up to date from the changelog by a worker that does not own
it: it claims nothing, publishes nothing and counts nothing. When the partition comes, the copy is
closed, and `restore.open_state` goes on with it as with any store that the disk has.

What was read goes into the store in one write with the offset behind it, so that a crash at any
point leaves a copy that is merely older. Copies take one step after the other, and rest in between:
the partitions that are here come first.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TextIO

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError
from msgspec.structs import replace

from connectors.kafka.changelog import reader
from connectors.kafka.consumer import Consumer
from connectors.kafka.metadata import partitions
from connectors.kafka.restore import LOG, Followed, open_copy, set_aside, state_path, taken
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.topics import changelog_name
from connectors.store import CorruptStoreError, Pair, Store, StoreError, meta_key
from pipeline.settings import SettingsError

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""Between two attempts at what did not work, or has nothing to copy yet."""
_AT_ONCE = 2000
"""Records in a step."""
_RESTS = 3.0
"""A step is followed by a rest so many times as long."""
_FETCH_BYTES = 1 << 20
_WAIT_SECONDS = 0.5


@dataclass(slots=True, kw_only=True, eq=False)
class _Copy:
    """A store that follows a changelog, from when it was opened."""

    store: Store
    followed: Followed
    behind: int | None = None
    """Records yet to be read; None before the brokers have answered."""
    whole: bool = False
    """Whether it ever had all that the changelog bears."""

    def take(self, records: Sequence[ConsumerRecord], changelog: str) -> bool:
        """Take over records; return False, and do nothing, where they are another changelog's.

        Raises:
            BusError: a record is not driftline's.
            StoreError: the disk is full, failing or damaged.
        """
        items = dict(taken(records, changelog))
        number = (items.get(meta_key(LOG)) or b"").decode()
        if number and self.followed.log not in {number, ""}:
            return False
        followed = replace(
            self.followed, log=number or self.followed.log, next=records[-1].offset + 1
        )
        self.store.write([*items.items(), *_note(followed)])
        self.followed = followed
        return True

    def close(self) -> None:
        """Release the store; what it holds is durable already."""
        try:
            self.store.write(_note(self.followed))
        finally:
            self.store.close()


def _note(followed: Followed) -> list[Pair]:
    """Return how far a copy came, to be kept in it; nothing before it is known in which log."""
    return [followed.pair()] if followed.log else []


class Standby:
    """The copies that a worker keeps.

    `follow` is for one task; a partition that comes here is let go by `let_go`, and may be copied
    after `may_have`. Without `follow` there are no copies, and neither does anything.
    """

    def __init__(self, kafka: Kafka, data: str, *, quiet: float) -> None:
        """Name the directory of the states.

        For `quiet` seconds after the start, and after a partition has left, it is not known who
        has what: what will come here at once is not opened in between.
        """
        self._kafka = kafka
        self._data = data
        self._quiet = quiet
        self._topic = changelog_name(kafka)
        self._consumer: Consumer | None = None
        self._partitions: list[TopicPartition] = []
        self._copies: dict[int, _Copy] = {}
        self._read_for: dict[int, _Copy] = {}
        self._not_before: dict[int, float] = {}
        self._begun = time.monotonic() + quiet
        self._busy = asyncio.Lock()

    def behind(self) -> Mapping[str, int]:
        """Return how many records of its changelog each copy has yet to read, by source."""
        copies = list(self._copies.items())
        return {
            f"{self._kafka.clicks}/{number}": copy.behind
            for number, copy in copies
            if copy.behind is not None
        }

    async def let_go(self, partition: int) -> None:
        """Close a copy, and make no other one: the partition is to be opened here."""
        async with self._busy:
            self._not_before[partition] = math.inf
            await self._close(partition)

    def may_have(self, partition: int) -> None:
        """Say that a partition has left."""
        self._not_before[partition] = time.monotonic() + self._quiet

    async def follow(self) -> float:
        """Bring the copies a step forward, and return how many seconds to rest."""
        try:
            consumer = self._consumer or await self._connect()
            await self._open_due(consumer)
            self._assign(consumer)
            if not self._copies:
                return _WAIT_SECONDS
            fetched = await consumer.getmany(
                timeout_ms=int(_WAIT_SECONDS * 1000), max_records=_AT_ONCE
            )
            began = time.monotonic()
            for at, records in fetched.items():
                await self._take(at.partition, records)
            await self._measure(consumer)
        except (KafkaError, BusError, ConsumerStoppedError) as error:
            log.warning("copies wait: %s cannot be followed now: %s", self._topic, error)
            await self._disconnect()
            return RETRY_SECONDS
        return (time.monotonic() - began) * _RESTS

    async def close(self) -> None:
        """Close all copies, open no more, and disconnect."""
        self._begun = math.inf
        self._not_before.clear()
        await self._disconnect()

    async def _connect(self) -> Consumer:
        self._partitions = await partitions(self._kafka, self._topic)
        self._read_for = {}
        consumer = self._consumer = reader(self._kafka, fetch_bytes=_FETCH_BYTES)
        await consumer.start()
        return consumer

    async def _disconnect(self) -> None:
        """Let go of the bus and of all copies: they are looked at anew once it is back."""
        for partition in list(self._copies):
            async with self._busy:
                await self._close(partition)
        consumer, self._consumer = self._consumer, None
        if consumer:
            await consumer.stop()

    async def _open_due(self, consumer: Consumer) -> None:
        """Open the copies that are not open and may be."""
        due = [at for at in self._partitions if self._is_due(at.partition)]
        if not due:
            return
        first, end = await consumer.beginning_offsets(due), await consumer.end_offsets(due)
        for at in due:
            async with self._busy:
                if self._is_due(at.partition):
                    await self._open(at.partition, first[at], end[at])

    def _is_due(self, partition: int) -> bool:
        since = self._not_before.get(partition, self._begun)
        return partition not in self._copies and time.monotonic() >= since

    async def _open(self, partition: int, first: int, end: int) -> None:
        if end == 0:  # its next owner begins it, with what is on the disk if need be
            self._not_before[partition] = time.monotonic() + RETRY_SECONDS
            return
        path, name = self._places(partition)
        try:
            store, followed = await asyncio.to_thread(open_copy, path, name, first, end)
        except StoreError as error:
            self._give_up(partition, error)
            return
        self._copies[partition] = _Copy(store=store, followed=followed)
        log.info("%s is a copy: it follows %s from offset %d on", path, name, followed.next)

    def _assign(self, consumer: Consumer) -> None:
        """Have the consumer read on where the copies are, if it reads for others."""
        if self._read_for != self._copies:
            self._read_for = dict(self._copies)
            wanted = {TopicPartition(self._topic, at): copy for at, copy in self._copies.items()}
            consumer.assign(list(wanted))
            for at, copy in wanted.items():
                consumer.seek(at, copy.followed.next)

    async def _take(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        async with self._busy:
            copy = self._copies.get(partition)
            if copy is None:
                return  # the partition came here meanwhile
            path, name = self._places(partition)
            try:
                same = await asyncio.to_thread(copy.take, records, name)
            except (StoreError, BusError) as error:
                await self._close(partition)
                self._give_up(partition, error)
                return
            if not same:
                log.warning("%s was made anew: %s is copied from it", name, path)
                await self._close(partition)
                await asyncio.to_thread(shutil.rmtree, path)
                self._not_before[partition] = 0.0

    def _give_up(self, partition: int, error: Exception) -> None:
        """Do without a copy for a while, or make it anew where it is damaged."""
        path, _ = self._places(partition)
        self._not_before[partition] = time.monotonic() + RETRY_SECONDS
        if isinstance(error, CorruptStoreError):
            self._not_before[partition] = 0.0
            set_aside(path, error)
        else:
            log.warning("there is no copy of %s for now: %s", path.name, error)

    async def _measure(self, consumer: Consumer) -> None:
        for at in consumer.assignment():
            copy, end = self._copies.get(at.partition), consumer.highwater(at)
            if copy is None or end is None:
                continue
            behind = max(0, end - await consumer.position(at))
            if behind == 0:
                seen = consumer.last_poll_timestamp(at) / 1000
                copy.followed = replace(copy.followed, seconds=seen)
            if behind == 0 and not copy.whole:
                log.info("%s is up to date, at offset %d", copy.store.path, copy.followed.next)
                copy.whole = True
            copy.behind = behind

    async def _close(self, partition: int) -> None:
        copy = self._copies.pop(partition, None)
        if copy is None:
            return
        try:
            await asyncio.to_thread(copy.close)
        except StoreError as error:
            log.warning("%s", error)
        log.info("%s is let go, at offset %d", copy.store.path, copy.followed.next)

    def _places(self, partition: int) -> tuple[Path, str]:
        return state_path(self._data, self._kafka.clicks, partition), f"{self._topic}/{partition}"


@cache
def hold(data: Path, *, alone: bool) -> TextIO:
    """Make a directory of states, and say that a worker uses it, or that it alone does.

    Raises:
        SettingsError: somebody wants it alone, and somebody else has it.
    """
    data.mkdir(parents=True, exist_ok=True)
    file = (data / "in-use").open("w")
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise SettingsError(
            f"{data} is in use by another worker, and one with copies of partitions "
            "(worker.standby) needs a directory of its own: name another (worker.data, --data)"
        ) from None
    return file
