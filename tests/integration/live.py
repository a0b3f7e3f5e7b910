"""Real workers on a real broker, what they leave behind, and what should be left."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from clicks import DAY, clicks
from kafka import TopicPartition as KafkaTp
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from profiles import profiles_of
from workers import committed_offsets

from connectors.kafka.decoding import decode_records
from connectors.kafka.live_settings import SETTINGS, load_live
from connectors.kafka.partitions import Stamp
from connectors.kafka.produce import produce, timed_records
from connectors.kafka.reading import Fetched, TopicReader
from connectors.kafka.records import Records
from connectors.kafka.rollup_merge import RollupMerge
from connectors.kafka.topics import create
from connectors.profiles import stored_snapshots
from connectors.store import Store
from connectors.wire import decode_alert, decode_forecast, decode_profile
from pipeline.engine import Engine, Progress
from pipeline.events import CategoryForecast, Clicks, InterestProfile, SourcePosition
from pipeline.prior import UNIFORM
from pipeline.symbols import Names
from pipeline.trends import Trends

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
NOWHERE = SourcePosition(source="", position=0)
CORE = """
[interests]
profile_interval = "2d"
lateness = "1d"
[drift]
events_per_false_alarm = 100
minimum_events = 8
[trends]
window = "1d"
warm_up = 3
minimum_events = 10
"""


def shopping(users: int, days: int = 16, seed: int = 1) -> Clicks:
    """Make a log in which every other user drifts, with late events and duplicates."""
    rng = random.Random(seed)
    rows = []
    for number in range(users):
        for step in range(days * 8):
            drifted = number % 2 and step > days * (3 + number % 5 / 2)
            category = rng.choice(["cat/toy", "cat/food"] if not drifted else ["dog/toy", "fish"])
            item = f"{category}-{rng.randrange(9)}"
            when = 1_600_000_000_000 + step * DAY // 8 + rng.randrange(DAY // 8)
            row = {"user": f"user-{number}", "item": item, "category": category, "time": when}
            rows.append(row | {"event_id": f"{number}/{step}", "place": when})
            if rng.random() < 0.02:
                rows.append(rows[-1] | {"place": when + 1000})
            if rng.random() < 0.01 and step > 40:
                late = {"time": when - 4 * DAY, "event_id": f"late {number}/{step}"}
                rows.append(rows[-1] | late)
    return clicks(sorted(rows, key=lambda row: row["place"]))


States = tuple[Stamp, Progress, dict[str, bytes]]
"""Of a partition: where it stands, what the engine knows, every user's state."""


class Live:
    """A set of topics, the workers on them, and their results."""

    def __init__(
        self,
        bootstrap: str,
        admin: KafkaAdminClient,
        home: Path,
        core: str = CORE,
        *,
        rekey: bool = False,
    ) -> None:
        self.admin, self.home = admin, home
        self.name = f"live-{os.getpid()}-{time.time_ns()}"
        self.toml = (
            core
            + f"""
[kafka]
bootstrap_servers = ["{bootstrap}"]
topic_prefix = "{self.name}."
group = "{self.name}"
partitions = {PARTITIONS}
replication = 1
rekey = {str(rekey).lower()}
"""
        )
        self.running: list[subprocess.Popen[bytes]] = []
        self.directories: list[Path] = []
        path = self.home / "settings.toml"
        path.write_text(self.toml)
        self.settings, self.kafka, _ = load_live(path)
        create(self.kafka)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            process.kill()
            process.wait()

    def topic(self, name: str) -> str:
        return self.kafka.topic_prefix + name

    def start(self, data: str = "data", **worker: object) -> subprocess.Popen[bytes]:
        """Start a worker with a disk of its own."""
        directory = self.home / data
        if directory not in self.directories:
            self.directories.append(directory)
        given = {
            "data": str(directory),
            "flush_interval": "300ms",
            "commit_interval": "300ms",
            "session_timeout": "3s",
            "batch": 500,
        } | worker
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in given.items())
        path = self.home / f"worker-{len(self.running)}.toml"
        path.write_text(f"{self.toml}\n[worker]\n{lines}\n")
        command = [sys.executable, "-m", "faust", "-A", "connectors.kafka.worker", "worker"]
        with self.home.joinpath(f"log-{len(self.running)}").open("wb") as log:
            process = subprocess.Popen(
                [*command, "-l", "info"],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=os.environ | {SETTINGS: str(path), "OMP_NUM_THREADS": "1"},
            )
        self.running.append(process)
        return process

    def learn(self) -> None:
        """Start a learner with its directory in `learner`."""
        command = [sys.executable, ROOT / "tests" / "integration" / "learner_process.py"]
        command += ["--settings", self.home / "settings.toml", "--directory", self.home / "learner"]
        with (self.home / "log-learner").open("wb") as log:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            self.running.append(
                subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)
            )

    def stop(self) -> None:
        """Stop all workers in good order, so that their states can be opened."""
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(30)

    def produce(self, batch: Clicks) -> None:
        produce(self.kafka, timed_records([batch]))

    def wait_read(self, seconds: float = 90) -> None:
        """Wait until all that is on the bus was read and committed."""
        self.wait(lambda: self._is_read("clicks"), "clicks read", seconds)
        by_user = self.kafka.clicks.removeprefix(self.kafka.topic_prefix)
        self.wait(lambda: self._is_read(by_user), "clicks by user read", seconds)
        self.wait(lambda: self._is_read("category-rollups"), "rollups read", seconds)

    def _is_read(self, topic: str) -> bool:
        ends = {at: count for at, count in self.ends(topic).items() if count}
        return ends == self.committed(topic)

    def configure(self, topic: str, config: dict[str, str]) -> None:
        resource = ConfigResource(ConfigResourceType.TOPIC, self.topic(topic), config)
        self.admin.alter_configs([resource])

    def truncate(self, topic: str, before: dict[int, int]) -> None:
        """Delete what stands before an offset, as retention does."""
        name = self.topic(topic)
        self.admin.delete_records({KafkaTp(name, n): offset for n, offset in before.items()})

    def remake(self, topic: str) -> None:
        """Delete a topic and make it anew."""
        self.admin.delete_topics([self.topic(topic)])
        self.wait(lambda: self.topic(topic) not in self.admin.list_topics(), "deleted")
        create(self.kafka)

    def committed(self, topic: str) -> dict[int, int]:
        return committed_offsets(self.admin, self.kafka.group, self.topic(topic))

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait until a condition holds, and show the workers' logs where it never does."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                pytest.fail(f"{what}: not within {seconds} s\n{self.logs()[-8000:]}")
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(log.read_text() for log in sorted(self.home.glob("log-*")))

    def records(self, topic: str) -> list[ConsumerRecord]:
        """Return all that stands on a topic, each partition in order."""
        with TopicReader(self.kafka, self.topic(topic)) as reader:
            return [record for number in reader.partitions for record in reader.records(number)]

    def ends(self, topic: str) -> dict[int, int]:
        """Return where the partitions of a topic end."""

        async def ask() -> dict[int, int]:
            servers = self.kafka.bootstrap_servers
            async with AIOKafkaConsumer(bootstrap_servers=servers) as consumer:
                partitions = self._partitions(topic)
                ends = await consumer.end_offsets(partitions)
                return {tp.partition: end for tp, end in ends.items()}

        return asyncio.run(ask())

    def _partitions(self, topic: str) -> list[TopicPartition]:
        found = self.admin.describe_topics([self.topic(topic)])[0]["partitions"]
        return [TopicPartition(self.topic(topic), p["partition_index"]) for p in found]

    def alerts(self, *, of_users: bool) -> dict[str, object]:
        """Return what was alerted by id; a twin must have the same content."""
        found: dict[str, object] = {}
        for record in self.records("interest-drift"):
            alert = decode_alert(record.value)
            headers = dict(record.headers)
            assert (alert.id, alert.subject) == (headers["ce_id"].decode(), record.key.decode())
            if alert.kind.startswith("user") == of_users:
                assert alert == found.setdefault(alert.id, alert)
        return found

    def forecasts(self) -> dict[tuple[str, int], CategoryForecast]:
        """Return what was forecast by category and time; a twin must have the same content."""
        found: dict[tuple[str, int], CategoryForecast] = {}
        for record in self.records("category-forecasts"):
            forecast = decode_forecast(record.value)
            name = (forecast.category, forecast.made)
            assert forecast.category == record.key.decode()
            assert forecast == found.setdefault(name, forecast)
        return found

    def profiles(self) -> dict[str, object]:
        """Return every user's last profile."""
        return {r.key.decode(): decode_profile(r.value) for r in self.records("interest-profiles")}

    def states(self) -> dict[int, States]:
        """Return stamp, progress and states by partition, from the disk that came furthest."""
        found: dict[int, States] = {}
        for number, path in self._furthest().items():
            with Store(path) as store:
                known = progress(store.progress())
                found[number] = (stamp_of(store), known, dict(store.states()))
        return found

    def interests(self) -> dict[str, InterestProfile]:
        """Return what every user wants, by the states of all partitions."""
        found: dict[str, InterestProfile] = {}
        for path in self._furthest().values():
            with Store(path) as store:
                found |= interests(store)
        return found

    def _furthest(self) -> dict[int, Path]:
        found: dict[int, tuple[int, Path]] = {}
        for directory in self.directories:
            for number in range(PARTITIONS):
                path = directory / f"{self.kafka.clicks}-{number}"
                if path.exists():
                    with Store(path) as store:
                        reached = (stamp_of(store).next, path)
                    found[number] = max(reached, found.get(number, reached))
        return {number: path for number, (_, path) in found.items()}


class Offline:
    """What the engine says of the same partitions, read back from the bus one after the other."""

    def __init__(self, live: Live, each: Callable[[int, Fetched], None] = lambda *_: None) -> None:
        """Replay; `each` is shown what is read, with the partition's number."""
        self.alerts: dict[str, object] = {}
        self.profiles: dict[str, object] = {}
        self.states: dict[int, States] = {}
        self._merge = RollupMerge()
        self._source = live.settings.source
        with TopicReader(live.kafka, live.kafka.clicks) as reader:
            for number in reader.partitions:
                engine = Engine(live.settings)
                stamp = Stamp()
                while records := reader.next(number):
                    each(number, records)
                    self._apply(engine, f"{live.kafka.clicks}/{number}", records, stamp)
                if stamp.next:
                    changes = engine.changes()
                    known = progress(changes.progress)
                    self.states[number] = (stamp, known, dict(changes.states))
        trends = Trends(live.settings, prior=UNIFORM.version)
        sources = [f"{live.kafka.clicks}/{number}" for number in range(PARTITIONS)]
        closed = self._merge.closed(sources)
        outlooks = [trends.add(rollup) for rollup in closed]
        self.category_alerts = {a.id: a for outlook in outlooks for a in outlook.alerts}
        self.forecasts = {(f.category, f.made): f for o in outlooks for f in o.forecasts}
        self.judged_until = self._merge.state.closed

    def _apply(self, engine: Engine, source: str, records: Fetched, stamp: Stamp) -> None:
        fresh = stamp.origins.fresh(source.rpartition("/")[0], Records.of(records))
        batch, rejects = decode_records(fresh, source, self._source)
        effects = engine.process(batch)
        self.alerts |= {alert.id: alert for alert in effects.alerts}
        self.profiles |= {
            told.user_id: told for told in profiles_of(effects.profiles, engine.names)
        }
        for rollup in effects.rollups:
            self._merge.add(rollup)
        stamp.next = records[-1].offset + 1
        stamp.dead_letters += len(rejects)


def stamp_of(store: Store) -> Stamp:
    return msgspec.msgpack.decode(store.get("stamp") or b"\x80", type=Stamp)


def interests(store: Store) -> dict[str, InterestProfile]:
    """Return what every user of a store wants."""
    names = Names(store.name)
    stored = stored_snapshots(store.states())
    return {told.user_id: told for some in stored for told in profiles_of(some, names)}


def progress(data: bytes | None) -> Progress:
    return msgspec.msgpack.decode(data, type=Progress) if data else Progress()


def anywhere(alerts: dict[str, object]) -> dict[str, object]:
    """Return alerts without the place in their log."""
    return {name: msgspec.structs.replace(a, source=NOWHERE) for name, a in alerts.items()}
