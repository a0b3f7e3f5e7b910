"""The topics on the bus: what they must be like, made and checked."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError

from connectors.kafka.security import client_config
from connectors.kafka.settings import BY_USER, BusError, Kafka

CONNECT_SECONDS = 10
TRIES = 3
BETWEEN_TRIES = 2.0
"""Seconds."""
LARGEST = 16 << 20
"""Bytes of the largest message on a topic of dead letters or rollups; Kafka's default is 1 MiB."""
ROLLUPS = "category-rollups"
FORECASTS = "category-forecasts"
ERASURES = "erasures"
TOMBSTONES_KEPT = 7 * 86_400
"""Seconds in which a worker that was away learns from the changelog which users are gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic as it should be. `config` holds Kafka's own names."""

    name: str
    partitions: int
    replication: int = -1
    config: dict[str, str] = field(default_factory=dict)
    ours: bool = True
    """False where others may have made it to their own needs: then only harm is reported."""


def changelog_name(kafka: Kafka) -> str:
    """Return the name of the topic of states: each consumer group has its own."""
    return f"{kafka.topic_prefix}{kafka.group}-changelog"


def topics(kafka: Kafka) -> list[Topic]:
    """Return the topics, clicks first and the changelog last, with the prefix in their names.

    The changelog must have as many partitions as the click topic has, whatever the settings say.
    """
    retention = str(int(kafka.retention))
    # Retention goes by a record's time. Played history would be deleted at once by event time.
    kept = {
        "cleanup.policy": "delete",
        "retention.ms": retention,
        "message.timestamp.type": "LogAppendTime",
    }
    compacted = {"cleanup.policy": "compact"}
    large = {"max.message.bytes": str(LARGEST)}
    if kafka.replication > 1:  # an acknowledged record must survive the loss of a broker
        safe = {"min.insync.replicas": "2"}
        kept, compacted = kept | safe, compacted | safe

    def topic(name: str, partitions: int, config: dict[str, str], *, ours: bool = True) -> Topic:
        return Topic(
            name=kafka.topic_prefix + name,
            partitions=partitions,
            replication=kafka.replication,
            config=config,
            ours=ours,
        )

    rekeyed = [topic(kafka.clicks_topic + BY_USER, kafka.partitions, kept | large)]
    return [
        topic(kafka.clicks_topic, kafka.partitions, kept, ours=False),
        *(rekeyed if kafka.rekey else []),
        topic("interest-drift", kafka.partitions, kept),
        topic("interest-profiles", kafka.partitions, compacted),
        topic(FORECASTS, 1, compacted),
        topic("model-checkpoints", 1, compacted),  # chunks and manifest in one order
        topic("clicks-dlq", 1, kept | large),
        topic("clicks-late", 1, kept | large),
        topic(ERASURES, 1, compacted),
        # Few and small, and trends are rebuilt from them: kept for good.
        topic(ROLLUPS, 1, kept | large | {"retention.ms": "-1"}),
        Topic(
            name=changelog_name(kafka),
            partitions=kafka.partitions,
            replication=kafka.replication,
            config=compacted | large | {"delete.retention.ms": str(TOMBSTONES_KEPT * 1000)},
        ),
    ]


def create(kafka: Kafka) -> list[str]:
    """Make the topics that are not there, leave the others alone, and return the names made.

    Raises:
        BusError: no broker answers, or one refuses.
        SettingsError: see `security.client_config`.
    """
    *others, changelog = topics(kafka)
    with _admin(kafka) as admin:
        made = [topic.name for topic in others if _create(admin, topic)]
        clicks = admin.describe_topics([kafka.clicks])[0]["partitions"]
        if _create(admin, replace(changelog, partitions=len(clicks))):
            made.append(changelog.name)
    return made


def _create(admin: KafkaAdminClient, topic: Topic) -> bool:
    """Make a topic and wait until it is there; return whether it was not there before."""
    wanted = {
        "num_partitions": topic.partitions,
        "replication_factor": topic.replication,
        "configs": topic.config,
    }
    answer = admin.create_topics({topic.name: wanted}, raise_errors=False)["topics"][0]
    if answer["error_code"] == TopicAlreadyExistsError.errno:
        return False
    if answer["error_code"]:
        raise BusError(f"cannot create topic {topic.name}: {answer['error_message']}")
    admin.wait_for_topics([topic.name])
    return True


def check(kafka: Kafka) -> list[str]:
    """Compare the topics on the bus with what they should be.

    Returns:
        A sentence for every difference, with how to mend it; empty where there is none.

    Raises:
        BusError: no broker answers, or one refuses.
        SettingsError: see `security.client_config`.
    """
    wanted = topics(kafka)
    found, configs = _described(kafka, [topic.name for topic in wanted])
    differences: list[str] = []
    for topic in wanted:
        if topic.name in found:
            config = {key: entry["value"] for key, entry in configs[topic.name].items()}
            differences += _differences(kafka, topic, found[topic.name]["partitions"], config)
        else:
            lacking = f"topic {topic.name} is not there: make it with `driftline topics create`"
            differences.append(lacking)
    clicks, changelog = (found.get(name) for name in (kafka.clicks, wanted[-1].name))
    if clicks and changelog and len(changelog["partitions"]) != len(clicks["partitions"]):
        differences.append(_unequal(kafka, wanted[-1].name, len(clicks["partitions"])))
    return differences


def _described(
    kafka: Kafka, names: list[str], tries: int = TRIES
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return partitions and configurations of the topics that are there, by name.

    Of several brokers one may have gone a moment ago, and the others not have noticed yet; or one
    has made a topic that another has not heard of yet.
    """
    with _admin(kafka) as admin:
        try:
            found = {t["name"]: t for t in admin.describe_topics(names) if not t["error_code"]}
            asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in found]
            configs = admin.describe_configs(asked, config_filter="all")["topic"] if asked else {}
        except KafkaConnectionError:
            if tries == 1:
                raise
        else:
            if len(found) == len(names) or tries == 1:
                return found, configs
    time.sleep(BETWEEN_TRIES)
    return _described(kafka, names, tries - 1)


def _unequal(kafka: Kafka, changelog: str, partitions: int) -> str:
    return (
        f"topic {changelog} must have as many partitions as the click topic, {partitions}: add "
        f"some with `kafka-topics.sh --bootstrap-server {kafka.bootstrap_servers[0]} --alter "
        f"--topic {changelog} --partitions {partitions}`, or delete it and have it made anew with "
        "`driftline topics create`, and the states rebuilt from the clicks"
    )


def _differences(
    kafka: Kafka, topic: Topic, partitions: list[dict[str, Any]], config: dict[str, str]
) -> Iterator[str]:
    replicas = min(len(partition["replica_nodes"]) for partition in partitions)
    lost = [p["partition_index"] for p in partitions if p["leader_id"] < 0]
    if lost:
        yield (
            f"topic {topic.name}: partitions {lost} have no leader, so they can be neither read "
            f"nor written: bring the brokers that hold them back"
        )
    if not topic.ours:
        if "compact" in config["cleanup.policy"]:
            yield (
                f"topic {topic.name} is compacted, which deletes all but a user's newest events: "
                + _set_command(kafka, topic.name, "cleanup.policy", "delete")
            )
        return
    if len(partitions) < topic.partitions and topic.name != changelog_name(kafka):
        yield (
            f"topic {topic.name} has {len(partitions)} partitions, not {topic.partitions}: set "
            f"kafka.partitions = {len(partitions)}, or add some with `kafka-topics.sh "
            f"--bootstrap-server {kafka.bootstrap_servers[0]} --alter --topic {topic.name} "
            f"--partitions {topic.partitions}` (keys then move to other partitions)"
        )
    if replicas < topic.replication:
        yield (
            f"topic {topic.name} has {replicas} replicas, not {topic.replication}: set "
            f"kafka.replication = {replicas}, or add some with `kafka-reassign-partitions.sh`"
        )
    for key, value in topic.config.items():
        if config.get(key) != value:
            yield (
                f"topic {topic.name}: {key} is {config.get(key)}, not {value}: "
                + _set_command(kafka, topic.name, key, value)
            )


def _set_command(kafka: Kafka, topic: str, key: str, value: str) -> str:
    return (
        f"set it with `kafka-configs.sh --bootstrap-server {kafka.bootstrap_servers[0]} --alter "
        f"--topic {topic} --add-config {key}={value}`"
    )


@contextmanager
def _admin(kafka: Kafka) -> Iterator[KafkaAdminClient]:
    config = client_config(kafka)
    _require_reachable(kafka.bootstrap_servers)
    try:
        admin = KafkaAdminClient(bootstrap_timeout_ms=CONNECT_SECONDS * 1000, **config)
    except KafkaError as error:
        raise BusError(
            f"a broker listens at {kafka.servers} but does not let us in ({error}): are kafka.tls "
            f"and kafka.sasl set as it wants?"
        ) from error
    try:
        yield admin
    except KafkaError as error:
        raise BusError(f"the brokers at {kafka.servers} refused: {error}") from error
    finally:
        admin.close()


def _require_reachable(servers: list[str]) -> None:
    """Raise at once where nothing listens; the client would try on, silently, and leak sockets."""
    reasons = []
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            address = (host.strip("[]"), int(port))
            socket.create_connection(address, timeout=CONNECT_SECONDS).close()
        except OSError as error:
            reasons.append(f"{server} ({error.strerror or error})")
        else:
            return
    raise BusError(
        f"no broker answers at {', '.join(reasons)}: is Kafka running? `make kafka` starts one on "
        f"this machine"
    )
