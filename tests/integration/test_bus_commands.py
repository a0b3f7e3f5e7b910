"""The commands that talk to a broker, and clicks read back from a topic."""

import json

import numpy as np
import pytest
import typer
from live import Live, anywhere, shopping
from typer.testing import CliRunner

from connectors.kafka.alerts import bus_alerts
from connectors.kafka.bus_replay import bus_batches
from connectors.kafka.commands import register
from connectors.kafka.produce import click_records
from pipeline.engine import Engine
from pipeline.settings import SettingsError

APP = typer.Typer()
register(APP)


@pytest.fixture
def live(bootstrap, admin, tmp_path):
    with Live(bootstrap, admin, tmp_path) as live:
        yield live


def run(live, *words):
    return CliRunner().invoke(APP, [*words, "--settings", str(live.home / "settings.toml")])


def replayed(live, batches):
    engine = Engine(live.settings)
    return {a.id: a for clicks, _ in batches for a in engine.process(clicks).alerts}


def test_a_file_becomes_alerts_on_the_terminal(live):
    """Topics checked, a file produced and worked on: `alerts` shows each alert once."""
    batch = shopping(20)
    path = live.home / "clicks.jsonl"
    path.write_bytes(b"".join(value + b"\n" for _, value in click_records(batch)))
    assert 0 == run(live, "topics", "check").exit_code
    assert 0 == run(live, "topics", "create").exit_code
    assert 0 == run(live, "produce", str(path)).exit_code
    live.start()
    live.wait_read()
    live.stop()
    expected = live.alerts(of_users=True) | live.alerts(of_users=False)
    assert expected == {alert.id: alert for alert in bus_alerts(live.kafka)}
    lines = run(live, "alerts", "--json").stdout.splitlines()
    assert sorted(expected) == sorted(json.loads(line)["id"] for line in lines)
    someone = next(a.subject for a in expected.values() if a.kind.startswith("user"))
    shown = run(live, "alerts", "--user", someone).stdout.splitlines()
    assert shown
    assert all(someone in line for line in shown)
    address = f"kafka://{live.kafka.bootstrap_servers[0]}/{live.topic('clicks')}"
    found = replayed(live, bus_batches(address))
    of_users = {name: a for name, a in expected.items() if a.kind.startswith("user")}
    assert anywhere(of_users) == anywhere(found)


def test_a_topic_is_read_as_one_log_in_the_order_of_time(live):
    """All clicks come once, each partition's in order, partitions by event time, in any cut."""
    batch = shopping(10)
    live.produce(batch)
    address = f"kafka://{live.kafka.bootstrap_servers[0]}/{live.topic('clicks')}"
    clicks = [clicks for clicks, rejects in bus_batches(address)]
    times = np.concatenate([c.time for c in clicks])
    positions = np.concatenate([c.position for c in clicks])
    assert list(range(len(batch))) == positions.tolist()
    assert np.sort(batch.time).tolist() == np.sort(times).tolist()
    newest = np.maximum.accumulate(times)
    assert (newest - times).max() <= (np.maximum.accumulate(batch.time) - batch.time).max()
    middle = int(np.median(times))
    early = [c for c, _ in bus_batches(address, until=middle)]
    late = [c for c, _ in bus_batches(address, since=middle)]
    assert (times < middle).sum() == sum(map(len, early))
    assert len(batch) == sum(map(len, early)) + sum(map(len, late))


@pytest.mark.parametrize("address", ["kafka://localhost:9092", "http://a/b", "kafka:///clicks"])
def test_an_address_of_no_topic_is_told(address):
    """What is no address of a topic is refused with what one looks like."""
    with pytest.raises(SettingsError, match="kafka://host:9092/clicks"):
        next(bus_batches(address))
