"""The alerts on the bus, each one once."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from aiokafka import ConsumerRecord

from connectors.kafka.messages import ALERTS
from connectors.kafka.reading import TopicReader
from connectors.kafka.settings import Kafka
from connectors.wire import WireError, decode_alert
from pipeline.events import AlertKind, DriftAlert

log = logging.getLogger(__name__)


def bus_alerts(kafka: Kafka, *, follow: bool = False) -> Iterator[DriftAlert]:
    """Read alerts from the beginning of their topic; one that was told twice comes once.

    Those of one subject come in order, those of different subjects as the brokers have them.

    Args:
        kafka: where from.
        follow: whether to wait for more at the end, for good.

    Raises:
        BusError: no broker answers, or the topic is not there.
    """
    known: set[str] = set()
    with TopicReader(kafka, kafka.topic_prefix + ALERTS) as reader:
        for record in _records(reader, follow=follow):
            try:
                alert = decode_alert(record.value or b"")
            except WireError as error:
                at = (record.topic, record.partition, record.offset)
                log.warning("%s/%d, offset %d: %s; passed over", *at, error)
                continue
            if alert.id not in known:
                known.add(alert.id)
                yield alert


def population_shifts(kafka: Kafka) -> list[DriftAlert]:
    """Return the alerts about the population so far, which stand for users' alerts."""
    return [alert for alert in bus_alerts(kafka) if alert.kind == AlertKind.POPULATION_SHIFT]


def _records(reader: TopicReader, *, follow: bool) -> Iterator[ConsumerRecord[bytes, bytes]]:
    for partition in reader.partitions:
        yield from reader.records(partition)
    if follow:
        for _, records in reader.follow():
            yield from records
