"""Stock Faust: an agent that decodes and counts by user in a Table, in memory, with changelog."""

from __future__ import annotations

import time

import faust
import msgspec

from bench.peers.clock import BROKERS, TOPIC, Clock

app = faust.App(
    f"faust-{time.time_ns()}",
    broker=f"kafka://{BROKERS}",
    store="memory://",
    topic_partitions=2,
    topic_replication_factor=1,
    topic_disable_leader=True,
    web_enabled=False,
    autodiscover=False,
    consumer_auto_offset_reset="earliest",
)
clicks = app.topic(TOPIC, value_type=bytes, value_serializer="raw", key_serializer="raw")
counts = app.Table("counts", default=int)
clock, decode = Clock(), msgspec.json.Decoder().decode


@app.agent(clicks)
async def count(stream: faust.Stream[bytes]) -> None:
    """Count an event."""
    async for value in stream:
        counts[decode(value)["user_id"]] += 1
        clock.tick()


faust.Worker(app, loglevel="ERROR", redirect_stdouts=False).execute_from_commandline()
