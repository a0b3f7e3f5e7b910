"""A broker for the tests: started from Maven's jars, from Docker, or one that runs already."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from deploy.kafka.cluster import Cluster, missing

COMPOSE = Path(__file__).parents[2] / "deploy" / "kafka" / "compose.yaml"


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Hold the address of a running broker."""
    running = os.environ.get("DRIFTLINE_TEST_BROKER")
    lack = missing()
    if running:
        yield running
    elif lack is None:
        with Cluster(directory=tmp_path_factory.mktemp("kafka")) as cluster:
            yield cluster.bootstrap
    elif _docker():
        command = ["docker", "compose", "-f", str(COMPOSE)]
        subprocess.run([*command, "up", "--detach", "--wait"], check=True)
        yield "127.0.0.1:9092"
        subprocess.run([*command, "down", "--volumes"], check=True)
    else:
        reason = (
            f"no Kafka to test with: {lack}; or start Docker; or name a running broker in "
            f"DRIFTLINE_TEST_BROKER"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    """Hold an admin client of the broker."""
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield client
    client.close()


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


def _docker() -> bool:
    docker = shutil.which("docker")
    return (
        docker is not None
        and not subprocess.run([docker, "info"], capture_output=True, check=False).returncode
    )
