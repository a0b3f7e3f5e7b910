"""Clicks that come in transactions: what was aborted does not count, and marks are no clicks."""

import asyncio
import json

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from workers import Workers

from connectors.kafka import erasures
from connectors.kafka.bus_replay import bus_batches
from connectors.kafka.consumer import Consumer
from connectors.kafka.erasures import ask
from connectors.kafka.records import RecordBatch, Records
from connectors.kafka.rekey import ORIGIN, Origins, Rekeying
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.topics import create
from pipeline.settings import Source

MILLISECONDS = 1_700_000_000_000


def click(number):
    return json.dumps(
        {"user_id": "u", "item_id": f"i{number}", "timestamp": MILLISECONDS + number}
    ).encode()


def send(bootstrap, topic, *spans):
    """Send clicks, a transaction each; one whose span is told to be aborted does not count."""

    async def story():
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic)
        async with producer:
            for numbers, outcome in spans:
                await producer.begin_transaction()
                for number in numbers:
                    await producer.send_and_wait(topic, click(number), b"u", partition=0)
                await (
                    producer.commit_transaction()
                    if outcome == "committed"
                    else producer.abort_transaction()
                )

    asyncio.run(story())


def at_end(bootstrap, topic, offset):
    """Tell whether no click lies behind an offset."""

    async def story():
        at = TopicPartition(topic, 0)
        settings = {"isolation_level": "read_committed", "enable_auto_commit": False}
        async with Consumer(bootstrap_servers=bootstrap, **settings) as consumer:
            end = (await consumer.end_offsets([at]))[at]
            return await consumer.is_at_end(at, offset, end)

    return asyncio.run(story())


def test_what_was_aborted_is_not_read(bootstrap, admin, kafka, tmp_path):
    """Neither by a worker nor by a replay; and the mark of a transaction is nothing to wait for."""
    send(bootstrap, kafka.clicks, (range(3), "aborted"), (range(3, 6), "committed"))
    committed = [click(number).decode() for number in range(3, 6)]
    settings = {"bootstrap_servers": [bootstrap], "group": f"group-{tmp_path.name}"}
    with Workers(admin, tmp_path, **settings) as workers:
        workers.start(kafka.clicks)
        workers.wait(lambda: workers.committed(kafka.clicks).get(0), "committed")
        assert committed == workers.values(kafka.clicks, 0)
        assert 0 == workers.batches()[-1]["lag"]
    read = [clicks for clicks, _ in bus_batches(f"kafka://{bootstrap}/{kafka.clicks}")]
    assert [3] == [len(clicks) for clicks in read]


def test_a_topic_of_bad_records_gives_rejects(bootstrap, topic):
    """Though there is no click that they could come with."""
    name = topic()

    async def produce():
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            for _ in range(5):
                await producer.send_and_wait(name, b"no click")

    asyncio.run(produce())
    [(clicks, rejects)] = bus_batches(f"kafka://{bootstrap}/{name}")
    assert (0, 5) == (len(clicks), len(rejects))


def test_behind_the_last_click_there_may_be_marks(bootstrap, topic):
    """A partition is read to its end behind its last click, whatever was aborted after it."""
    name = topic()
    send(bootstrap, name, (range(2), "committed"), (range(2), "aborted"))
    assert [False, False, True, True, True] == [
        at_end(bootstrap, name, offset) for offset in range(5)
    ]


def test_clicks_yet_to_be_keyed_by_user_hold_an_erasure_up(bootstrap, tmp_path, monkeypatch):
    """Sent on later they would count, as of a user who is new."""
    monkeypatch.setattr(erasures, "_SENT_ON_SECONDS", 1.0)
    kafka = Kafka(
        bootstrap_servers=[bootstrap],
        topic_prefix=f"{tmp_path.name}.",
        group=tmp_path.name,
        partitions=1,
        replication=1,
        rekey=True,
    )
    create(kafka)
    send(bootstrap, kafka.received, (range(3), "committed"))

    async def commit(offset):
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, group_id=kafka.group, enable_auto_commit=False
        )
        async with consumer:
            at = TopicPartition(kafka.received, 0)
            consumer.assign([at])
            await consumer.commit({at: offset})

    asyncio.run(commit(2))
    with pytest.raises(BusError, match="no worker has sent on"):
        asyncio.run(ask(kafka, "u"))
    asyncio.run(commit(3))
    assert "u" == asyncio.run(ask(kafka, "u")).user


def test_an_origin_of_somebody_elses_does_not_travel(bootstrap, tmp_path):
    """A topic mirrored from one by user is keyed anew, and each of its clicks is fresh."""
    kafka = Kafka(
        bootstrap_servers=[bootstrap],
        topic_prefix=f"{tmp_path.name}.",
        partitions=1,
        replication=1,
        rekey=True,
    )
    create(kafka)

    async def mirrored():
        received = []
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            for number, foreign in enumerate((50, 10, 20)):
                headers = [(ORIGIN, b"0:%d" % foreign)]
                await producer.send_and_wait(kafka.received, click(number), headers=headers)
        async with AIOKafkaConsumer(
            kafka.received, bootstrap_servers=bootstrap, auto_offset_reset="earliest"
        ) as consumer:
            while len(received) < 3:
                received.append(await consumer.getone())
        rekeying = Rekeying(Source(), kafka)
        await rekeying.handle(RecordBatch(kafka.received, 0, Records.of(received), 3))
        await rekeying.close()
        async with AIOKafkaConsumer(
            kafka.clicks, bootstrap_servers=bootstrap, auto_offset_reset="earliest"
        ) as consumer:
            return [await consumer.getone() for _ in received]

    assert 3 == len(Origins().fresh(kafka.clicks, Records.of(asyncio.run(mirrored()))))
