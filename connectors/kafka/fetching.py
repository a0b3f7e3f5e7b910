"""Fetches records by the block, a batch of the log as its producer made it.

The client looks at every record by itself and makes an object of eleven fields of it, which takes
longer than to parse it. It still sees to checksums, transactions and where to go on, as it does
with single records: it takes a block for one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords

from connectors.kafka.records import Record


class Block(list[Record]):
    """Records as the client's parser has them; in the client's eyes one, at the last offset."""

    @property
    def offset(self) -> int:
        """The offset of the last record."""
        return self[-1].offset


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
            if type(result) is FetchResult and self.takes_blocks_of(tp.topic):
                by_block(result._partition_records)  # noqa: SLF001  made deep inside
                result.getall = partial(self._blocks, result)
        return has_news

    def _blocks(self, result: FetchResult, _: int | None) -> list[Block]:
        """Return as many blocks as there is room for; the client would count each as a record."""
        blocks: list[Block] = []
        while self._room > 0 and (block := FetchResult.getall(result, 1)):
            blocks += block
            self._room -= len(block[0])
        return blocks


def by_block(fetched: PartitionRecords) -> None:
    """Let what was fetched of a partition, and not yet looked at, yield blocks."""
    if type(fetched) is PartitionRecords:
        fetched.__class__ = _Blocks
        fetched._records = _Batches(fetched._records)  # noqa: SLF001


class _Blocks(PartitionRecords):  # type: ignore[misc]
    def _consumer_record(self, _: Any, block: Block) -> Block:
        start = self.next_fetch_offset  # it may be within the first block
        if block[0].offset >= start:
            return block
        return Block(record for record in block if record.offset >= start)


class _Batches:
    """The batches that a fetch brought, each as one."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.has_next = records.has_next

    def next_batch(self) -> _AsOne:
        return _AsOne(self._records.next_batch())


class _AsOne:
    """A batch of the log whose one record is the block of all that it has."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:  # the mark that ends a transaction
        return next(self._batch)

    def __iter__(self) -> Iterator[Block]:
        block = Block(self._batch)
        if block:
            yield block
