"""The cluster for tests does what tests need of it: it breaks on demand, and comes back."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from connectors.kafka.settings import Kafka
from connectors.kafka.topics import check, create
from deploy.kafka.cluster import HOST, Cluster, ClusterError

ROOT = Path(__file__).parents[2]
CLICKS = TopicPartition("clicks", 0)
pytestmark = pytest.mark.usefixtures("own_brokers")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(directory=tmp_path_factory.mktemp("three"), brokers=3) as cluster:
        kafka = Kafka(bootstrap_servers=cluster.bootstrap.split(","), partitions=1, replication=3)
        create(kafka)
        assert [] == check(kafka)
        yield cluster


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]


def say(cluster: Cluster, word: str, *, without: int | None = None) -> list[str]:
    """Produce a word, acknowledged by all replicas in sync, and return all words on the topic."""
    servers = [at for index, at in enumerate(cluster.bootstrap.split(",")) if index != without]

    where = {"bootstrap_servers": servers}

    async def speak() -> list[str]:
        client = AIOKafkaProducer(request_timeout_ms=20_000, acks="all", **where)
        async with client as producer:
            await producer.send_and_wait("clicks", word.encode(), partition=0)
        heard: list[str] = []
        consumer = AIOKafkaConsumer(
            request_timeout_ms=20_000, auto_offset_reset="earliest", **where
        )
        async with consumer:
            consumer.assign([CLICKS])
            end = (await consumer.end_offsets([CLICKS]))[CLICKS]
            while len(heard) < end:
                heard.append((await consumer.getone()).value.decode())
        return heard

    return asyncio.run(asyncio.wait_for(speak(), 40))


def test_three_brokers_outlive_the_loss_of_one(three):
    """What is acknowledged outlives a killed broker, and the broker comes back."""
    assert ["one"] == say(three, "one")
    three.kill(0)
    assert [False, True, True] == [three.alive(index) for index in range(3)]
    assert ["one", "two"] == say(three, "two", without=0)
    three.restart(0)
    assert [True, True, True] == [three.alive(index) for index in range(3)]


def becomes(condition, patience=20):
    """Tell whether something comes true within some seconds."""
    until = time.monotonic() + patience
    while not condition() and time.monotonic() < until:
        time.sleep(0.1)
    return condition()


def test_a_frozen_broker_is_silent_until_it_goes_on(three):
    """A paused broker's process is there and answers nothing; resumed, it answers again."""
    three.pause(1)
    assert becomes(lambda: not three.ready(1))  # the signal takes a moment to reach all threads
    assert three.alive(1)
    three.resume(1)
    assert becomes(lambda: three.ready(1))


def test_a_stopped_cluster_keeps_what_it_has(tmp_path):
    """Stopped and started again, by another process too, a cluster has the same data and ports."""
    command = [sys.executable, "-m", "deploy.kafka", "start", "--dir", tmp_path]
    port = free_port()
    subprocess.run([*command, f"--port={port}"], check=True, cwd=ROOT)
    cluster = Cluster(directory=tmp_path)
    assert (True, f"{HOST}:{port}") == (cluster.alive(0), cluster.bootstrap)
    create(Kafka(bootstrap_servers=[cluster.bootstrap], partitions=1, replication=1))
    assert ["one"] == say(cluster, "one")
    cluster.stop()
    assert not cluster.alive(0)
    with cluster:
        assert ["one", "two"] == say(cluster, "two")
    with pytest.raises(ClusterError, match="holds 1 brokers, not 3"):
        Cluster(directory=tmp_path, brokers=3)


def test_a_taken_port_is_told(tmp_path):
    """A port that something else listens on is named, with how to choose another."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f"port {port} is taken .*--port"):
            Cluster(directory=tmp_path, port=port).start()


def test_a_broker_that_does_not_start_shows_why(tmp_path):
    """Where a broker ends while it starts, the end of its log is in the error."""
    with pytest.raises(ClusterError, match=r"(?s)num\.partitions"):
        Cluster(directory=tmp_path, properties={"num.partitions": "many"}).start()
