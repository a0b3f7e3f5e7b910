"""States come back from the bus, whatever is on the disk; and only one worker writes them."""

import asyncio
import re
import shutil
import time
from collections import Counter

import msgspec
import pytest
from aiokafka.partitioner import DefaultPartitioner
from live import Live, Offline, shopping

from connectors.kafka.changelog import Changelog, FencedError
from connectors.kafka.interest_stage import InterestStage
from connectors.kafka.live_settings import Worker
from connectors.kafka.messages import PROFILES, Message
from connectors.kafka.partitions import Stamp
from connectors.kafka.reading import TopicReader
from connectors.kafka.restore import state_path
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.topics import check, create
from connectors.kafka.transport import Span
from connectors.store import Store
from pipeline.engine import Engine
from pipeline.settings import Duration, Settings

KEYS = [(b"s%d" % n, b"state %d" % n) for n in range(20_000)]


async def content(log, start=0):
    """Return what a changelog bears, and the offset behind it."""
    steps = [step async for step in log.read(start)]
    return [(record.key, record.value) for _, records in steps for record in records], steps[-1][0]


def endless(over):
    """Give a flush that is on its way, piece by piece, until `over` is set."""
    while not over.is_set():
        time.sleep(0.001)
        yield b"sa", b"unfinished" * 2000


def run(coroutine):
    return asyncio.run(coroutine)


def test_a_flush_is_read_as_it_was_written(kafka):
    """All keys come back in order; reading goes on behind them, over the ends of transactions."""

    async def story():
        log = Changelog(kafka, 1)
        await log.claim()
        assert ([], 0) == await content(log)
        end = await log.write(KEYS, [])
        assert KEYS == (await content(log))[0]
        await log.write([(b"sx", None)], [])
        assert [(b"sx", None)] == (await content(log, end))[0]
        _, behind = await content(log, end)
        assert ([], behind) == await content(log, behind)
        await log.close()

    run(story())


def test_messages_of_a_flush_go_where_their_keys_belong(kafka):
    """In the partitions that Java's clients choose, in order and whole, over several batches."""
    sent = [
        Message(PROFILES, b"user-%d" % (n % 500), b"%d" % n + b"." * 400, [("n", b"%d" % n)])
        for n in range(8_000)
    ]

    async def story():
        log = Changelog(kafka, 0)
        await log.claim()
        await log.write(KEYS[:10], sent)
        assert KEYS[:10] == (await content(log))[0]
        await log.close()

    run(story())
    with TopicReader(kafka, kafka.topic_prefix + PROFILES) as reader:
        read = {number: list(reader.records(number)) for number in reader.partitions}
    choose = DefaultPartitioner()
    for number, records in read.items():
        here = [m for m in sent if choose(m.key, sorted(read), []) == number]
        assert [(m.key, m.value, tuple(m.headers)) for m in here] == [
            (record.key, record.value, tuple(record.headers)) for record in records
        ]


def test_who_has_been_taken_over_writes_no_more(kafka):
    """A claim ends the unfinished flush of the owner before, who is told at its next one."""

    async def story():
        first, second = Changelog(kafka, 0), Changelog(kafka, 0)
        await first.claim()
        await first.write([(b"sa", b"1")], [])
        over = asyncio.Event()
        unfinished = asyncio.create_task(first.write(endless(over), []))
        await asyncio.sleep(0.3)
        await second.claim()
        over.set()
        with pytest.raises(FencedError, match="taken over"):
            await unfinished
        assert [(b"sa", b"1")] == (await content(second))[0]
        await second.write([(b"sa", b"3")], [])
        assert [(b"sa", b"1"), (b"sa", b"3")] == (await content(second))[0]
        await first.claim()
        with pytest.raises(FencedError, match="taken over"):
            await second.write([(b"sa", b"4")], [])
        await first.close()
        await second.close()

    run(story())


def test_the_changelog_has_the_partitions_of_the_clicks(admin, bootstrap, tmp_path):
    """It is made like a click topic that was there before; a difference is told."""
    kafka = Kafka(
        bootstrap_servers=[bootstrap], topic_prefix=f"{tmp_path.name}.", partitions=2, replication=1
    )
    clicks = {"num_partitions": 3, "replication_factor": 1}
    admin.create_topics({f"{tmp_path.name}.clicks": clicks}, wait_for_metadata=True)
    create(kafka)
    assert [] == check(kafka)
    admin.create_partitions({f"{tmp_path.name}.clicks": 4})
    [told] = [difference for difference in check(kafka) if "changelog" in difference]
    assert "as many partitions as the click topic, 4" in told


class Story:
    """A worker that has read a part of the clicks and has stopped; then another has the rest."""

    def __init__(self, live, batch):
        self.live = live
        self._rest = batch.take(slice(len(batch) * 6 // 10, None))
        live.produce(batch.take(slice(len(batch) * 6 // 10)))  # some have drifted by then
        live.start()
        live.wait_read()
        live.stop()
        self.told = self._alerts()

    def goes_on(self):
        """Have the rest read, and compare everything with what should be."""
        live = self.live
        live.start()
        live.produce(self._rest)
        live.wait_read()
        live.stop()
        offline = Offline(live)
        told = self._alerts()
        assert 0 < self.told.total() < told.total()
        assert {1} == set(told.values())
        assert offline.alerts == live.alerts(of_users=True)
        assert offline.profiles == live.profiles()
        assert offline.states == live.states()

    def _alerts(self):
        return Counter(r.value for r in self.live.records("interest-drift"))


@pytest.fixture
def story(bootstrap, admin, tmp_path):
    with Live(bootstrap, admin, tmp_path) as live:
        yield Story(live, shopping(40, seed=3))


def stores(home):
    return sorted(path for path in (home / "data").glob("*clicks-*") if path.is_dir())


def test_an_empty_disk_is_restored_from_the_changelog(story, tmp_path):
    """Nothing is read again but the states, nothing is said twice, and it goes on."""
    shutil.rmtree(tmp_path / "data")
    story.goes_on()
    assert not re.search(r"clicks/\d: rebuilding", story.live.logs())
    assert "-changelog/0 in" in story.live.logs()


def test_a_disk_that_was_away_catches_up(story, tmp_path):
    """A store that is behind its changelog takes over what others wrote."""
    shutil.copytree(tmp_path / "data", tmp_path / "old")
    story.goes_on()
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "old").rename(tmp_path / "data")
    story.live.start()
    story.live.wait(lambda: story.live.logs().count("Worker ready") == 3, "third worker")
    story.live.stop()
    assert Offline(story.live).states == story.live.states()


def test_a_lost_changelog_begins_with_the_states_on_the_disk(story, tmp_path):
    """It is whole again, so that the disk may then be lost, too."""
    changelog = f"{story.live.name}-changelog"
    story.live.remake(changelog)
    story.live.start()
    story.live.wait(
        lambda: 4 == len({record.partition for record in story.live.records(changelog)}), "seeded"
    )
    assert 4 == story.live.logs().count("begins with the states")
    story.live.stop()
    shutil.rmtree(tmp_path / "data")
    story.goes_on()
    assert not re.search(r"clicks/\d: rebuilding", story.live.logs())


def test_without_changelog_and_disk_the_clicks_are_read_again(story, tmp_path):
    """What was published before the committed offsets is not published again."""
    story.live.remake(f"{story.live.name}-changelog")
    shutil.rmtree(tmp_path / "data")
    story.goes_on()
    assert "rebuilding the state from offset 0" in story.live.logs()


def test_a_damaged_store_is_repaired_from_the_changelog(story, tmp_path):
    """A flipped bit is noticed, told, and mended."""
    damaged = stores(tmp_path)[0]
    with Store(damaged) as store:
        store.compact()
    for file in damaged.glob("*.sst"):
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 1
        file.write_bytes(content)
    story.live.start()
    story.live.produce(shopping(40, days=1, seed=9))
    story.live.wait(lambda: "rebuilt from the bus" in story.live.logs(), "repaired")
    story.live.stop()
    story.goes_on()


def test_a_worker_whose_partition_was_claimed_gives_it_up(story):
    """It writes nothing more, says so, and ends where no assignment takes the partition from it."""

    async def claim():
        log = Changelog(story.live.kafka, 0)
        await log.claim()
        await log.close()

    worker = story.live.start()
    story.live.wait(lambda: story.live.logs().count("Worker ready") == 2, "second worker")
    run(claim())
    story.live.produce(shopping(40, days=1, seed=9))
    assert worker.wait(60) != 0
    assert "clicks/0 is not touched any more: another worker has taken over" in story.live.logs()
    story.goes_on()


def test_a_state_that_is_ahead_of_a_worker_that_slept_is_let_go(kafka, tmp_path):
    """Others have read further than where the topic ended then: the store can be opened again.

    In between it is a copy, as those of all partitions that are elsewhere.
    """
    worker = Worker(data=str(tmp_path), session_timeout=Duration(300))
    with Store(state_path(worker.data, kafka.clicks, 0)) as store:
        stamp = msgspec.msgpack.encode(Stamp(next=5))
        store.commit(Engine(Settings()).changes(), {"stamp": stamp})

    async def story():
        stage = InterestStage(Settings(), kafka, worker)
        with pytest.raises(BusError, match="up to offset 5, but that ends at 3"):
            await stage.begin(Span(kafka.clicks, 0, earliest=0, end=3, committed=0))
        async with asyncio.timeout(30):
            while not stage.standby.behind():
                await stage.standby.follow()
        assert 5 == await stage.begin(Span(kafka.clicks, 0, earliest=0, end=9, committed=0))
        await stage.close()

    run(story())
