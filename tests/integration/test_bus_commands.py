"""The commands that talk to a broker, and clicks read back from a topic."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from clicks import DAY
from kafka import KafkaProducer
from live import Live, anywhere, shopping
from typer.testing import CliRunner

from connectors.cli import app as whole_app
from connectors.kafka.alerts import bus_alerts
from connectors.kafka.bus_replay import bus_batches
from connectors.kafka.commands import register
from connectors.kafka.produce import click_records
from connectors.kafka.profiles import bus_interests
from connectors.replay import Request, replay
from connectors.wire import decode_profile
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


def test_a_topic_is_read_as_one_log_in_the_order_of_time(live, tmp_path):
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
    early, late = (
        replay(
            Request(inputs=[address], settings=live.settings, learning=False, **bound),
            tmp_path / next(iter(bound)),
            command="test",
        ).events
        for bound in ({"until": middle}, {"since": middle})
    )
    assert (times < middle).sum() == early
    assert len(batch) == early + late


def test_segments_and_an_audience_come_from_the_profiles_on_the_bus(live):
    """Those who took to fish are in the audience, who was erased is not, and flows are shown."""
    batch = shopping(30)
    day = (batch.time - batch.time.min()) // DAY
    live.start()
    for rows in (day < 5, (day >= 5) & (day < 10), day >= 10):  # nobody has drifted before day 5
        live.produce(batch.take(np.flatnonzero(rows)))
        live.wait_read()
    live.stop()
    published = [decode_profile(record.value) for record in live.records("interest-profiles")]
    interests = bus_interests(live.kafka)
    assert len(published) == len(interests.time) > 60
    assert sorted((p.time, p.user_id) for p in published) == sorted(
        (time, interests.users[user])
        for time, user in zip(interests.time.tolist(), interests.user.tolist(), strict=True)
    )
    shown = segments(live)
    assert 0 == shown.exit_code
    assert all(word in shown.stdout for word in ("cat", "dog", "fish", "largest flows"))
    to = live.home / "audience.parquet"
    asked = ("--to", str(to), "--within", "10d", "--moved-into")
    assert 0 == segments(live, *asked, "FISH").exit_code
    drifted = {f"user-{number}" for number in range(1, 30, 2)}
    found = {row["user_id"] for row in pq.read_table(to).to_pylist()}
    assert len(found) > 10
    assert found <= drifted
    gone = min(found)
    send(live, "interest-profiles", gone.encode(), None)
    assert 0 == segments(live, *asked, "fish").exit_code
    assert found - {gone} == {row["user_id"] for row in pq.read_table(to).to_pylist()}
    assert 6 == segments(live, *asked, "quux").exit_code


def segments(live, *words):
    settings = str(live.home / "settings.toml")
    return CliRunner().invoke(whole_app, ["segments", "--bus", "--settings", settings, *words])


def send(live, topic, key, value):
    producer = KafkaProducer(bootstrap_servers=live.kafka.bootstrap_servers)
    producer.send(live.topic(topic), value, key).get()
    producer.close()


@pytest.mark.parametrize("address", ["kafka://localhost:9092", "http://a/b", "kafka:///clicks"])
def test_an_address_of_no_topic_is_told(address):
    """What is no address of a topic is refused with what one looks like."""
    with pytest.raises(SettingsError, match="kafka://host:9092/clicks"):
        next(bus_batches(address))
