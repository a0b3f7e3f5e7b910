"""What is fetched by the block is what the client would have handed over one by one."""

from itertools import chain

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.fetching import by_block


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
