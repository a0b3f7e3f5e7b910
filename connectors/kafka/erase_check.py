"""What is left of a user: on every topic, in every store and in the learner's files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec
from aiokafka import ConsumerRecord

from connectors.kafka.checkpoints import TOPIC as CHECKPOINTS
from connectors.kafka.messages import ALERTS, DEAD_LETTERS, LATE, PROFILES
from connectors.kafka.reading import TopicReader
from connectors.kafka.settings import Kafka
from connectors.kafka.topics import ERASURES, ROLLUPS, changelog_name
from connectors.state_files import found
from connectors.store import Store, StoreError, state_key
from connectors.traces import learner_traces
from connectors.wire import WireError, decode_rollup
from pipeline.symbols import symbol

Record: TypeAlias = "ConsumerRecord[bytes, bytes]"


@dataclass(frozen=True, slots=True)
class Trace:
    """What was found in a place."""

    where: str
    count: int
    ours: bool
    """Whether driftline has to erase it: then there may be none."""
    note: str = ""


def traces(kafka: Kafka, user: str, *, data: Path, learner: Path) -> Iterator[Trace]:
    """Look everywhere.

    Args:
        kafka: where the topics are.
        user: who it is about.
        data: of workers; stores that are not on this machine are not looked into.
        learner: the learner's directory.

    Raises:
        BusError: no broker answers, or a topic is not there.
        StoreError: a store cannot be read.
    """
    yield from _kept_by_key(kafka, changelog_name(kafka), state_key(user))
    yield from _kept_by_key(kafka, kafka.topic_prefix + PROFILES, user.encode())
    for path in _stores(data):
        with Store(path, read_only=True) as store:
            yield Trace(
                str(path), sum(state is not None for state in store.load([user])), ours=True
            )
    for where, count in learner_traces(learner, user):
        yield Trace(where, count, ours=True)
    yield from _not_ours(kafka, user)


def _stores(data: Path) -> list[Path]:
    try:
        return found(data)
    except StoreError:  # a machine without a worker
        return []


def _kept_by_key(kafka: Kafka, topic: str, key: bytes) -> Iterator[Trace]:
    """Tell what a compacted topic bears under a key: what counts, and what compaction will take."""
    newest: dict[int, bytes | None] = {}
    older: Counter[int] = Counter()
    with TopicReader(kafka, topic) as reader:
        for partition in reader.partitions:
            for record in reader.records(partition):
                if record.key == key:
                    older[partition] += record.value is not None
                    newest[partition] = record.value
    alive = sum(value is not None for value in newest.values())
    yield Trace(f"topic {topic}", alive, ours=True)
    gone = sum(older.values()) - alive
    if gone:
        yield Trace(
            f"topic {topic}", gone, ours=False, note="older records, until the brokers compact it"
        )


def _not_ours(kafka: Kafka, user: str) -> Iterator[Trace]:
    name, hashed, quoted = user.encode(), symbol(user), msgspec.json.encode(user)

    def by_key(record: Record) -> bool:
        return bool(record.key == name)

    def anywhere(record: Record) -> bool:
        return by_key(record) or quoted in (record.value or b"")

    def sampled(record: Record) -> bool:
        try:
            return hashed in decode_rollup(record.value or b"").users
        except WireError:
            return False

    retained = "until the topic's retention ends"
    places: list[tuple[str, Callable[[Record], bool], str]] = [
        (kafka.received, anywhere, f"clicks, {retained}: driftline only reads that topic"),
        (kafka.topic_prefix + ALERTS, by_key, f"alerts, {retained}"),
        (kafka.topic_prefix + DEAD_LETTERS, anywhere, f"records as received, {retained}"),
        (kafka.topic_prefix + LATE, anywhere, f"records as received, {retained}"),
        (
            kafka.topic_prefix + ROLLUPS,
            sampled,
            "samples that bear the user's hash among others, and with it categories",
        ),
        (
            kafka.topic_prefix + ERASURES,
            lambda record: (record.key or b"").split(b"\x1f")[0] == name,
            "the request and its receipts: clicks from before stay out by them",
        ),
        (kafka.topic_prefix + CHECKPOINTS, anywhere, "mentions"),
    ]
    if kafka.rekey:
        places.insert(1, (kafka.clicks, anywhere, f"clicks sent on, {retained}"))
    for topic, wanted, note in places:
        with TopicReader(kafka, topic) as reader:
            count = sum(
                wanted(record)
                for partition in reader.partitions
                for record in reader.records(partition)
            )
        if count:
            yield Trace(f"topic {topic}", count, ours=False, note=note)
