"""Records are told apart by the turn in which they were taken."""

import asyncio
from types import SimpleNamespace

import pytest
from faust.transport.drivers import aiokafka
from faust.types import TP

from connectors.kafka.log_format import LogBatch
from connectors.kafka.transport import Consumer, ConsumerThread, ReadOffsets, Span

RECORDS = [
    SimpleNamespace(offset=at, timestamp=0, key=b"", value=b"", headers=[]) for at in (7, 8, 9)
]
BLOCK = [LogBatch.renewed(RECORDS, 7)]


def test_a_request_answered_after_a_rebalance_is_of_the_new_turn(monkeypatch):
    """Asked for in turn 1 and taken in turn 2, it begins where turn 2 reads: nobody else has it."""
    consumer = SimpleNamespace(
        turn=1, hands_over_batches=lambda topic: topic == "clicks", note=lambda *_: None
    )

    async def answer(*_, **__):
        consumer.turn = 2  # a rebalance, while the request waits
        return {TP("clicks", 0): [BLOCK], TP("other", 0): ["another"]}

    monkeypatch.setattr(aiokafka.AIOKafkaConsumerThread, "_fetch_records", answer)
    thread = object.__new__(ConsumerThread)
    thread.consumer = consumer
    found = asyncio.run(thread._fetch_records(None, set(), timeout=1.0))
    [taken] = found[TP("clicks", 0)]
    assert ([7, 8, 9], 2) == (taken.records.offsets.tolist(), taken.turn)
    assert ["another"] == found[TP("other", 0)]


def test_a_batch_of_a_former_turn_hides_nothing():
    """One that was on its way when a rebalance began ends behind where the new turn begins."""
    offsets = ReadOffsets(lambda topic: topic == "clicks")
    batches, records = TP("clicks", 0), TP("other", 0)
    assert [None, None] == [offsets[batches], offsets[records]]
    offsets[batches] = offsets[records] = 6850  # as Faust notes when it has handed something over
    assert [None, 6850] == [offsets[batches], offsets[records]]


@pytest.mark.parametrize(("stopping", "crashes"), [(True, 0), (False, 1)])
def test_a_partition_that_cannot_begin_crashes_no_app_that_stops(stopping, crashes):
    """The client is gone by then; its absence is no failure, and the exit code says so."""
    crashed = []

    async def fail(_):
        raise RuntimeError("the client's loop is closed")

    async def crash(error):
        crashed.append(error)

    consumer = SimpleNamespace(
        turn=1,
        app=SimpleNamespace(crash=crash, should_stop=stopping),
        _keeper_of=lambda _: SimpleNamespace(begin=fail),
    )
    span = Span("clicks", 0, earliest=0, end=9, committed=0, turn=1)
    asyncio.run(Consumer._begin(consumer, TP("clicks", 0), span))  # noqa: SLF001  Faust calls it
    assert crashes == len(crashed)
