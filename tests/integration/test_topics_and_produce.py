"""Topics are made and checked, and clicks are played onto them, on a real broker."""

import json
import time

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaConnectionError

from connectors.kafka.produce import click_records, produce, timed_records
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.topics import check, create, topics
from pipeline.events import NO_CODE, Clicks, Column
from pipeline.settings import Duration


@pytest.fixture
def kafka(bootstrap: str, request: pytest.FixtureRequest) -> Kafka:
    prefix = f"{request.node.name}-{time.time_ns()}."
    return Kafka(bootstrap_servers=[bootstrap], topic_prefix=prefix, partitions=3, replication=1)


def some_clicks(count: int, milliseconds_apart: int = 1000) -> Clicks:
    everyone, rows = [f"user-{number}" for number in range(50)], np.arange(count)

    def column(values: list[str], codes: np.ndarray) -> Column:
        return Column(values, codes.astype(np.int32))

    nothing = np.full(count, NO_CODE)
    return Clicks(
        source="test",
        position=rows,
        time=1_600_000_000_000 + rows * milliseconds_apart,
        user=column(everyone, rows % 50),
        item=column(["a", 'b"'], rows % 2),
        category=column(["x/y"], np.where(rows % 3, 0, NO_CODE)),
        event_type=column(["view"], np.zeros(count)),
        session=column([], nothing),
        event_id=(rows % 2).astype(np.uint64) * 18_000_000_000_000_000_000,
    )


def read(kafka: Kafka, count: int) -> list:
    consumer = KafkaConsumer(
        kafka.topic_prefix + kafka.clicks_topic,
        bootstrap_servers=kafka.bootstrap_servers,
        auto_offset_reset="earliest",
        group_id=None,
        consumer_timeout_ms=10_000,
    )
    found = [record for _, record in zip(range(count), consumer, strict=False)]
    consumer.close()
    return found


def test_created_topics_need_no_mending(kafka):
    """What `create` makes, `check` finds nothing wrong with, and creating twice changes nothing."""
    assert [f"topic {t.name} is not there" for t in topics(kafka)] == [
        difference.split(":")[0] for difference in check(kafka)
    ]
    assert [topic.name for topic in topics(kafka)] == create(kafka)
    assert [] == check(kafka)
    assert [] == create(kafka)


def gone(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Have the client meet, so many times, a broker that has just gone."""
    asked = KafkaAdminClient.describe_topics
    failures = [KafkaConnectionError("111 ECONNREFUSED")] * times

    def describe(admin: KafkaAdminClient, names: list[str]) -> object:
        if failures:
            raise failures.pop()
        return asked(admin, names)

    monkeypatch.setattr(KafkaAdminClient, "describe_topics", describe)
    monkeypatch.setattr("connectors.kafka.topics.BETWEEN_TRIES", 0.0)


def test_a_broker_that_has_just_gone_is_passed_over(kafka, monkeypatch):
    """The others are asked again."""
    create(kafka)
    gone(monkeypatch, times=2)
    assert [] == check(kafka)


def test_a_broker_that_stays_away_is_told(kafka, monkeypatch):
    """After a few tries."""
    gone(monkeypatch, times=3)
    with pytest.raises(BusError, match="ECONNREFUSED"):
        check(kafka)


def test_differences_are_told_with_how_to_mend_them(kafka, admin: KafkaAdminClient):
    """A topic with too few partitions, another policy or retention is told, and how to mend it."""
    prefix = kafka.topic_prefix
    admin.create_topics({f"{prefix}interest-profiles": {"num_partitions": 1}})
    admin.create_topics({f"{prefix}clicks": {"configs": {"cleanup.policy": "compact"}}})
    create(kafka)
    changed = Kafka(
        bootstrap_servers=kafka.bootstrap_servers,
        topic_prefix=prefix,
        partitions=3,
        replication=1,
        retention=Duration.parse("1d"),
    )
    told = check(changed)
    assert [
        f"topic {prefix}clicks is compacted",
        f"topic {prefix}interest-drift: retention.ms is 2592000000, not 86400000",
        f"topic {prefix}interest-profiles has 1 partitions, not 3",
        f"topic {prefix}interest-profiles: cleanup.policy is delete, not compact",
        f"topic {prefix}clicks-dlq: retention.ms is 2592000000, not 86400000",
        f"topic {prefix}clicks-late: retention.ms is 2592000000, not 86400000",
    ] == [line.split(",")[0] if "compacted" in line else line.split(": set")[0] for line in told]
    assert all("set" in line or "add" in line for line in told)


def test_replication_beyond_the_brokers_is_refused_in_words(kafka):
    """Three replicas on one broker cannot be had, and the broker's reason is passed on."""
    wanting = Kafka(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=kafka.topic_prefix, replication=3
    )
    with pytest.raises(BusError, match=r"cannot create topic .*replication factor"):
        create(wanting)


def test_clicks_arrive_whole_and_in_order_of_each_user(kafka):
    """Every click arrives as it was, those of a user in one partition and in order."""
    create(kafka)
    clicks = some_clicks(5000)
    told: list[tuple[int, int]] = []
    sent = produce(
        kafka,
        timed_records([clicks.take(slice(0, 1700)), clicks.take(slice(1700, None))]),
        progress=lambda *now: told.append(now),
    )
    assert 5000 == sent
    assert (5000, int(clicks.time[-1])) == told[-1]
    found = read(kafka, 5000)
    assert sorted(click_records(clicks)) == sorted((r.key, r.value) for r in found)
    for user in range(50):
        mine = [record for record in found if record.key == b"user-%d" % user]
        assert 1 == len({record.partition for record in mine})
        times = [json.loads(record.value)["timestamp"] for record in mine]
        assert clicks.time[clicks.user.codes == user].tolist() == times


def test_keys_go_where_other_clients_send_them(kafka):
    """A key's partition is the one that Kafka's default partitioner takes."""
    create(kafka)
    produce(kafka, timed_records([some_clicks(50)]))
    ours = {record.key: record.partition for record in read(kafka, 50)}
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    sent = {key: producer.send(f"{kafka.topic_prefix}clicks", b"{}", key=key) for key in ours}
    producer.flush()
    assert ours == {key: future.get().partition for key, future in sent.items()}
    producer.close()


def test_speed_ties_event_time_to_the_clock(kafka):
    """Two minutes of events at 60 times their speed take two seconds, evenly."""
    create(kafka)
    begun = time.monotonic()
    produce(kafka, timed_records([some_clicks(121)]), speed=60)
    assert 1.9 < time.monotonic() - begun < 6
    stamps = sorted(record.timestamp for record in read(kafka, 121))
    assert 700 < stamps[120] - stamps[60] < 2000


def test_a_missing_topic_is_told(kafka):
    """Producing to a topic that is not there fails with how to make it."""
    with pytest.raises(BusError, match="driftline topics"):
        produce(kafka, timed_records([some_clicks(1)]))


def test_a_missing_broker_is_told():
    """Where no broker answers, producing says so."""
    nowhere = Kafka(bootstrap_servers=["127.0.0.1:1"])
    with pytest.raises(BusError, match="is the broker running"):
        produce(nowhere, [])
