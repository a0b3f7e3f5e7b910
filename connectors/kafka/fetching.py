"""Fetches records by the block, whole batches of the log as their producers made them.

The client looks at every record by itself and makes an object of eleven fields of it, which takes
longer than to parse it. It still fetches, and keeps where to go on; it takes a block for a record.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException

from connectors.kafka.records import Record

Block = list[Record]

LEAST = 1024
"""Records of a block, where so many have come and are wanted: a batch may have a single one."""


class BlockFetcher(Fetcher):  # type: ignore[misc]  # aiokafka ships no types for it
    """The client's fetcher, made one of this class when it is there."""

    takes_blocks_of: Callable[[str], bool]
    """Tells of a topic whether it is fetched so; others are fetched as ever."""
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
                by_block(fetched)
                result.getall = partial(self._blocks, tp)
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
            self._room -= len(block[0])
        return blocks


def by_block(fetched: PartitionRecords) -> None:
    """Let what was fetched of a partition, and not yet looked at, yield blocks."""
    fetched.__class__ = _Blocks
    fetched._records_iterator = fetched._unpack_records()  # noqa: SLF001


class _Blocks(PartitionRecords):  # type: ignore[misc]
    next_fetch_offset: int
    least = LEAST

    def _unpack_records(self) -> Iterator[Block]:
        block: Block = []
        while self._records.has_next():
            try:
                batch = self._records.next_batch()
                block += self._visible(batch)
            except Exception:
                if block:
                    yield block
                raise
            self.next_fetch_offset = batch.next_offset
            if len(block) >= self.least:
                yield block
                block = []
        if block:
            yield block

    def _visible(self, batch: Any) -> Block:
        """Return the records of a batch that are to be handed over."""
        if self._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {self._tp}")
        if self._is_hidden(batch):
            return []
        records = list(batch)
        if records and records[0].offset < self.next_fetch_offset:  # sought within it
            return [record for record in records if record.offset >= self.next_fetch_offset]
        return records

    def _is_hidden(self, batch: Any) -> bool:
        """Tell whether a batch is a mark, or of a transaction that was broken off."""
        if self._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)
