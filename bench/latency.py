"""From click to alert: milliseconds between the brokers' times of both records.

python -m bench.latency [--rate 10000] [--seconds 30]

A worker reads real events offered at a rate; alerts are made frequent, so that there are many to
measure. Both topics bear the time at which the broker took a record, to the millisecond. The
events are batches of records before the clock starts, so that to offer them takes next to nothing
of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer

from bench.live import events, offsets, started
from bench.machine import save
from connectors.kafka.messages import ALERTS
from connectors.kafka.metadata import partitions
from connectors.kafka.produce import Record, produce
from connectors.kafka.reading import TopicReader
from connectors.kafka.security import client_config
from connectors.kafka.sender import partition_of
from connectors.kafka.settings import Kafka
from connectors.kafka.topics import LARGEST, create
from connectors.wire import decode_alert
from deploy.kafka.cluster import Cluster

WARM = 100_000
"""Events before the ones that are measured: users have to be known to drift."""
SENSITIVE = "[drift]\nevents_per_false_alarm = 1_000\nminimum_events = 8\n"
"""Alerts ten times as frequent as by default; many more, and to make them is what is measured."""
TARGET = 250.0
"""Milliseconds, of the 99th percentile."""
PATIENCE = 120.0
SLICE_SECONDS = 0.01
"""Events of so long go as one batch a partition."""


def wait_read(port: int, count: int) -> None:
    """Wait until a worker has dealt with so many records."""
    until = time.monotonic() + PATIENCE
    while offsets(port) < count:
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.2)


async def offer(kafka: Kafka, records: list[Record], rate: int) -> tuple[float, float]:
    """Send records; return when the first went, in milliseconds, and how many went a second."""
    sizes = {"max_batch_size": LARGEST, "max_request_size": LARGEST}
    count = len(await partitions(kafka, kafka.clicks))
    async with AIOKafkaProducer(**sizes, **client_config(kafka)) as producer:
        slices, size = [], max(1, int(rate * SLICE_SECONDS))
        for some in (records[first : first + size] for first in range(0, len(records), size)):
            batches = [producer.create_batch() for _ in range(count)]
            for _, key, value in some:
                batches[partition_of(key, count)].append(timestamp=None, key=key, value=value)
            slices.append([(n, batch) for n, batch in enumerate(batches) if batch.record_count()])
        began, clock = time.time() * 1000, time.monotonic()
        sent = []
        for number, batches in enumerate(slices):
            await asyncio.sleep(clock + number * SLICE_SECONDS - time.monotonic())
            for partition, batch in batches:
                sent.append(await producer.send_batch(batch, kafka.clicks, partition=partition))
        await asyncio.gather(*sent)
        return began, len(records) / (time.monotonic() - clock)


def times(kafka: Kafka, topic: str) -> dict[tuple[str, int], tuple[int, bytes]]:
    """Return the broker's time and the value of each record, by partition and offset."""
    found = {}
    with TopicReader(kafka, topic) as reader:
        for number in reader.partitions:
            for record in reader.records(number):
                found[f"{topic}/{number}", record.offset] = (record.timestamp, record.value)
    return found


def main() -> None:
    """Print percentiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=30)
    options = parser.parse_args()
    count = options.rate * options.seconds
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        home = Path(folder)
        with Cluster(directory=home / "kafka") as cluster:
            servers = cluster.bootstrap.split(",")
            kafka = Kafka(bootstrap_servers=servers, partitions=2, replication=1)
            create(kafka)
            records = list(events(WARM + count))
            with started(kafka, home / "worker", SENSITIVE) as port:
                produce(kafka, records[:WARM])
                wait_read(port, WARM)
                began, offered = asyncio.run(offer(kafka, records[WARM:], options.rate))
                wait_read(port, WARM + count)
                time.sleep(1)
            clicks = times(kafka, kafka.clicks)
            waited = []
            for sent, value in times(kafka, ALERTS).values():
                alert = decode_alert(value)
                clicked = clicks.get((alert.source.source, alert.source.position), (0, b""))[0]
                if alert.kind.startswith("user") and clicked >= began:
                    waited.append(sent - clicked)
    middle, high, highest = np.percentile(waited, [50, 99, 99.9])
    print(
        f"click to alert at {offered:,.0f} events/s offered, {len(waited):,} alerts: "
        f"p50 {middle:.0f} ms, p99 {high:.0f} ms (target < {TARGET:.0f}), p99.9 {highest:.0f} ms"
    )
    figures = {"offered": offered, "alerts": len(waited), "p50": middle, "p99": high}
    print(f"  written to {save('latency', figures | {'p999': highest})}")


if __name__ == "__main__":
    main()
