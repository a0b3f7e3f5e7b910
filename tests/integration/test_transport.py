"""What the record-batch transport promises, on a real broker and with real worker processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from kafka.admin import KafkaAdminClient
from workers import Workers

CODECS = [None, "gzip", "lz4", "snappy", "zstd"]


@pytest.fixture
def workers(bootstrap: str, admin: KafkaAdminClient, tmp_path: Path) -> Iterator[Workers]:
    group = f"group-{os.getpid()}-{tmp_path.name}"
    with Workers(admin, tmp_path, bootstrap_servers=[bootstrap], group=group) as workers:
        yield workers


def produce(bootstrap: str, topic: str, rows: dict[int, range], codec: str | None = None) -> None:
    """Send numbers to partitions of a topic, some twenty in a batch of the log."""

    async def send() -> None:
        client = AIOKafkaProducer(
            bootstrap_servers=bootstrap, compression_type=codec, max_batch_size=256
        )
        async with client as producer:
            for partition, numbers in rows.items():
                for number in numbers:
                    await producer.send(topic, str(number).encode(), partition=partition)

    asyncio.run(send())


def texts(numbers: range) -> list[str]:
    return [str(number) for number in numbers]


def test_every_codec_arrives_in_order_and_once(workers, bootstrap, topic):
    """Everything produced is delivered in order, once, with its offsets, in any compression."""
    topics = {codec: topic(partitions=2) for codec in CODECS}
    rows = {0: range(3000), 1: range(10_000, 12_000)}
    for codec, name in topics.items():
        produce(bootstrap, name, rows, codec)
    workers.start(*topics.values())
    ends = {partition: len(numbers) for partition, numbers in rows.items()}
    workers.wait(lambda: all(ends == workers.committed(t) for t in topics.values()), "committed")
    for name in topics.values():
        for partition, numbers in rows.items():
            assert texts(numbers) == workers.values(name, partition)
        batches = [batch for batch in workers.batches() if batch["topic"] == name]
        offsets = [at for b in batches if b["partition"] == 1 for at in b["offsets"]]
        assert list(range(2000)) == offsets


def test_a_stopped_worker_goes_on_where_it_was(workers, bootstrap, topic):
    """A worker stopped amid its work finishes its batch, commits it, and nothing is read twice."""
    name = topic(partitions=2)
    produce(bootstrap, name, {0: range(4000), 1: range(4000)})
    first = workers.start(name, seconds_per_batch=0.2, commit_interval=60)
    workers.wait(lambda: len(workers.batches()) >= 4, "first batches")
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) is not None
    read = [len(workers.values(name, partition)) for partition in (0, 1)]
    assert 0 < sum(read) < 8000
    expected = {p: count for p, count in enumerate(read) if count}
    workers.wait(lambda: expected == workers.committed(name), "the commit of what was read")
    workers.start(name)
    workers.wait(lambda: {0: 4000, 1: 4000} == workers.committed(name), "the rest")
    assert [texts(range(4000))] * 2 == [workers.values(name, partition) for partition in (0, 1)]


def test_kill_9_loses_nothing(workers, bootstrap, topic):
    """Of two workers one is killed: the other reads all, twice only what was not committed."""
    name = topic(partitions=4)
    rows = {partition: range(6000) for partition in range(4)}
    slow = {"seconds_per_batch": 0.05, "commit_interval": 0.3}
    killed = workers.start(name, **slow)
    workers.start(name, **slow)
    produce(bootstrap, name, rows)
    workers.wait(lambda: len(workers.batches()) >= 12, "first batches")
    killed.kill()
    ends = dict.fromkeys(range(4), 6000)
    workers.wait(lambda: ends == workers.committed(name), "all committed")
    for partition, numbers in rows.items():
        seen = Counter(workers.values(name, partition))
        assert set(texts(numbers)) == set(seen)
        assert 2 >= max(seen.values())
        assert 6 * 500 >= sum(seen.values()) - 6000


def test_a_joining_worker_repeats_nothing(workers, bootstrap, topic):
    """When a second worker joins, partitions move without one record being read twice."""
    name = topic(partitions=4)
    rows = {partition: range(6000) for partition in range(4)}
    produce(bootstrap, name, rows)
    workers.start(name, seconds_per_batch=0.1, commit_interval=60)
    workers.wait(lambda: len(workers.batches()) >= 4, "first batches")
    workers.start(name)
    workers.wait(lambda: 24_000 <= sum(len(b["values"]) for b in workers.batches()), "all read")
    for partition, numbers in rows.items():
        assert texts(numbers) == workers.values(name, partition)


def test_a_failing_batch_stops_the_worker_and_is_read_again(workers, bootstrap, topic):
    """What an agent failed on is never committed, however the stream was closed."""
    name = topic()
    produce(bootstrap, name, {0: range(5000)})
    failing = workers.start(name, fail_at="2600", commit_interval=0.1)
    assert failing.wait(30) != 0
    read = len(workers.values(name, 0))
    assert texts(range(read)) == workers.values(name, 0)
    assert 2600 > read
    assert read >= workers.committed(name).get(0, 0)
    workers.start(name)
    workers.wait(lambda: {0: 5000} == workers.committed(name), "committed after the mend")
    assert set(texts(range(5000))) == set(workers.values(name, 0))


def test_idle_and_new_partitions_do_not_hold_commits_up(workers, bootstrap, topic):
    """A partition with a single record, an empty one, and one that goes on are all committed."""
    name = topic(partitions=3)
    produce(bootstrap, name, {0: range(1), 2: range(100)})
    workers.start(name, commit_interval=0.2)
    workers.wait(lambda: {0: 1, 2: 100} == workers.committed(name), "first commits")
    produce(bootstrap, name, {2: range(100, 2000)})
    workers.wait(lambda: {0: 1, 2: 2000} == workers.committed(name), "later commits")
    produce(bootstrap, name, {0: range(1, 2), 1: range(1)})
    workers.wait(lambda: {0: 2, 1: 1, 2: 2000} == workers.committed(name), "late partitions")
    assert texts(range(2000)) == workers.values(name, 2)


@pytest.mark.parametrize("idle", [True, False])
def test_full_buffers_do_not_make_the_agent_wait(workers, bootstrap, topic, idle):
    """Where batches wait in full buffers, the agent has work nearly all the time.

    With a topic beside them on which nothing comes, the consumer asks for that one alone meanwhile.
    """
    name = topic(partitions=2)
    produce(bootstrap, name, {0: range(600), 1: range(600)})
    more = [topic()] if idle else []
    workers.start(name, *more, records=20, seconds_per_batch=0.05)
    workers.wait(lambda: {0: 600, 1: 600} == workers.committed(name), "all read")
    batches = workers.batches()
    assert 20 < len(batches)
    worked = sum(batch["ended"] - batch["began"] for batch in batches)
    assert 1.5 > (batches[-1]["ended"] - batches[0]["began"]) / worked


def test_an_app_that_hangs_while_it_stops_is_ended(tmp_path):
    """A crash is the end, also where Faust would wait for ever."""
    story = f"""
import asyncio, pathlib
from connectors.kafka import transport
from connectors.kafka.settings import Kafka

async def hang():
    app = transport.batch_app(Kafka(), datadir=pathlib.Path({str(tmp_path)!r}))
    await app.crash(RuntimeError("the reason"))
    await asyncio.sleep(60)

transport.CRASH_SECONDS = 0.5
asyncio.run(hang())
"""
    command = [sys.executable, "-c", story]
    assert 1 == subprocess.run(command, timeout=50, check=False).returncode


def test_records_do_not_set_the_collector_off(tmp_path):
    """A fetch makes some 50,000 objects at once; they are not searched for cycles meanwhile."""
    story = f"""
import gc, pathlib
from connectors.kafka import transport
from connectors.kafka.settings import Kafka

transport.batch_app(Kafka(), datadir=pathlib.Path({str(tmp_path)!r}))
gc.collect()
looked = []
gc.callbacks.append(lambda phase, info: looked.append(phase))
fetched = [[number] for number in range(50_000)]
raise SystemExit(len(looked))
"""
    command = [sys.executable, "-c", story]
    assert 0 == subprocess.run(command, timeout=50, check=False).returncode
