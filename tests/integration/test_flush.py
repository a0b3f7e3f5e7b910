"""A flush is written while further batches are applied."""

import asyncio
from types import SimpleNamespace

import pytest
from live import shopping

from connectors.kafka.changelog import Changelog, FencedError
from connectors.kafka.decoding import decode_records
from connectors.kafka.erasures import Erasures
from connectors.kafka.partitions import Partition
from connectors.kafka.produce import click_records
from connectors.kafka.records import RecordBatch, Records
from connectors.kafka.restore import open_state
from connectors.kafka.transport import Span
from pipeline.engine import Engine
from pipeline.prior import UNIFORM
from pipeline.settings import Settings

SETTINGS = Settings()
RECORDS = Records.of(
    [
        SimpleNamespace(offset=offset, timestamp=-1, key=key, value=value, headers=())
        for offset, (key, value) in enumerate(click_records(shopping(40, seed=3)))
    ]
)
HALF, ALL = len(RECORDS) // 2, len(RECORDS)


class HeldChangelog(Changelog):
    """Takes a flush when it is let."""

    def __init__(self, kafka, partition):
        super().__init__(kafka, partition)
        self.let = asyncio.Event()

    async def write(self, items, messages):
        await self.let.wait()
        return await super().write(items, messages)


async def opened(kafka, changelog, path):
    """Open a partition that keeps next to no states in memory."""
    store, followed = await open_state(path, changelog)
    partition = Partition(
        f"{kafka.clicks}/0",
        SETTINGS,
        UNIFORM,
        store=store,
        changelog=changelog,
        followed=followed,
        erasures=Erasures(kafka),
        capacity=1,
    )
    partition.begin(Span(kafka.clicks, 0, earliest=0, end=ALL, committed=0))
    return partition


async def apply(partition, kafka, start, end):
    await partition.apply(RecordBatch(kafka.clicks, 0, RECORDS.slice(start, end), ALL))


def test_states_are_read_from_the_flush_that_has_them(kafka, tmp_path):
    """Users who left memory with a flush go on from it, though the store has not got it yet."""

    async def story():
        changelog = HeldChangelog(kafka, 0)
        changelog.let.set()
        partition = await opened(kafka, changelog, tmp_path / "store")
        changelog.let.clear()
        await apply(partition, kafka, 0, HALF)
        await partition.flush()
        await apply(partition, kafka, HALF, ALL)
        assert {} == dict(partition.store.states())
        assert 0 == partition.durable
        changelog.let.set()
        await partition.flush()
        await partition.written()
        assert ALL == partition.durable
        states = dict(partition.store.states())
        await partition.close()
        return states

    engine = Engine(SETTINGS)
    clicks, rejects = decode_records(RECORDS, f"{kafka.clicks}/0", SETTINGS.source)
    assert [] == rejects
    engine.process(clicks)
    assert dict(engine.changes().states) == asyncio.run(story())


def test_a_flush_that_fails_is_told_to_who_asks_next(kafka, tmp_path):
    """What it had is not durable."""

    async def story():
        changelog, other = HeldChangelog(kafka, 0), Changelog(kafka, 0)
        changelog.let.set()
        partition = await opened(kafka, changelog, tmp_path / "store")
        changelog.let.clear()
        await apply(partition, kafka, 0, HALF)
        await partition.flush()
        await partition.written(wait=False)
        await other.claim()
        changelog.let.set()
        with pytest.raises(FencedError, match="taken over"):
            await partition.written()
        assert 0 == partition.durable
        await other.close()
        await partition.close()

    asyncio.run(story())
