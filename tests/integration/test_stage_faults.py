"""An interest stage under what goes wrong between its tasks: erasing, flushing, parting."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError
from faust.types import TP
from live import shopping

from connectors.kafka import interest_stage, partitions
from connectors.kafka.changelog import Changelog
from connectors.kafka.erasures import Erasures, ask
from connectors.kafka.interest_stage import InterestStage
from connectors.kafka.live_settings import Worker
from connectors.kafka.partitions import Partition
from connectors.kafka.produce import click_records
from connectors.kafka.records import RecordBatch, Records
from connectors.kafka.restore import aside, open_state, state_path
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.transport import Span
from connectors.store import CorruptStoreError, Store, StoreError, state_key
from pipeline.prior import UNIFORM
from pipeline.settings import Settings

GONE = "user-3"
RECORDS = Records.of(
    [
        SimpleNamespace(offset=offset, timestamp=-1, key=key, value=value, headers=())
        for offset, (key, value) in enumerate(click_records(shopping(8, seed=3)))
    ]
)
ALL = len(RECORDS)


@pytest.fixture
def stage(kafka, tmp_path):
    """Hold what makes a stage of its own directory."""
    return lambda: InterestStage(Settings(), kafka, Worker(data=str(tmp_path / "data")))


async def begin(stage, kafka):
    await stage.begin(Span(kafka.clicks, 0, earliest=0, end=ALL, committed=0))


def partition_of(stage, kafka):
    return stage._partitions[TP(kafka.clicks, 0)]  # noqa: SLF001  to break it


async def read_all(stage, kafka):
    """Take the partition and all of its clicks; they are in memory, and not yet flushed."""
    await begin(stage, kafka)
    await stage.handle(RecordBatch(kafka.clicks, 0, RECORDS, ALL))


async def kept(kafka, user):
    """Return what the changelog bears of a user."""
    values = {}
    async for _, records in Changelog(kafka, 0).read(0):
        values |= {record.key: record.value for record in records}
    return values[state_key(user)]


@pytest.fixture
def held(monkeypatch):
    """Let a stage's flushes wait at the changelog while this is not set."""
    let = asyncio.Event()
    let.set()

    class Held(Changelog):
        async def write(self, items, messages):
            await let.wait()
            return await super().write(items, messages)

    monkeypatch.setattr(interest_stage, "Changelog", Held)
    return let


def test_a_store_left_behind_keeps_who_its_next_owner_is_to_erase(kafka, stage):
    """Asked while nobody has the partition: the user goes from the changelog once it has an owner.

    Were the user gone from the store alone, the owner would find nobody to write tombstones of.
    """

    async def story():
        former = stage()
        await read_all(former, kafka)
        await former.release({TP(kafka.clicks, 0)})
        assert await kept(kafka, GONE)
        await ask(kafka, GONE)
        await former.erase()
        await begin(former, kafka)
        await former.erase()
        await former.close()
        assert await kept(kafka, GONE) is None

    asyncio.run(story())


def test_a_store_left_behind_loses_who_its_owner_has_erased(kafka, stage, tmp_path):
    """The receipt says so, and is waited for."""
    elsewhere = InterestStage(Settings(), kafka, Worker(data=str(tmp_path / "elsewhere")))
    path = state_path(str(tmp_path / "data"), kafka.clicks, 0)

    def left():
        with Store(path, read_only=True) as store:
            return store.load([GONE, "user-4"])

    async def story():
        former = stage()
        await read_all(former, kafka)
        await former.release({TP(kafka.clicks, 0)})
        await ask(kafka, GONE)
        await former.erase()
        assert None not in left()
        await begin(elsewhere, kafka)
        await elsewhere.erase()
        await elsewhere.close()
        await former.erase()
        gone, other = left()
        assert (None, True) == (gone, other is not None)
        await former.close()

    asyncio.run(story())


def test_damaged_stores_are_deleted_when_somebody_is_to_be_erased(kafka, stage, tmp_path):
    """Of a partition that is here, and of one that is not; another topic's stay."""
    data = tmp_path / "data"
    mine = [aside(state_path(str(data), kafka.clicks, number)) for number in range(2)]
    other = aside(state_path(str(data), f"{kafka.clicks}-too", 0))
    for path in (*mine, other):
        path.mkdir(parents=True)

    async def story():
        here = stage()
        await read_all(here, kafka)
        await here.erase()
        assert [True] * 2 == [path.exists() for path in mine]
        await ask(kafka, GONE)
        await here.erase()
        assert ([False] * 2, True) == ([path.exists() for path in mine], other.exists())
        await here.close()

    asyncio.run(story())


def test_a_partition_that_breaks_while_it_erases_is_told(kafka, stage):
    """The error reaches the app, which it ends, and health until then."""

    async def story():
        here = stage()
        await read_all(here, kafka)
        partition_of(here, kafka).store.close()
        await ask(kafka, "nobody")
        with pytest.raises(StoreError):
            await here.erase()
        assert any(f"{kafka.clicks}/0" in told for told in here.sickness())
        await here.close()

    asyncio.run(story())


def test_who_waits_for_a_flush_that_is_broken_off_is_told(kafka, held, stage, monkeypatch):
    """A partition leaves amid a flush that does not end: erasing goes on with the others."""
    monkeypatch.setattr(interest_stage, "GRACE_SECONDS", 0.5)

    async def story():
        here = stage()
        await begin(here, kafka)
        held.clear()
        await here.handle(RecordBatch(kafka.clicks, 0, RECORDS, ALL))
        await partition_of(here, kafka).flush()
        await ask(kafka, GONE)
        erasing = asyncio.create_task(here.erase())
        await asyncio.sleep(2.0)
        assert not erasing.done()
        await here.release({TP(kafka.clicks, 0)})
        await erasing
        held.set()
        await here.close()

    asyncio.run(story())


def test_brokers_that_are_away_are_an_error_of_the_bus():
    """Whoever reads or claims a changelog meets no error of a client's."""
    changelog = Changelog(Kafka(bootstrap_servers=["127.0.0.1:9"]), 0)

    async def story():
        with pytest.raises(BusError):
            await changelog.span()
        with pytest.raises(BusError):
            await anext(changelog.read(0))
        with pytest.raises(BusError):
            await changelog.claim()

    asyncio.run(story())


class Stubborn(Changelog):
    """Does not let go of the brokers."""

    async def close(self):
        await super().close()
        raise KafkaError


async def opened(kafka, changelog, path):
    """Open a partition that has read all."""
    store, followed = await open_state(path, changelog)
    partition = Partition(
        f"{kafka.clicks}/0",
        Settings(),
        UNIFORM,
        store=store,
        changelog=changelog,
        followed=followed,
        erasures=Erasures(kafka),
        capacity=100,
    )
    partition.begin(Span(kafka.clicks, 0, earliest=0, end=ALL, committed=0))
    await partition.apply(RecordBatch(kafka.clicks, 0, RECORDS, ALL))
    return partition


def test_a_store_is_released_whatever_the_brokers_say(kafka, tmp_path):
    """Or nobody could open it again before the process ends."""

    async def story():
        changelog = Changelog(kafka, 0)
        partition = await opened(kafka, changelog, tmp_path / "store")
        changelog.__class__ = Stubborn
        with pytest.raises(KafkaError):
            await partition.close()
        Store(tmp_path / "store").close()

    asyncio.run(story())


def test_a_store_found_damaged_after_a_failed_write_is_not_waited_for(kafka, tmp_path, monkeypatch):
    """It is rebuilt from the changelog; to open it again and again would mend nothing."""
    monkeypatch.setattr(partitions, "PATIENCE", 0.1)

    def refuse(_items):
        (tmp_path / "store" / "CURRENT").write_text("nothing")
        raise StoreError("the disk fails")

    async def story():
        partition = await opened(kafka, Changelog(kafka, 0), tmp_path / "store")
        monkeypatch.setattr(partition.store, "write", refuse)
        await partition.flush()
        async with asyncio.timeout(20):
            with pytest.raises(CorruptStoreError):
                await partition.written()
        with pytest.raises(StoreError):
            await partition.close()

    asyncio.run(story())
