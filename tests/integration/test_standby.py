"""Copies of other workers' partitions: as true as what they copy, and a move is then cheap."""

import asyncio
import re
import shutil
import time
import urllib.request

import pytest
from aiokafka import AIOKafkaProducer
from live import PARTITIONS, Live, Offline, shopping
from test_erasure import GONE, erase, of, receipts
from test_outages import free_port

from connectors.kafka.changelog import Changelog
from connectors.kafka.erasures import ask
from connectors.kafka.restore import LOG, open_state
from connectors.kafka.settings import Kafka
from connectors.kafka.standby import Standby, hold
from connectors.kafka.topics import changelog_name, create
from connectors.store import Store, meta_key
from pipeline.settings import SettingsError


@pytest.fixture
def kafka(bootstrap, tmp_path):
    """Hold the settings of a group of its own, its topics made."""
    kafka = Kafka(
        bootstrap_servers=[bootstrap],
        topic_prefix=f"{tmp_path.name}-{time.time_ns()}.",
        partitions=1,
        replication=1,
    )
    create(kafka)
    return kafka


def flush(*users, stamp, value=b"state", number=b"1"):
    """Return what a flush writes: states, progress, and how far it has come, last."""
    states = [(b"s%d" % user, value) for user in users]
    return [
        *states,
        (b"mprogress", b"\x80"),
        (meta_key(LOG), number),
        (meta_key("stamp"), b"%d" % stamp),
    ]


async def level(standby, seconds=30):
    """Follow until nothing is left to read."""
    until = time.monotonic() + seconds
    while [0] != list(standby.behind().values()):
        assert time.monotonic() < until, standby.behind()
        await standby.follow()
    await standby.follow()


def copied(data):
    path = next(data.glob("*clicks-0"))
    with Store(path, read_only=True) as store:
        return dict(store.replicated())


class Owner:
    """Who has the partition, and writes its changelog."""

    def __init__(self, kafka):
        self.log = Changelog(kafka, 0)

    async def __aenter__(self):
        await self.log.claim()
        return self.log

    async def __aexit__(self, *_):
        await self.log.close()


def test_a_copy_is_what_the_changelog_bears(kafka, tmp_path, caplog):
    """With what was deleted gone, over a restart, and when it is opened as the owner's."""
    caplog.set_level("INFO")

    async def story():
        async with Owner(kafka) as log:
            await log.write(flush(*range(5000), stamp=1), [])
            standby = Standby(kafka, str(tmp_path), quiet=0)
            await level(standby)
            assert dict(flush(*range(5000), stamp=1)) == copied(tmp_path)
            await log.write([(b"s7", None), *flush(8, stamp=2, value=b"new")], [])
            await level(standby)
            expected = dict(flush(*range(5000), stamp=2)) | {b"s8": b"new"}
            del expected[b"s7"]
            assert expected == copied(tmp_path)
            await standby.close()
            last = await log.write(flush(9, stamp=3, value=b"newer"), [])
            again = Standby(kafka, str(tmp_path), quiet=0)
            await level(again)
            began = [int(offset) for offset in re.findall(r"from offset (\d+) on", caplog.text)]
            assert [0, last - 5] == began  # four keys, and the mark at the end of a transaction
            await again.let_go(0)
            [path] = tmp_path.glob("*clicks-0")
            store, followed = await open_state(path, log)
            with store:
                newer = expected | dict(flush(9, stamp=3, value=b"newer"))
                assert newer == dict(store.replicated())
            assert ("1", last + 1) == (followed.log, followed.next)
            store, _ = await open_state(tmp_path / "without a copy", log)
            with store:
                assert newer == dict(store.replicated())
            assert [5012] == [int(n) for n in re.findall(r"(\d+) records from", caplog.text)]
            for _ in range(3):
                assert {} == again.behind()
                await again.follow()
            again.may_have(0)
            await level(again)
            await again.close()

    asyncio.run(story())


def test_a_copy_does_not_see_what_was_not_committed(kafka, tmp_path):
    """Neither an open transaction nor one that the next owner has ended; and it fences nobody."""

    async def story():
        async with Owner(kafka) as log:
            await log.write(flush(1, stamp=1), [])
        standby = Standby(kafka, str(tmp_path), quiet=0)
        await level(standby)
        servers, topic = kafka.bootstrap_servers, changelog_name(kafka)
        dying = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=log.name)
        async with dying:
            await dying.begin_transaction()
            await dying.send_and_wait(topic, b"never committed", b"s1", partition=0)
            for _ in range(4):
                await standby.follow()
            assert dict(flush(1, stamp=1)) == copied(tmp_path)
            assert [1] == list(standby.behind().values())
            async with Owner(kafka) as other:
                await level(standby)
                assert dict(flush(1, stamp=1)) == copied(tmp_path)
                await other.write(flush(2, stamp=2), [])
                await level(standby)
                assert dict(flush(1, 2, stamp=2)) == copied(tmp_path)
                await other.write(flush(3, stamp=3), [])
            await standby.close()

    asyncio.run(story())


def test_another_changelog_of_the_same_name_gives_another_copy(kafka, admin, tmp_path, caplog):
    """The topic was made anew, and has more records by now than the copy had read."""
    caplog.set_level("INFO")

    async def story():
        async with Owner(kafka) as log:
            await log.write(flush(1, 2, stamp=1), [])
            standby = Standby(kafka, str(tmp_path), quiet=0)
            await level(standby)
            await standby.close()
        await asyncio.to_thread(remake)
        async with Owner(kafka) as log:
            await log.write(flush(*range(10, 30), stamp=1, number=b"2"), [])
            standby = Standby(kafka, str(tmp_path), quiet=0)
            await level(standby)
            assert "was made anew" in caplog.text
            await level(standby)
            assert dict(flush(*range(10, 30), stamp=1, number=b"2")) == copied(tmp_path)
            await standby.close()

    def remake():
        topic = changelog_name(kafka)
        admin.delete_topics([topic])
        while topic in admin.list_topics():
            time.sleep(0.1)
        create(kafka)

    asyncio.run(story())


def cut(path):
    """Damage what RocksDB reads as it opens."""
    [manifest] = path.glob("MANIFEST-*")
    manifest.write_bytes(manifest.read_bytes()[:-3] + b"???")


def flip(path):
    """Damage what it reads later."""
    for file in path.glob("*.sst"):
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 1
        file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("moves", [False, True])
def test_a_damaged_copy_is_made_anew(kafka, tmp_path, caplog, damage, moves):
    """Followed or taken over: and the log says so."""

    async def story():
        async with Owner(kafka) as log:
            await log.write(flush(*range(100), stamp=1), [])
            standby = Standby(kafka, str(tmp_path), quiet=0)
            await level(standby)
            await standby.close()
            [path] = tmp_path.glob("*clicks-0")
            damage(path)
            if moves:
                store, _ = await open_state(path, log)
                store.close()
            else:
                standby = Standby(kafka, str(tmp_path), quiet=0)
                await level(standby)
                await standby.close()
            assert "it is rebuilt from the bus" in caplog.text
            assert dict(flush(*range(100), stamp=1)) == copied(tmp_path)

    asyncio.run(story())


def test_a_part_of_a_copy_counts_for_nothing(kafka, tmp_path):
    """Where its changelog is not known yet it is made anew, not gone on with."""

    async def story():
        async with Owner(kafka) as log:
            await log.write([(b"s%d" % n, b"state") for n in range(100)], [])
            standby = Standby(kafka, str(tmp_path), quiet=0)
            await level(standby)
            await standby.close()
            assert 100 == len(copied(tmp_path))
            await log.write([(b"s1", None), *flush(200, stamp=1)], [])
            [path] = tmp_path.glob("*clicks-0")
            with Store(path) as store:
                store.write([(b"sleft", b"of a user whose tombstone is compacted away")])
            store, _ = await open_state(path, log)
            with store:
                assert 103 == len(dict(store.replicated()))
                assert [None, None] == store.load(["1", "left"])

    asyncio.run(story())


def test_copies_need_a_directory_of_their_own(tmp_path):
    """Two workers without may share one; a worker with copies may not."""
    shared = hold(tmp_path, alone=False)
    with pytest.raises(SettingsError, match="in use by another worker"):
        hold(tmp_path, alone=True)
    shared.close()
    alone = hold.__wrapped__(tmp_path, alone=True)
    with pytest.raises(SettingsError, match="a directory of its own"):
        hold.__wrapped__(tmp_path, alone=False)
    alone.close()


class Ports:
    """Asks workers how far their copies are behind."""

    def __init__(self):
        self.port = free_port()

    def behind(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
                told = answer.read().decode()
        except OSError:
            return {}
        found = re.findall(r'driftline_standby_lag\{source=".*/(\d)"\} (\d+)', told)
        return {int(number): int(records) for number, records in found}


def restored(log):
    """Return how many changelog records a worker has read to open its states."""
    return sum(int(n) for n in re.findall(r"clicks-\d: (\d+) records from", log.read_text()))


def test_a_move_to_a_worker_with_copies_is_cheap(bootstrap, admin, tmp_path):
    """Killed amid its work, the owner leaves little of its changelogs to read, and all is right."""
    batch = shopping(40, seed=3)
    ports = Ports()
    with Live(bootstrap, admin, tmp_path) as live:
        live.produce(batch.take(slice(len(batch) * 3 // 4)))
        live.start("copies", standby=True, metrics_port=ports.port)
        owner = live.start("owner")
        live.wait(lambda: [0, 0] == list(ports.behind().values()), "copies level")
        live.wait_read()
        live.wait(lambda: [0, 0] == list(ports.behind().values()), "copies level again")
        moving = set(ports.behind())
        before = restored(tmp_path / "log-0")
        records = live.records(f"{live.name}-changelog")
        live.produce(batch.take(slice(len(batch) * 3 // 4, None)))
        owner.kill()
        owner.wait()
        live.wait_read()
        assert {} == ports.behind()
        live.stop()
        there = sum(record.partition in moving for record in records)
        assert restored(tmp_path / "log-0") - before < there
        offline = Offline(live)
        assert offline.alerts == live.alerts(of_users=True)
        assert offline.states == live.states()


def test_partitions_go_to_and_fro_between_copies(bootstrap, admin, tmp_path):
    """Killed, stopped and wiped in turn while both follow: all is as in one that ran through."""
    batch = shopping(40, seed=4)
    ports = {"one": Ports(), "other": Ports()}
    with Live(bootstrap, admin, tmp_path) as live:
        workers = {}

        def start(name):
            workers[name] = live.start(name, standby=True, metrics_port=ports[name].port, batch=100)

        def ends(name, signal):
            getattr(workers[name], signal)()
            workers[name].wait(40)

        steps = [("one", "kill"), ("other", "terminate"), ("one", "kill")]
        start("one")
        start("other")
        share = len(batch) // len(steps)
        for number, (name, signal) in enumerate(steps):
            live.produce(batch.take(slice(number * share, (number + 1) * share)))
            live.wait(lambda name=name: 2 == len(ports[name].behind()), "copies")
            ends(name, signal)
            if number == 2:
                shutil.rmtree(tmp_path / name)
            start(name)
        live.produce(batch.take(slice(len(steps) * share, None)))
        live.wait_read()
        live.stop()
        assert re.search(r"is a copy: it follows .* from offset [1-9]", live.logs())
        offline = Offline(live)
        assert len(offline.alerts) > 10
        assert offline.alerts == live.alerts(of_users=True)
        assert offline.category_alerts == live.alerts(of_users=False)
        assert offline.states == live.states()
        assert PARTITIONS == len(offline.states)


def test_an_erased_user_leaves_the_copies(bootstrap, admin, tmp_path):
    """By the owner's tombstone; a state that is there since is that of a user who came back."""
    batch = shopping(8, days=6, seed=5)
    with Live(bootstrap, admin, tmp_path) as live:
        live.produce(batch)
        ports = Ports()
        live.start("copies", standby=True, metrics_port=ports.port)
        live.start("owner")
        live.wait_read()
        live.wait(lambda: [0, 0] == list(ports.behind().values()), "copies level")
        asyncio.run(ask(live.kafka, GONE))
        live.wait(lambda: PARTITIONS == len(receipts(live)), "receipts of all partitions")
        live.wait(lambda: 0 == erase(live, "--verify")[0], "clean copies")
        live.produce(of(GONE, batch))
        live.wait_read()
        live.wait(lambda: [0, 0] == list(ports.behind().values()), "copies level again")
        live.stop()
        states = live.states()
        for path in (tmp_path / "copies").glob("*clicks-*"):
            with Store(path) as store:
                assert states[int(path.name[-1])][2] == dict(store.states())
        assert len(set(of(GONE, batch).event_id.tolist())) == live.interests()[GONE].events
