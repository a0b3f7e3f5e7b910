"""One run of the verifier."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError as KafkaAdminError

from bench.soak.erasing import Erasing
from bench.soak.fleet import SESSION_SECONDS, Fleet
from bench.soak.oracle import Content, Expected, Observed, Verdict, content, expect, judge
from bench.soak.plan import KILLS, Kind, Step, draw
from bench.soak.traffic import Traffic
from connectors.kafka.checkpoints import published
from connectors.kafka.live_settings import load_live
from connectors.kafka.messages import ALERTS, DEAD_LETTERS, PROFILES
from connectors.kafka.partitions import Stamp
from connectors.kafka.settings import Kafka
from connectors.kafka.topics import ROLLUPS, changelog_name, create, topics
from connectors.store import Store, meta_key
from connectors.wire import decode_alert
from deploy.kafka.cluster import Cluster
from pipeline.events import AlertKind

PARTITIONS = 6
BROKER_AWAY_SECONDS = 3.0
SETTLE_SECONDS = 300.0
_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """What to run."""

    seed: int
    kills: int
    brokers: int = 3
    workers: int = 3
    learner: bool = True
    rate: int = 400
    """Clicks a second."""
    users: int = 40
    clicks: int = 0
    """At least so many clicks, however few the failures."""
    fault: str = ""
    """A planted one, see `worker`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came out."""

    soak: Soak
    seconds: float
    sent: int
    steps: list[Step]
    rebalances: int
    restarts: int
    learnt: list[str]
    expected: Expected
    verdict: Verdict

    def problems(self) -> dict[str, list[str]]:
        """Return what is wrong, by kind."""
        found = self.verdict.problems()
        twice = [name for name, times in Counter(self.learnt).items() if times > 1]
        return found | ({"windows_learnt_twice": twice} if twice else {})

    def lines(self) -> list[str]:
        """Return it for people."""
        done = Counter(step.kind.value for step in self.steps)
        kills = sum(step.kind in KILLS for step in self.steps)
        counts = self.expected.counts
        problems = self.problems()
        return [
            (
                f"seed {self.soak.seed}: {kills} kills, {self.rebalances} rebalances, "
                f"{self.restarts} ends by themselves, {self.seconds:.0f} s"
            ),
            *(f"  {times:4d} {kind}" for kind, times in sorted(done.items())),
            (
                f"events: {self.expected.records} = {counts.applied} applied + {counts.late} late "
                f"+ {counts.duplicates} duplicates + {len(self.expected.dead_letters)} dead letters"
            ),
            (
                f"states: {sum(_users(c) for c in self.expected.states.values())}, "
                f"alerts: {len(self.expected.alerts)}, "
                f"said again with the same id: {self.verdict.duplicates}, "
                f"windows learnt: {len(self.learnt)}"
            ),
            (
                f"lost: {len(self.verdict.lost_alerts)} alerts, "
                f"{len(self.verdict.lost_dead_letters)} dead letters"
            ),
            *(f"WRONG {kind}: {len(told)}, {told[:5]}" for kind, told in problems.items()),
            "all is as one plain pass has it" if not problems else "NOT as one plain pass has it",
        ]


def run(soak: Soak, home: Path, tell: Callable[[str], None] = lambda _: None) -> Result:
    """Run it in an empty directory, in which all logs stay.

    Raises:
        RuntimeError: it did not settle: something is stuck.
        ClusterError: the brokers cannot be had.
    """
    began = time.monotonic()
    steps = draw(
        soak.seed,
        soak.kills,
        brokers=soak.brokers,
        workers=soak.workers,
        users=soak.users,
        learner=soak.learner,
    )
    with Cluster(directory=home / "kafka", brokers=soak.brokers) as cluster:
        fleet = Fleet(
            home,
            cluster.bootstrap.split(","),
            workers=soak.workers,
            learner=soak.learner,
            partitions=PARTITIONS,
            replication=soak.brokers,
            fault=soak.fault,
        )
        settings, kafka, _ = load_live(fleet.settings)
        create(kafka)
        traffic = Traffic(
            kafka, seed=soak.seed, users=soak.users, rate=soak.rate, until=soak.clicks
        )
        erasing = Erasing(kafka, traffic, lambda: _caught_up(kafka))
        traffic.start()
        fleet.start()
        try:
            read = 0
            for number, step in enumerate(steps, start=1):
                read = _progressed(kafka, read)
                time.sleep(step.pause)
                tell(f"{number}/{len(steps)} {step.kind.value} {step.target}")
                if step.kind.value.startswith("broker"):
                    _in_sync(kafka)
                erasing.welcome_back()
                if step.kind is Kind.USER_ERASED:
                    erasing.erase(f"user-{step.target}")
                _do(step, fleet, cluster)
            traffic.stop()
            _settled(kafka)
            erasing.settle(fleet.disks, learner=soak.learner)
        finally:
            fleet.stop()
        logs = asyncio.run(_clicks(kafka))
        expected = expect(logs, _topic(kafka), settings, erasing.asked)
        observed = asyncio.run(_observed(kafka, fleet, erasing))
        learnt = asyncio.run(published(kafka))[0] if soak.learner else []
        return Result(
            soak=soak,
            seconds=time.monotonic() - began,
            sent=traffic.sent,
            steps=steps,
            rebalances=fleet.rebalances(),
            restarts=sum(process.ended_by_itself for process in fleet.processes),
            learnt=[learned.report.window_end for learned in learnt],
            expected=expected,
            verdict=judge(expected, observed),
        )


def _do(step: Step, fleet: Fleet, cluster: Cluster) -> None:
    if step.kind.value.startswith("broker"):
        _do_to_broker(step, cluster)
        return
    worker = fleet.workers[step.target % len(fleet.workers)]
    match step.kind:
        case Kind.WORKER_KILLED:
            worker.kill()
        case Kind.WORKER_WIPED:
            worker.kill(wipe=True)
        case Kind.WORKER_STOPPED:
            worker.restart()
        case Kind.WORKER_FROZEN:
            worker.freeze(SESSION_SECONDS * 1.5)
        case Kind.WORKERS_ROLLED:
            for each in fleet.workers:
                each.restart()
        case Kind.LEARNER_KILLED if fleet.learner:
            fleet.learner.kill()


def _do_to_broker(step: Step, cluster: Cluster) -> None:
    """Take a broker away for a while; the others hold all that was acknowledged."""
    match step.kind:
        case Kind.BROKER_KILLED:
            cluster.kill(step.target)
            time.sleep(BROKER_AWAY_SECONDS)
            cluster.restart(step.target)
        case Kind.BROKER_STOPPED:
            cluster.stop(step.target)
            cluster.restart(step.target)
        case Kind.BROKER_FROZEN:
            cluster.pause(step.target)
            time.sleep(BROKER_AWAY_SECONDS)
            cluster.resume(step.target)


def _in_sync(kafka: Kafka) -> None:
    """Wait until every replica is in sync: only then may one more broker go."""
    names = [topic.name for topic in topics(kafka)]
    until = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < until:
        with suppress(KafkaAdminError):
            admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
            found = [p for topic in admin.describe_topics(names) for p in topic["partitions"]]
            admin.close()
            if all(len(p["isr_nodes"]) == len(p["replica_nodes"]) for p in found):
                return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError("replicas do not come back in sync")


def _progressed(kafka: Kafka, before: int) -> int:
    """Wait until more was read than before: a kill should hit somebody at work."""
    until = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < until:
        with suppress(KafkaError):
            read = sum(offset for _, offset in asyncio.run(_offsets(kafka)).values())
            if read > before:
                return read
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"the workers are stuck at {before} clicks")


def _caught_up(kafka: Kafka) -> None:
    """Wait until the workers have read for good what is there by now."""
    ends: dict[TopicPartition, int] = {}
    until = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < until:
        with suppress(KafkaError):
            offsets = asyncio.run(_offsets(kafka))
            ends = ends or {at: end for at, (end, _) in offsets.items()}
            if all(offsets[at][1] >= end for at, end in ends.items()):
                return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"the workers are stuck: {asyncio.run(_offsets(kafka))}")


def _settled(kafka: Kafka) -> None:
    """Wait until everything is read."""
    until = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < until:
        with suppress(KafkaError):
            if all(end == offset for end, offset in asyncio.run(_offsets(kafka)).values()):
                return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"the workers are stuck: {asyncio.run(_offsets(kafka))}")


async def _offsets(kafka: Kafka) -> dict[TopicPartition, tuple[int, int]]:
    """Return of each partition that workers read where it ends, and what is committed."""
    config = {"bootstrap_servers": kafka.bootstrap_servers, "group_id": kafka.group}
    async with AIOKafkaConsumer(enable_auto_commit=False, **config) as consumer:
        everywhere = [TopicPartition(_topic(kafka), number) for number in range(PARTITIONS)]
        everywhere.append(TopicPartition(kafka.topic_prefix + ROLLUPS, 0))
        ends = await consumer.end_offsets(everywhere)
        return {at: (ends[at], await consumer.committed(at) or 0) for at in everywhere}


async def _clicks(kafka: Kafka) -> dict[int, list[tuple[int, bytes | None]]]:
    logs: dict[int, list[tuple[int, bytes | None]]] = {n: [] for n in range(PARTITIONS)}
    for record in await _read(kafka, _topic(kafka), PARTITIONS):
        logs[record.partition].append((record.offset, record.value))
    return logs


async def _observed(kafka: Kafka, fleet: Fleet, erasing: Erasing) -> Observed:
    prefix = kafka.topic_prefix
    profiles = {r.key or b"": r.value for r in await _read(kafka, prefix + PROFILES, PARTITIONS)}
    learner = fleet.learner.disk if fleet.learner else None
    changelogs: dict[int, list[tuple[bytes, bytes | None]]] = {n: [] for n in range(PARTITIONS)}
    for record in await _read(kafka, changelog_name(kafka), PARTITIONS):
        changelogs[record.partition].append((record.key or b"", record.value))
    letters = [dict(r.headers) for r in await _read(kafka, prefix + DEAD_LETTERS, 1)]
    records = [r.value or b"" for r in await _read(kafka, prefix + ALERTS, PARTITIONS)]
    alerts = [decode_alert(record) for record in records]
    return Observed(
        disks=_disks(kafka, fleet),
        changelogs={number: content(items) for number, items in changelogs.items()},
        alerts=[(alert.id, record) for alert, record in zip(alerts, records, strict=True)],
        learners={alert.id for alert in alerts if alert.kind is AlertKind.MODEL_STALE},
        dead_letters=[
            (int(letter["driftline-partition"]), int(letter["driftline-offset"]))
            for letter in letters
        ],
        not_erased=await asyncio.to_thread(erasing.traces, fleet.disks, profiles, learner),
    )


def _disks(kafka: Kafka, fleet: Fleet) -> dict[int, Content]:
    """Return of each partition what the store holds that has come furthest."""
    found: dict[int, Content] = {}
    furthest: dict[int, int] = {}
    for worker in fleet.workers:
        for number in range(PARTITIONS):
            path = worker.disk / f"{_topic(kafka)}-{number}"
            if path.exists():
                with Store(path) as store:
                    here = content(store.replicated())
                reached = _stamped(here)
                if reached > furthest.get(number, -1):
                    found[number], furthest[number] = here, reached
    return found


def _stamped(here: Content) -> int:
    stamp = here.get(meta_key("stamp"))
    return msgspec.msgpack.decode(stamp, type=Stamp).next if stamp else 0


def _topic(kafka: Kafka) -> str:
    return kafka.topic_prefix + kafka.clicks_topic


async def _read(kafka: Kafka, topic: str, partitions: int) -> list[ConsumerRecord]:
    """Read what is committed on a topic, each partition in order."""
    everywhere = [TopicPartition(topic, number) for number in range(partitions)]
    found: list[ConsumerRecord] = []
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 << 20,
    )
    async with consumer:
        consumer.assign(everywhere)
        ends = await consumer.end_offsets(everywhere)
        while any([await consumer.position(at) < end for at, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += records
    return sorted(found, key=lambda record: (record.partition, record.offset))


def _users(content: Content) -> int:
    return sum(key.startswith(b"s") for key in content)
