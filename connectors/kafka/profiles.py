"""The interest profiles on the bus, as users' interests over time."""

from __future__ import annotations

import logging

import pyarrow as pa
from msgspec import to_builtins

from connectors.interest_history import SCHEMA, interests_of
from connectors.kafka.messages import PROFILES
from connectors.kafka.reading import TopicReader
from connectors.kafka.settings import Kafka
from connectors.wire import WireError, decode_profile
from pipeline.events import InterestProfile
from pipeline.segments import Interests

log = logging.getLogger(__name__)


def bus_interests(kafka: Kafka) -> Interests:
    """Read all profiles that compaction has left of their topic.

    A user whose newest record is a tombstone was erased, and is left out.

    Raises:
        BusError: no broker answers, or the topic is not there.
    """
    found: dict[bytes, list[InterestProfile]] = {}
    with TopicReader(kafka, kafka.topic_prefix + PROFILES) as reader:
        for partition in reader.partitions:
            for record in reader.records(partition):
                key = record.key or b""
                if record.value is None:
                    found.pop(key, None)
                    continue
                try:
                    found.setdefault(key, []).append(decode_profile(record.value))
                except WireError as error:
                    at = (record.topic, record.partition, record.offset)
                    log.warning("%s/%d, offset %d: %s; passed over", *at, error)
    profiles = [profile for of_user in found.values() for profile in of_user]
    return interests_of(
        pa.table(
            {
                "user_id": [profile.user_id for profile in profiles],
                "time": [profile.time for profile in profiles],
                "short_term": [to_builtins(profile.short_term) for profile in profiles],
            },
            schema=SCHEMA,
        )
    )
