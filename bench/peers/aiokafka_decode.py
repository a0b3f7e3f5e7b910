"""Bare aiokafka: fetch and decode, nothing else."""

from __future__ import annotations

import asyncio

import msgspec
from aiokafka import AIOKafkaConsumer

from bench.peers.clock import BROKERS, TOPIC, Clock


async def main() -> None:
    """Read to the end."""
    clock, decode = Clock(), msgspec.json.Decoder().decode
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=BROKERS, auto_offset_reset="earliest")
    await consumer.start()
    while True:
        for records in (await consumer.getmany(timeout_ms=500, max_records=16_384)).values():
            for record in records:
                decode(record.value)
            clock.tick(len(records))


asyncio.run(main())
