"""What is fetched by the block is what the client would have handed over one by one."""

import asyncio
from itertools import chain
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka import fetching
from connectors.kafka.fetching import BlockFetcher, _Answers, by_block
from connectors.kafka.log_format import unpacked


def log(batches):
    """Write batches, each of a first offset, the offsets kept after it, and a producer's id."""
    written = b""
    for first, kept, producer in batches:
        builder = DefaultRecordBatchBuilder(2, 0, 1, producer, 0, 0, 1 << 20)
        for at in kept:
            builder.append(at, 1000 + at, b"k", b"%d" % (first + at), [("h", b"v")])
        built = builder.build()
        built[:8] = first.to_bytes(8, "big")  # as a broker does
        written += bytes(built)
    return written


def fetched(written, start, aborted):
    return PartitionRecords(
        TopicPartition("clicks", 0),
        MemoryRecords(written),
        aborted,
        start,
        None,
        None,
        check_crcs=True,
        isolation_level=READ_COMMITTED,
    )


def told(records):
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]


def told_by(blocks):
    """Tell of blocks what `told` tells of records."""
    records = unpacked(list(chain.from_iterable(blocks)))
    columns = records.offsets.tolist(), records.timestamps.tolist(), records.keys, records.values
    return [
        (*fields, list(records.headers.get(row, ())))
        for row, fields in enumerate(zip(*columns, strict=True))
    ]


@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 9), min_size=1), st.integers(1, 2)), min_size=1, max_size=5
    ),
    st.integers(0, 49),
    st.booleans(),
)
def test_blocks_hold_what_the_client_hands_over(batches, start, aborts):
    """From wherever it starts, with gaps and without what was aborted; and it goes on alike."""
    written = log((10 * n, sorted(kept), by) for n, (kept, by) in enumerate(batches))
    aborted = [(2, 0)] if aborts else []
    ones, blocks = fetched(written, start, aborted), fetched(written, start, aborted)
    by_block(blocks, written)
    expected = told(ones)
    assert expected == told_by(blocks)
    assert ones.next_fetch_offset == blocks.next_fetch_offset


class Position:
    """How far a partition has been read, as an assignment keeps it."""

    active, paused, position = True, False, 0

    def state_value(self, _):
        return self

    def consumed_to(self, position):
        self.position = position


class Answered(BlockFetcher):
    """A fetcher whose requests were answered, with these bytes for so many partitions."""

    def __init__(self, *answers):
        self.takes_blocks_of = lambda _: True
        self._client = SimpleNamespace()
        self.written = answers
        self.positions = [Position() for _ in answers]
        self.places = [TopicPartition("clicks", number) for number in range(len(answers))]
        self._subscriptions = SimpleNamespace(reassignment_in_progress=False)
        self._wait_consume_future = None
        self._records = {
            place: FetchResult(
                place, assignment=at, partition_records=fetched(written, 0, []), backoff=0
            )
            for place, at, written in zip(self.places, self.positions, answers, strict=True)
        }

    def _notify(self, _):
        pass

    async def taken(self, most):
        """Return the records that come next by partition, each by its block and offset."""
        self._client.newest = dict(zip(self.places, self.written, strict=True))
        await self._proc_fetch_request()
        found = await self.fetched_records(self.places, max_records=most)
        return {
            at.partition: [unpacked(block).offsets.tolist() for block in blocks]
            for at, blocks in found.items()
        }


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Have blocks of three records or more, and no requests sent."""

    async def answer(_):
        return True

    monkeypatch.setattr(Fetcher, "_proc_fetch_request", answer)
    monkeypatch.setattr(fetching, "LEAST", 3)


def test_no_more_is_taken_at_a_time_than_there_is_room_for():
    """Of all partitions together so many records, and the last block whole; the rest comes next."""
    fetcher = Answered(*[log((10 * n, [0, 1, 2], 1) for n in range(3))] * 2)

    async def taken():
        return [await fetcher.taken(5) for _ in range(4)]

    one, two, three = [0, 1, 2], [10, 11, 12], [20, 21, 22]
    assert [{0: [one, two]}, {0: [three], 1: [one]}, {1: [two, three]}, {}] == asyncio.run(taken())


@pytest.mark.parametrize("sound", [[0], [0, 1, 2], [0, 1, 2, 3]])
def test_what_comes_before_damage_is_read(sound):
    """The position is behind it; the damage is told when it is met again."""
    damaged = bytearray(log([(len(sound), [0, 1, 2], 1)]))
    damaged[-1] ^= 1
    fetcher = Answered(log([(0, sound, 1)]) + bytes(damaged))
    assert {0: [sound]} == asyncio.run(fetcher.taken(100))
    assert [len(sound)] == [at.position for at in fetcher.positions]
    assert {} == asyncio.run(fetcher.taken(100))  # from where it is fetched anew
    with pytest.raises(CorruptRecordException):
        asyncio.run(Answered(bytes(damaged)).taken(100))


@pytest.mark.parametrize("magic", [0, 1])
def test_batches_of_older_formats_are_read(magic):
    """The client parses them, and they are written anew."""
    builder = LegacyRecordBatchBuilder(magic, 0, 1 << 20)
    builder.append(0, timestamp=None if magic == 0 else 1000, key=b"k", value=b"v")
    written = bytes(builder.build())
    blocks = fetched(written, 0, [])
    by_block(blocks, written)
    time = -1 if magic == 0 else 1000
    assert [(0, time, b"k", b"v", [])] == told_by(blocks)


def test_answers_of_several_brokers_do_not_mix():
    """Of each answer the bytes are kept while it is looked at; other requests pass through."""

    class Client:
        closed = False

        async def send(self, node, request):
            await asyncio.sleep(0)
            if not isinstance(request, FetchRequest):
                return "another answer"
            return SimpleNamespace(topics=[("clicks", [(node, 0, 9, None, b"log %d" % node)])])

    async def asked(answers, node):
        await answers.send(node, FetchRequest(0, 0, 0, 0, []))
        return answers.newest

    async def both():
        answers = _Answers(Client())
        assert "another answer" == await answers.send(0, "another request")
        assert answers.closed is False
        return await asyncio.gather(asked(answers, 0), asked(answers, 1))

    expected = [{TopicPartition("clicks", n): b"log %d" % n} for n in range(2)]
    assert expected == asyncio.run(both())
