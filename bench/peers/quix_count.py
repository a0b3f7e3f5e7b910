"""Quix Streams: decode and count by user in its state store, RocksDB with changelog."""

from __future__ import annotations

import tempfile
import time
from typing import Any

from clock import BROKERS, TOPIC, Clock
from quixstreams import Application, State

app = Application(
    broker_address=BROKERS,
    consumer_group=f"quix-{time.time_ns()}",
    auto_offset_reset="earliest",
    state_dir=tempfile.mkdtemp(prefix="driftline-bench-quix-"),
)
clock = Clock()


def count(_: Any, state: State) -> None:
    """Count an event."""
    state.set("count", state.get("count", 0) + 1)
    clock.tick()


frame = app.dataframe(app.topic(TOPIC, value_deserializer="json", key_deserializer="bytes"))
frame.update(count, stateful=True)
app.run()
