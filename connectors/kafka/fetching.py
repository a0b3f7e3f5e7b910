"""Fetches batches of the log as their producers made them, and leaves records in them.

The client looks at every record by itself and makes an object of eleven fields of it, which takes
longer than all else. It still fetches, and keeps where to go on; it takes a block for a record.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.fetch import FetchRequest

from connectors.kafka.log_format import MAGIC, MAGIC_AT, LogBatch, split

Block = list[LogBatch]

LEAST = 1024
"""Records of a block, where so many have come and are wanted: a batch may have a single one."""


def fetch_by_block(fetcher: Any, takes_blocks_of: Callable[[str], bool]) -> None:
    """Have the client's fetcher hand over blocks of some topics; of others it does as ever."""
    fetcher.__class__ = BlockFetcher
    fetcher.takes_blocks_of = takes_blocks_of
    fetcher._client = _Answers(fetcher._client)  # noqa: SLF001


class _Answers:
    """The client, as its fetcher uses it; it keeps the bytes of the newest answer."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.newest: dict[TopicPartition, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: Any, request: Any) -> Any:
        """Send a request, and return its answer."""
        answer = await self._client.send(node, request)
        if isinstance(request, FetchRequest):
            self.newest = {
                TopicPartition(topic, number): written
                for topic, partitions in answer.topics
                for number, *_, written in partitions
            }
        return answer


class BlockFetcher(Fetcher):  # type: ignore[misc]  # aiokafka ships no types for it
    """The client's fetcher, made one of this class when it is there."""

    takes_blocks_of: Callable[[str], bool]
    """Tells of a topic whether it is fetched so; others are fetched as ever."""
    _client: _Answers
    _room = 0

    async def fetched_records(
        self,
        partitions: Any,
        timeout: float = 0,  # noqa: ASYNC109  the client's signature
        max_records: int | None = None,
    ) -> Any:
        """Return what has come, by partition: blocks of so many records, and the last one whole."""
        self._room = max_records or sys.maxsize
        return await super().fetched_records(partitions, timeout, max_records)

    async def _proc_fetch_request(self, *request: Any) -> Any:
        has_news = await super()._proc_fetch_request(*request)
        for tp, result in self._records.items():
            fetched = getattr(result, "_partition_records", None)  # an error has none
            if type(fetched) is PartitionRecords and self.takes_blocks_of(tp.topic):
                by_block(fetched, self._client.newest[tp])
                result.getall = partial(self._blocks, tp)
        self._client.newest = {}
        return has_news

    def _blocks(self, tp: TopicPartition, _: int | None) -> list[Block]:
        """Return as many blocks as there is room for; the client would count each as a record."""
        blocks: list[Block] = []
        result = self._records[tp]
        fetched = result._partition_records  # noqa: SLF001
        while self._room > 0 and fetched:
            fetched.least = min(LEAST, self._room)
            try:
                block = FetchResult.getall(result, 1)
            except Exception:
                if blocks:
                    break  # these count as read; what cannot be read is met again
                raise
            if not block:
                break
            blocks += block
            self._room -= sum(batch.count for batch in block[0])
        return blocks


def by_block(fetched: PartitionRecords, written: bytes) -> None:
    """Let what was fetched of a partition, and not yet looked at, yield blocks."""
    fetched.__class__ = _Blocks
    fetched._batches = split(written)  # noqa: SLF001
    fetched._records_iterator = fetched._unpack_records()  # noqa: SLF001


class _Blocks(PartitionRecords):  # type: ignore[misc]
    next_fetch_offset: int
    least = LEAST
    _batches: Iterator[memoryview]

    def _unpack_records(self) -> Iterator[Block]:
        block: Block = []
        size = 0
        while self._records.has_next():
            try:
                batch = self._records.next_batch()
                visible = self._visible(batch, next(self._batches))
            except Exception:
                if block:
                    yield block
                raise
            self.next_fetch_offset = batch.next_offset
            block += visible
            size += sum(part.count for part in visible)
            if size >= self.least:
                yield block
                block, size = [], 0
        if block:
            yield block

    def _visible(self, batch: Any, written: memoryview) -> Block:
        """Return the batch, given by its head, if its records are to be handed over."""
        if self._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {self._tp}")
        if self._is_hidden(batch):
            return []
        if written[MAGIC_AT] < MAGIC:
            return [LogBatch.renewed(batch, self.next_fetch_offset)]
        return [LogBatch.of(written, self.next_fetch_offset)]

    def _is_hidden(self, batch: Any) -> bool:
        """Tell whether a batch is a mark, or of a transaction that was broken off."""
        if self._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)
