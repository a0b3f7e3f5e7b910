"""What is fetched by the block is what the client would have handed over one by one."""

import asyncio
from itertools import chain
from types import SimpleNamespace

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.fetching import BlockFetcher, by_block


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
    by_block(blocks)
    expected = told(ones)
    assert expected == told(chain.from_iterable(blocks))
    assert ones.next_fetch_offset == blocks.next_fetch_offset


class Assignment:
    """Partitions of which nothing has been read."""

    def __init__(self):
        self.active, self.paused, self.position = True, False, 0

    def state_value(self, _):
        return self

    def consumed_to(self, position):
        self.position = position


def test_no_more_is_taken_at_a_time_than_there_is_room_for(monkeypatch):
    """Of all partitions together so many records, and the last block whole; the rest comes next."""
    fetcher = object.__new__(BlockFetcher)
    fetcher.takes_blocks_of = lambda _: True
    fetcher._subscriptions = SimpleNamespace(reassignment_in_progress=False)
    fetcher._notify = lambda _: None
    fetcher._wait_consume_future = None

    async def answer(_):
        return True

    monkeypatch.setattr(Fetcher, "_proc_fetch_request", answer)
    places = [TopicPartition("clicks", n) for n in range(2)]
    written = log((10 * n, range(4), 1) for n in range(3))
    fetcher._records = {
        place: FetchResult(
            place,
            assignment=Assignment(),
            partition_records=fetched(written, 0, []),
            backoff=0,
        )
        for place in places
    }

    async def taken():
        await fetcher._proc_fetch_request()
        taken = []
        while found := await fetcher.fetched_records(places, max_records=6):
            taken.append({at.partition: list(map(len, blocks)) for at, blocks in found.items()})
        return taken

    assert [{0: [4, 4]}, {0: [4], 1: [4]}, {1: [4, 4]}] == asyncio.run(taken())
