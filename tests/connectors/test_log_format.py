"""What is read of batches of the log is what the client's own parser reads of them."""

from itertools import chain
from struct import pack_into

import numba
import pytest
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatch, LegacyRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka import log_format
from connectors.kafka.log_format import LogBatch, split, unpacked

HEAD = 61
ENCODERS = [bytes, gzip_encode, snappy_encode, lz4_encode, zstd_encode]
APPEND_TIME = 0x08
TIME = 1_714_564_800_123

GOLDEN = bytes.fromhex(
    "000000000000002a 0000005d ffffffff 02 17240301"  # offset, length, epoch, version, checksum
    "0000 00000005 0000018f34069e7b 0000018f34169e7b"  # attributes, last offset, times
    "ffffffffffffffff ffff ffffffff 00000003"  # a producer of no name, three records
    "30 00 00 00 08616e6e61 047b7d 04 0a63655f6964 043137 0268 01"
    "0e 00 f501 06 01 01 00"  # earlier, without key and value
    "14 00 80808001 0a 00 0276 00"
)
GOLDEN_RECORDS = [
    (42, TIME, b"anna", b"{}", [("ce_id", b"17"), ("h", None)]),
    (45, TIME - 123, None, None, []),
    (47, TIME + 2**20, b"", b"v", []),
]


def batch(first, records, codec=0, appended=None):
    """Write a batch as a broker has it; its records are steps from the first offset and fields."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for record in records:
        builder.append(*record)
    built = bytes(builder.build())
    written = bytearray(built[:HEAD] + ENCODERS[codec](built[HEAD:]))
    pack_into(">qi", written, 0, first, len(written) - 12)
    pack_into(">h", written, 21, codec)
    if appended is not None:
        pack_into(">h", written, 21, codec | APPEND_TIME)
        pack_into(">q", written, 35, appended)
    return bytes(written)


def fields(records):
    """Return records by column as a tuple each."""
    columns = records.offsets.tolist(), records.timestamps.tolist(), records.keys, records.values
    return [
        (*told, list(records.headers.get(row, [])))
        for row, told in enumerate(zip(*columns, strict=True))
    ]


def fields_by_the_client(parsed):
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in parsed]


content = st.none() | st.binary(max_size=5) | st.sampled_from([b"click" * 40, b"\xff" * 64])
headers = st.lists(st.tuples(st.text(max_size=3), content), max_size=3)
times = st.integers(-1, 2**41) | st.sampled_from([TIME, TIME - 1, TIME + 10**9, 2**60])
steps = st.integers(0, 9) | st.integers(0, 2**31 - 1)
rows = st.tuples(steps, times, content, content, headers)
some_rows = st.lists(rows, min_size=1, max_size=4, unique_by=lambda row: row[0]).map(sorted)


@st.composite
def logs(draw):
    """Draw batches, one behind the other, with gaps between them; one may hold nothing more."""
    first, log = 0, []
    for _ in range(draw(st.integers(0, 3))):
        first += draw(st.integers(0, 2) | st.just(2**40))
        rows = draw(some_rows | st.just([]))
        codec = draw(st.integers(0, 4)) if rows else 0
        log.append(batch(first, rows, codec, draw(st.none() | times.map(abs))))
        first += rows[-1][0] + 1 if rows else 5
    return log


@given(logs(), st.just(0) | st.integers(0, 20) | st.integers(2**40, 2**40 + 9))
def test_records_are_those_of_the_clients_parser(log, wanted):
    """Of any codec, with any times, and from the offset on that is wanted."""
    ones = chain.from_iterable(map(DefaultRecordBatch, log))
    expected = [told for told in fields_by_the_client(ones) if told[0] >= wanted]
    found = unpacked([LogBatch.of(written, wanted) for written in split(b"".join(log))])
    assert expected == fields(found)
    assert len(expected) == len(found)


def test_the_bytes_of_a_batch_stay_readable():
    """The records of these, whatever else changes."""
    assert GOLDEN_RECORDS == fields(unpacked([LogBatch.of(GOLDEN, 0)]))
    assert GOLDEN_RECORDS == fields_by_the_client(DefaultRecordBatch(GOLDEN))


@pytest.mark.parametrize(("wanted", "left"), [(42, 3), (43, 2), (45, 2), (46, 1), (48, 0)])
def test_records_before_those_wanted_are_dropped(wanted, left):
    """Of each batch by itself; headers stay with their record."""
    behind = batch(50, [(0, TIME, None, b"next", [("n", b"1")])])
    found = unpacked([LogBatch.of(GOLDEN, wanted), LogBatch.of(behind, 0)])
    expected = [*GOLDEN_RECORDS[3 - left :], (50, TIME, None, b"next", [("n", b"1")])]
    assert expected == fields(found)


def test_no_batches_have_no_records():
    """Where nothing came, or nothing of it is to be seen."""
    assert [] == fields(unpacked([]))
    assert [] == fields(unpacked([LogBatch.of(batch(0, []), 0)]))


@given(
    st.sampled_from([0, 1]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([0, 5, 2**31, 2**40]),
    st.lists(st.tuples(st.integers(0, 2**41), content, content), min_size=1, max_size=4),
)
def test_older_batches_are_written_anew(magic, codec, first, rows):
    """From whatever offset on; records that have no time have -1."""
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for place, (time, key, value) in enumerate(rows):
        builder.append(place, timestamp=time if magic else None, key=key, value=value)
    older = [bytearray(part) for part in split(bytes(builder.build()))]
    for place, part in enumerate(older):
        last = place if len(older) > 1 else len(rows) - 1
        pack_into(">q", part, 0, first + last)
    parsed = chain.from_iterable(LegacyRecordBatch(part, magic) for part in older)
    expected = [
        (offset, time if magic else -1, *others)
        for offset, time, *others in fields_by_the_client(parsed)
    ]
    renewed = [LogBatch.renewed(LegacyRecordBatch(part, magic), 0) for part in older]
    assert expected == fields(unpacked(renewed))
    assert [row[1:] for row in rows] == [told[2:4] for told in expected]


@given(logs(), st.integers(0, 2000))
def test_batches_are_told_apart_up_to_a_cut_one(log, cut):
    """What a fetch cut off at its end is fetched anew."""
    written = b"".join(log)
    whole = []
    for part in log:
        if len(b"".join([*whole, part])) > cut:
            break
        whole.append(part)
    assert whole == list(split(written[:cut]))


def test_a_codec_of_the_future_is_refused():
    """By its number, as the client does."""
    written = bytearray(GOLDEN)
    pack_into(">h", written, 21, 5)
    with pytest.raises(UnsupportedCodecError, match="codec 5"):
        LogBatch.of(written, 0)


@pytest.fixture(scope="module")
def _checked():
    """Have what is compiled raise an IndexError where it leaves an array."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_varint", "_bytes", "_unpack"):
            plain = getattr(log_format, name).py_func
            patch.setattr(log_format, name, numba.njit(boundscheck=True)(plain))
        yield


def read_or_refused(*payloads):
    """Read bytes as batches, each of so many records; return how many, None if refused."""
    batches = [LogBatch(data, count, 7, TIME, -1, wanted=0) for data, count in payloads]
    data = b"".join(data for data, _ in payloads)
    try:
        records = unpacked(batches)
    except CorruptRecordException:
        return None
    for packed in (records.keys, records.values):
        assert all(
            start == -1 or 0 <= start <= stop <= len(data)
            for start, stop in zip(packed.starts.tolist(), packed.stops.tolist(), strict=True)
        )
    told = chain.from_iterable(records.headers.values())
    assert all(value is None or value in data for _, value in told)
    assert all(0 <= row < len(records) for row in records.headers)
    assert all(count >= 0 for _, count in payloads)
    return len(records)


@st.composite
def damaged(draw):
    """Draw the payload of a batch with bytes changed, left out and put in, and a count."""
    rows = draw(some_rows)
    data = batch(0, rows)[HEAD:]
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        stop = start + draw(st.sampled_from([0, 1, 1, 1, 2, len(data)]))
        new = st.binary(max_size=2) | st.sampled_from(
            [b"\xff" * 9 + b"\x01", b"\xfe" * 9 + b"\x01"]
        )
        data = data[:start] + draw(new) + data[stop:]
    counts = st.just(len(rows)) | st.integers(-2, 9) | st.integers(-(2**31), 2**31 - 1)
    return data, draw(counts)


@pytest.mark.usefixtures("_checked")
@given(st.lists(damaged(), min_size=1, max_size=3))
def test_damage_is_refused_or_read_within_bounds(payloads):
    """No bytes lead out of the batch, and no count out of memory."""
    assert read_or_refused(*payloads) in {None, sum(count for _, count in payloads)}


SOUND = GOLDEN[HEAD:]


@pytest.mark.usefixtures("_checked")
@pytest.mark.parametrize(
    "payloads",
    [
        [(SOUND, 2)],
        [(SOUND, 4)],
        [(SOUND, 0)],
        [(SOUND, -1)],
        [(SOUND, 2**31 - 1)],
        [(SOUND, -(2**31))],
        [(b"", 1)],
        [(b"", -1)],
        [(b"", -3), (SOUND, 3)],
        [(SOUND, 4), (SOUND, 2)],
        [(SOUND[:-1], 3)],
        [(SOUND + b"\0", 3)],
        [(SOUND[:-1] + b"\x01", 3)],
        [(b"\xfe" + b"\xff" * 8 + b"\x01" + SOUND[1:], 3)],
        [(b"\x0c" + b"\0" * 6, 1), (b"", 0), (b"\0", 1)],
        [(b"\0" * 9, 1)],
        [(b"\x32" + SOUND[1:], 3)],
        [(b"\x2e" + SOUND[1:], 3)],
        [(bytes.fromhex("10 00 00 00 01 01 02 01 01"), 1)],
        [(b"\x7e" + SOUND[1:], 3)],
    ],
)
def test_counts_and_lengths_that_cannot_be_are_refused(payloads):
    """Too few records, too many, less than none, and lengths of more than there is."""
    assert read_or_refused(*payloads) is None
