"""The trends stage and its store: other settings, damage, and partitions that fall silent."""

import asyncio
import logging
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka import TopicPartition

from connectors.kafka import trend_stage
from connectors.kafka.publisher import Publisher
from connectors.kafka.records import RecordBatch, Records
from connectors.kafka.restore import aside, state_path
from connectors.kafka.settings import Kafka
from connectors.kafka.transport import Span
from connectors.kafka.trend_stage import TrendProgress, TrendStage
from connectors.store import CorruptStoreError, Store, unpack
from connectors.wire import encode_rollup
from pipeline.engine import Changes
from pipeline.rollups import Rollup
from pipeline.settings import Settings, from_toml
from pipeline.volume import WEEK

DAY = WEEK // 7
TOPIC = "category-rollups"
DAILY = from_toml('[trends]\nwindow = "1d"\n')


def rollup(source, number, size=WEEK):
    return Rollup(
        start=number * size,
        end=(number + 1) * size,
        counts={"a": 100},
        source=f"clicks/{source}",
        position=number,
    )


def batch(rollups, first=0):
    records = [
        SimpleNamespace(offset=at, timestamp=0, key=b"", headers=(), value=encode_rollup(rollup))
        for at, rollup in enumerate(rollups, first)
    ]
    return RecordBatch(TOPIC, 0, Records.of(records), first + len(records))


@pytest.fixture
def path(tmp_path):
    return state_path(str(tmp_path), TOPIC, 0)


@pytest.fixture
def bus(monkeypatch):
    """Hold the partitions that there are, and those that have fallen silent; nothing is sent."""
    bus = SimpleNamespace(partitions=1, silent=set())

    async def sources(_):
        return {f"clicks/{n}": TopicPartition("clicks", n) for n in range(bus.partitions)}

    async def silent(*_):
        return bus.silent

    async def publish(*_):
        pass

    monkeypatch.setattr(TrendStage, "_sources", sources)
    monkeypatch.setattr(TrendStage, "_silent", silent)
    monkeypatch.setattr(Publisher, "publish", publish)
    monkeypatch.setattr(trend_stage, "PATIENCE", 0.0)
    return bus


@pytest.fixture
def stage(bus, tmp_path):  # noqa: ARG001  what it needs around it
    """Hold what makes a stage of its own directory."""
    return lambda settings=None: TrendStage(settings or Settings(), Kafka(), tmp_path)


async def begun(stage, end=100):
    """Return a stage that has begun, and the offset that it reads on from."""
    return stage, await stage.begin(Span(TOPIC, 0, earliest=0, end=end, committed=0))


def kept(path):
    """Return what the store of a closed stage has."""
    with Store(path, read_only=True) as store:
        return unpack(store.progress(), TrendProgress, str(path))


def test_a_store_of_other_settings_begins_anew(stage, path, caplog):
    """With a warning, from the first rollup; only those of the new length are judged."""

    async def story():
        weekly, start = await begun(stage())
        assert 0 == start
        weeks = [rollup(0, number) for number in range(10)]
        await weekly.handle(batch(weeks))
        await weekly.close()
        assert (10, 10) == (kept(path).stamp.next, kept(path).trends.forecast.volume.windows)
        daily, start = await begun(stage(DAILY))
        assert 0 == start
        between = msgspec.structs.replace(rollup(0, 70, DAY), start=70 * DAY + 1, end=71 * DAY + 1)
        await daily.handle(batch([*weeks, between, rollup(0, 71, DAY)]))
        await daily.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert "trends begin anew" in caplog.text
    assert 12 == kept(path).stamp.next
    assert 71 * DAY == kept(path).trends.newest
    assert 1 == kept(path).trends.forecast.volume.windows


def test_a_store_that_does_not_say_its_settings_begins_anew(stage, path, caplog):
    """As of a version before, which kept none."""
    path.mkdir()
    with Store(path) as store:
        old = {"stamp": {"next": 7}, "merge": {}, "trends": {}}
        progress = msgspec.msgpack.encode(old)
        store.commit(Changes(states=[], names={}, progress=progress), {})

    async def story():
        begins, start = await begun(stage())
        await begins.close()
        return start

    assert 0 == asyncio.run(story())
    assert "trends begin anew" in caplog.text


def test_a_damaged_store_is_set_aside_and_begun_anew(stage, path):
    """The rollups stay on the bus: all of it is made of them once more."""

    async def story():
        first, _ = await begun(stage())
        await first.handle(batch([rollup(0, 0)]))
        await first.close()
        for manifest in path.glob("MANIFEST*"):
            data = bytearray(manifest.read_bytes())
            data[len(data) // 2] ^= 0xFF
            manifest.write_bytes(data)
        second, start = await begun(stage())
        await second.close()
        return start

    assert 0 == asyncio.run(story())
    assert aside(path).exists()


def test_damage_met_in_writing_loses_nothing(stage, path, monkeypatch):
    """What the stage knows goes to a store in the place of the damaged one."""

    async def story():
        stands, _ = await begun(stage())
        commit, errors = Store.commit, [CorruptStoreError("a checksum is wrong")]

        def damaged(store, *args):
            if errors:
                raise errors.pop()
            commit(store, *args)

        monkeypatch.setattr(Store, "commit", damaged)
        await stands.handle(batch([rollup(0, 0), rollup(0, 1)]))
        await stands.close()

    asyncio.run(story())
    assert aside(path).exists()
    assert 2 == kept(path).trends.forecast.volume.windows


def test_windows_wait_for_a_silent_partition_until_it_is_known_to_be_so(stage, bus, path):
    """Its last clicks are committed after the last rollup has come, and no other one comes."""
    bus.partitions = 2

    async def story():
        waits, _ = await begun(stage())
        await waits.handle(batch([rollup(1, 0), *(rollup(0, number) for number in range(10))]))
        await waits.look_again()
        before = kept(path).trends.newest
        bus.silent = {"clicks/1"}
        await waits.look_again()
        await waits.close()
        return before, kept(path).trends.newest

    assert (0, 6 * WEEK) == asyncio.run(story())
