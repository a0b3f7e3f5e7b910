"""Brokers or a disk are gone amid the work: the worker says why it waits, and goes on by itself."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from aiokafka import TopicPartition
from kafka.admin import KafkaAdminClient
from live import Live, Offline, shopping

from connectors.kafka.consumer import Consumer
from deploy.kafka.cluster import Cluster

AWAY_SECONDS = 8


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def ready(port):
    """Return what `/readyz` answers; nothing where nobody does yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def check(live):
    offline = Offline(live)
    assert len(offline.alerts) > 10
    assert offline.alerts == live.alerts(of_users=True)
    assert offline.category_alerts == live.alerts(of_users=False)
    assert offline.states == live.states()


@pytest.mark.usefixtures("own_brokers")
def test_a_worker_outlives_the_loss_of_all_brokers(tmp_path):
    """Longer than its session: it is the same process that goes on, and nothing is lost."""
    batch, port = shopping(40, seed=7), free_port()
    with Cluster(directory=tmp_path / "kafka") as cluster:
        admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        home = tmp_path / "home"
        home.mkdir()
        with Live(cluster.bootstrap, admin, home) as live:
            live.produce(batch)
            worker = live.start(batch=100, metrics_port=port)
            live.wait(lambda: sum(live.committed("clicks").values()) > 300, "some read")
            admin.close()  # it would not find its way back
            cluster.kill(0)
            live.wait(lambda: ready(port)[0] == 503, "not ready", 150)
            assert "brokers" in ready(port)[1]
            time.sleep(AWAY_SECONDS)
            assert worker.poll() is None
            cluster.restart(0)
            live.admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
            live.wait_read(180)
            live.wait(lambda: ready(port)[0] == 200, "ready again")
            assert worker.poll() is None
            live.stop()
            check(live)
            live.admin.close()


@pytest.mark.usefixtures("own_brokers")
def test_a_consumer_stops_while_its_broker_is_away(tmp_path):
    """A fetch that waits for its next attempt ends, and nobody is cancelled along with it."""

    async def story(cluster):
        at = TopicPartition("clicks", 0)
        consumer = Consumer(bootstrap_servers=cluster.bootstrap, retry_backoff_ms=30_000)
        await consumer.start()
        consumer.assign([at])
        await consumer.seek_to_end(at)
        cluster.kill(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.getone(at), 3)
        await consumer.stop()  # raises where the fetch's cancellation gets out

    with Cluster(directory=tmp_path / "kafka") as cluster:
        admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        admin.create_topics({"clicks": {"num_partitions": 1, "replication_factor": 1}})
        admin.close()
        asyncio.run(story(cluster))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_worker_waits_for_room_on_its_disk(bootstrap, admin, tmp_path):
    """With the disk full it says so; with room again the same process goes on."""
    disk, port, batch = tmp_path / "disk", free_port(), shopping(40, seed=8)
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        with Live(bootstrap, admin, tmp_path) as live:
            live.produce(batch.take(slice(500)))
            worker = live.start("disk/data", metrics_port=port)
            live.wait_read()
            with (disk / "ballast").open("wb") as ballast:
                try:
                    while True:
                        ballast.write(bytes(1 << 16))
                        ballast.flush()
                except OSError:
                    pass
            live.produce(batch.take(slice(500, None)))
            live.wait(lambda: "No space left" in ready(port)[1], "the reason")
            assert 503 == ready(port)[0]
            (disk / "ballast").unlink()
            live.wait_read()
            live.wait(lambda: ready(port)[0] == 200, "ready again")
            assert worker.poll() is None
            live.stop()
            check(live)
            shutil.rmtree(disk / "data")
    finally:
        subprocess.run(["umount", disk], check=True)
