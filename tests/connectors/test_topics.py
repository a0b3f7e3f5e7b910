"""Which topics there are and what they must be like, without a broker."""

import pytest

from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.topics import check, topics
from pipeline.settings import Duration, SettingsError


def test_names_take_the_prefix():
    """All topics carry the prefix, and the click topic its own name."""
    found = topics(Kafka(topic_prefix="shop.", clicks_topic="events"))
    assert [
        "shop.events",
        "shop.interest-drift",
        "shop.interest-profiles",
        "shop.category-forecasts",
        "shop.model-checkpoints",
        "shop.clicks-dlq",
        "shop.clicks-late",
        "shop.erasures",
        "shop.category-rollups",
        "shop.driftline-changelog",
    ] == [topic.name for topic in found]


def test_what_stands_for_a_state_is_compacted():
    """What stands for a state is compacted, streams of events are kept for a time."""
    found = topics(Kafka(retention=Duration.parse("7d")))
    assert [
        "delete",
        "delete",
        *["compact"] * 3,
        *["delete"] * 2,
        "compact",
        "delete",
        "compact",
    ] == [topic.config["cleanup.policy"] for topic in found]
    assert [str(7 * 86_400_000)] * 4 + ["-1"] == [
        topic.config["retention.ms"] for topic in found if "retention.ms" in topic.config
    ]


def test_history_is_not_deleted_by_its_event_time():
    """Where records expire, they do so by the time at which the broker took them."""
    for topic in topics(Kafka()):
        if topic.config["cleanup.policy"] == "delete":
            assert "LogAppendTime" == topic.config["message.timestamp.type"]


@pytest.mark.parametrize(("replication", "expected"), [(-1, None), (1, None), (3, "2")])
def test_replicated_topics_outlive_a_broker(replication, expected):
    """With replicas, what is acknowledged stands on two of them."""
    for topic in topics(Kafka(replication=replication)):
        assert replication == topic.replication
        assert expected == topic.config.get("min.insync.replicas")


@pytest.mark.parametrize("server", ["127.0.0.1:1", "[::1]:1", "no-such-host.invalid:9092"])
def test_a_missing_broker_is_told(server):
    """Where no broker answers, the error says so at once, and how to start one."""
    with pytest.raises(BusError, match=r"no broker answers at .*make kafka") as caught:
        check(Kafka(bootstrap_servers=[server]))
    assert server in str(caught.value)


@pytest.mark.parametrize("server", ["localhost", "localhost:abc", ":9092", "localhost:70000", ""])
def test_a_server_is_host_and_port(server):
    """Settings hold no other, so that no client meets one."""
    with pytest.raises(SettingsError, match="host:port"):
        Kafka(bootstrap_servers=[server])
