"""A broker for the tests: started from Maven's jars, from Docker, or one that runs already."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from kafka.admin import KafkaAdminClient

from connectors.kafka.settings import Kafka
from connectors.kafka.topics import create
from deploy.kafka.cluster import ClusterError, missing
from deploy.kafka.container import broker


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Hold the address of a running broker."""
    running = os.environ.get("DRIFTLINE_TEST_BROKER")
    if running:
        yield running
        return
    try:
        cluster = broker(tmp_path_factory.mktemp("kafka"))
    except ClusterError as error:
        reason = (
            f"no Kafka to test with: {error}; or name a running broker in DRIFTLINE_TEST_BROKER"
        )
        _cannot(reason)
    with cluster:
        yield cluster.bootstrap


@pytest.fixture(scope="session")
def own_brokers() -> None:
    """Say that brokers of the test's own can be started, and killed, here."""
    lack = missing()
    if lack:
        _cannot(f"no Kafka to kill: {lack}")


def _cannot(reason: str) -> NoReturn:
    """Skip, loudly; in CI nothing is skipped."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    """Hold an admin client of the broker."""
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield client
    client.close()


@pytest.fixture
def kafka(bootstrap: str, tmp_path: Path) -> Kafka:
    """Hold the settings of a group of its own, its topics made."""
    kafka = Kafka(
        bootstrap_servers=[bootstrap], topic_prefix=f"{tmp_path.name}.", partitions=2, replication=1
    )
    create(kafka)
    return kafka


@pytest.fixture
def topic(admin: KafkaAdminClient, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Make topics whose names no other test has."""
    made: list[str] = []

    def make(partitions: int = 1, **config: str) -> str:
        name = f"{request.node.name}-{os.getpid()}-{len(made)}".translate(str.maketrans("[]", "--"))
        configs = {key.replace("_", "."): value for key, value in config.items()}
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        admin.create_topics({name: wanted}, wait_for_metadata=True)
        made.append(name)
        return name

    return make
