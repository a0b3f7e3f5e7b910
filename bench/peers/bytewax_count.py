"""Bytewax: decode and count by user in its state, in memory, without recovery."""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from clock import BROKERS, TOPIC, Clock

clock = Clock()


class _Partition(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        clock.tick(len(items))


class _Nowhere(DynamicSink[Any]):
    def build(self, _step: str, _worker: int, _workers: int) -> _Partition:
        return _Partition()


def count(state: int | None, _: Any) -> tuple[int, int]:
    """Count an event."""
    return (state or 0) + 1, (state or 0) + 1


flow = Dataflow("count")
clicks = op.input("in", flow, KafkaSource([BROKERS], [TOPIC], batch_size=5000))
decoded = op.map("decode", clicks, lambda message: orjson.loads(message.value))
keyed = op.key_on("key", decoded, lambda click: click["user_id"])
op.output("out", op.stateful_map("count", keyed, count), _Nowhere())
run_main(flow)
