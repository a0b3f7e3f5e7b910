"""Clicks out of a topic for a replay, in an order that is the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
from msgspec.structs import replace as replace_fields

from connectors.kafka.decoding import decode_records
from connectors.kafka.reading import TopicReader
from connectors.kafka.records import Records
from connectors.kafka.rekey import Origins
from connectors.kafka.settings import Kafka
from connectors.validate import Reject
from pipeline.events import Clicks, concatenate
from pipeline.settings import SettingsError, Source

_PORT = 9092
_BEGINNING = -(2**62)


def bus_batches(
    url: str, *, kafka: Kafka | None = None, source: Source | None = None
) -> Iterator[tuple[Clicks, list[Reject]]]:
    """Read a click topic from its beginning to where it ends now, as one log.

    Each partition's clicks come in their order. Partitions are merged by event time: the next
    click is that of the partition whose newest event time so far, this click's included, is the
    smallest, and among equals that of the lowest number. How records are fetched does not matter,
    and memory holds one fetch of each partition.

    Args:
        url: kafka://broker:port/topic, the topic's whole name; further brokers after commas.
            Without a port it is 9092.
        kafka: TLS and passwords; the servers are those of the address.
        source: the layout and the range of event times.

    Yields:
        Clicks whose positions count through the whole log, and the rejects met meanwhile, each
        with the partition and the offset where it stands.

    Raises:
        BusError: no broker answers, or the topic is not there.
        SettingsError: the address is none.
    """
    servers, topic = _parts(url)
    kafka = replace_fields(kafka or Kafka(), bootstrap_servers=servers)
    position = 0
    with TopicReader(kafka, topic) as reader:
        rejects: list[Reject] = []
        logs = [_Log(reader, topic, n, source or Source(), rejects) for n in reader.partitions]
        for clicks in _merged(topic, logs):
            counted = replace(clicks, position=np.arange(position, position + len(clicks)))
            position += len(clicks)
            yield counted, rejects.copy()
            rejects.clear()
        if rejects:
            nothing, _ = decode_records(Records.of([]), topic, source or Source())
            yield nothing, rejects


class _Log:
    """One partition: what is at hand of it, each click with its key for merging.

    The key is the newest event time so far, so that it never falls within a partition.
    """

    def __init__(
        self, reader: TopicReader, topic: str, number: int, source: Source, rejects: list[Reject]
    ) -> None:
        self.number = number
        self.ended = False
        self.keys = np.zeros(0, np.int64)
        self._reader = reader
        self._topic = topic
        self._name = f"{topic}/{number}"
        self._source = source
        self._rejects = rejects
        self._newest = _BEGINNING
        self._origins = Origins()

    def fill(self) -> None:
        """Read on where nothing is at hand, up to the end of the partition."""
        while not len(self.keys) and not self.ended:
            records = Records.of(self._reader.next(self.number))
            self.ended = not len(records)
            self._clicks, wrong = decode_records(
                self._origins.fresh(self._topic, records), self._name, self._source
            )
            self._rejects += wrong
            if len(self._clicks):
                newest = np.maximum.accumulate(self._clicks.time)
                self.keys = np.maximum(newest, self._newest)
                self._newest = int(self.keys[-1])

    def take(self, limit: tuple[int, int]) -> tuple[Clicks, np.ndarray]:
        """Remove the clicks up to a key and partition number, and return them and their keys."""
        inclusive = self.number <= limit[1]
        count = int(np.searchsorted(self.keys, limit[0], "right" if inclusive else "left"))
        taken, keys = self._clicks.take(slice(count)), self.keys[:count]
        self._clicks, self.keys = self._clicks.take(slice(count, None)), self.keys[count:]
        return concatenate([taken]), keys


def _merged(topic: str, logs: list[_Log]) -> Iterator[Clicks]:
    """Merge partitions up to where each is known, again and again."""
    while True:
        for log in logs:
            log.fill()
        known = [(int(log.keys[-1]), log.number) for log in logs if len(log.keys)]
        if not known:
            return
        taken = [log.take(min(known)) for log in logs if len(log.keys)]
        keys = np.concatenate([keys for _, keys in taken])
        clicks = replace(concatenate([clicks for clicks, _ in taken]), source=topic)
        yield clicks.take(np.argsort(keys, kind="stable"))  # of equals the lower partition first


def _parts(url: str) -> tuple[list[str], str]:
    found = urlsplit(url)
    topic = found.path.strip("/")
    if found.scheme != "kafka" or not found.netloc or not topic or "/" in topic:
        raise SettingsError(f"{url!r} is no address of a topic: write kafka://host:9092/clicks")
    servers = found.netloc.split(",")
    return [s if ":" in s.rpartition("]")[2] else f"{s}:{_PORT}" for s in servers], topic
