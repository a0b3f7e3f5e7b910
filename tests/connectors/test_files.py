import gzip
import os
import re
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import START, csv_bytes, failure, load, rows, texts

from connectors.files import FileError, read
from pipeline.settings import SettingsError, Source

ONLINE_RETAIL = Path(__file__).parents[3] / "shared/data/online_retail/events.csv.gz"


@pytest.fixture
def put(tmp_path):
    """Write bytes to a file of a name and return its path."""

    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


WANTED = [(i, START + i, f"u{i % 3}", f"i{i}") for i in range(5)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_csv_of_any_dialect(put, delimiter, newline, bom):
    """Delimiter, line ends and a byte order mark make no difference."""
    data = csv_bytes(*rows(5), newline=newline).replace(b",", delimiter.encode())

    assert (WANTED, []) == load(put("events.csv", bom + data))


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_the_batch_size_changes_nothing_else(put, size):
    """Events, positions and rejects do not depend on where batches are cut."""
    path = put("events.csv", csv_bytes(*rows(2), "x", *rows(3, 2), '1,"a\nb",c', "", ""))

    events, rejects = load(path, batch_size=size)

    assert [0, 1, 3, 4, 5] == [event[0] for event in events]
    assert [4, 8] == [reject.position for reject in rejects]


def test_the_format_is_known_by_content_where_the_name_is_silent(put):
    """Without a telling name CSV, JSONL, gzip and Parquet are recognised."""
    csv_data = csv_bytes(*rows(5))
    lines = [{"ts": START + i, "user": f"u{i % 3}", "item": f"i{i}"} for i in range(5)]
    jsonl = b"\n".join(map(msgspec.json.encode, lines))
    parquet = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(lines), parquet)

    for data in (csv_data, gzip.compress(csv_data, mtime=0), jsonl, gzip.compress(jsonl)):
        assert (WANTED, []) == load(put("events", data))
    assert (WANTED, []) == load(put("events", parquet.getvalue().to_pybytes()))


def test_files_make_one_log(put):
    """Positions run on over files and count rejects; rejects name their file and line."""
    first = put("b.csv", csv_bytes("bad", *rows(2)))
    second = put("a.csv", csv_bytes(*rows(1), "bad"))

    events, rejects = load(first, second)

    assert [1, 2, 3] == [event[0] for event in events]
    assert [(str(first), 2), (str(second), 3)] == [
        (reject.source, reject.position) for reject in rejects
    ]


def test_the_fraction_read_grows_to_one(put):
    """Progress is measured in the bytes of all files."""
    plain = put("a.csv", csv_bytes(*rows(60_000)))
    packed = put("b.csv.gz", gzip.compress(plain.read_bytes(), mtime=0))
    reading = read([plain, packed], Source(), batch_size=1000)

    seen = [reading.fraction, *(reading.fraction for _ in reading)]

    assert sorted(seen) == seen
    assert 0 == seen[0]
    assert 10 < len(set(seen))
    assert 1 == reading.fraction


def test_columns_are_named_by_the_map_in_short_or_in_full(put):
    """The map wins over names that would be recognised; the rest is recognised."""
    path = put("e.csv", csv_bytes(f"{START},x,y,anna,lamp", header="ts,user_id,item_id,wer,was"))

    for given_map in ({"user": "wer", "item": "was"}, {"user_id": "wer", "item_id": "was"}):
        assert [(0, START, "anna", "lamp")] == load(path, given_map=given_map)[0]


@pytest.mark.parametrize(
    "header",
    [
        "event_time,event_type,product_id,category_code,price,user_id,user_session",
        "transaction_timestamp,action,product_id,department,sales_value,household_id,basket_id",
        "Timestamp,Behavior,ItemId,Category,Price,visitorid,SessionID",
    ],
)
def test_well_known_names_are_recognised(put, header):
    """The columns of public click data sets need no map."""
    data = csv_bytes("2019-10-01 00:00:00 UTC,cart,lamp,home.light,9.5,anna,s1", header=header)

    [(clicks, rejects)] = read([put("e.csv", data)], Source())

    assert [] == rejects
    assert [1_569_888_000_000] == clicks.time.tolist()
    columns = (clicks.event_type, clicks.item, clicks.category, clicks.user, clicks.session)
    assert [["cart"], ["lamp"], ["home.light"], ["anna"], ["s1"]] == [
        column.values for column in columns
    ]


def test_jsonl_takes_dotted_paths_and_ignores_other_keys(put):
    """Nested objects are read as on the bus."""
    data = b'{"x":[1],"data":{"user":{"id":5}},"item":"lamp","ts":"2024-05-01T12:00:00Z"}\n\n'

    events, rejects = load(put("e.jsonl", data), given_map={"user": "data.user.id"})

    assert ([(0, START, "5", "lamp")], []) == (events, rejects)


BAD_LINES = [
    ("the row has 2 fields, the header 3", "1,2"),
    ("the row has 4 fields, the header 3", "1,2,3,4"),
    ("timestamp nan is not a finite", "nan,u,i"),
    ("timestamp -1 lies outside", "-1,u,i"),
    ("timestamp 9999-12-31 lies outside", "9999-12-31,u,i"),
    ("user_id is 100000 bytes long", f"{START},{'u' * 100_000},i"),
    ("field larger than field limit|200000 bytes long", f"{START},{'u' * 200_000},i"),
    ("longer than 1048576 bytes", f"{START},{'u' * 10_000_000},i"),
    ("user_id is not valid UTF-8", f"{START},u\udcff,i"),
    ("contains a NUL byte", f"{START},u\0,i"),
    ("not a row of CSV", f'{START},"u,i'),
    ("not a row of CSV: ',' expected after", f'{START},"u"x,i'),
    ("not a row of CSV", f"{START},u\rx,i"),
]


@pytest.mark.parametrize(("word", "line"), BAD_LINES)
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_bad_line_is_rejected_and_no_other(put, word, line, quote):
    """The lines around it come through; the reject names the line and keeps its beginning."""
    good = [row.replace("u", f"{quote}u").replace(",i", f"{quote},i") for row in rows(5)]
    path = put("e.csv", csv_bytes(*good[:2], line, *good[2:]))

    events, [reject] = load(path)

    assert [0, 1, 3, 4, 5] == [event[0] for event in events]
    assert [f"i{i}" for i in range(5)] == [event[3] for event in events]
    assert re.search(word, reject.reason)
    assert 4 == reject.position
    assert line[:500].encode(errors="surrogateescape") == reject.record


def test_a_bad_line_of_jsonl_is_rejected_and_no_other(put):
    """The same rules hold for JSONL, whatever a line's length."""
    good = msgspec.json.encode({"ts": START, "user": "u", "item": "i"})
    bad = [b"junk", b"[]", b"{", b'{"user":"\xff"}', b'{"user":"%s"}' % (b"u" * 10_000_000)]
    path = put("e.jsonl", b"\n".join([good, *bad, b"", good]))

    events, rejects = load(path)

    assert [0, 6] == [event[0] for event in events]
    assert [2, 3, 4, 5, 6] == [reject.position for reject in rejects]
    assert [line[:500] for line in bad] == [reject.record for reject in rejects]
    assert "longer than 1048576 bytes" in rejects[-1].reason


def test_quoted_fields_may_hold_delimiters_quotes_and_newlines(put):
    """Rows of several lines are rows, whatever the batch size, and lines are counted right."""
    row = f'{START},"a,""b""","c\nd\r\ne"'
    path = put("e.csv", csv_bytes(*[row] * 5, "bad", row))

    for size in (1, 2, 3, 100):
        events, [reject] = load(path, batch_size=size)
        assert [(START, 'a,"b"', "c\nd\r\ne")] * 6 == [event[1:] for event in events]
        assert 17 == reject.position


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(*[st.text("ab,;\"\n\r'é \t", min_size=1, max_size=4)] * 2), min_size=1, max_size=9
    ),
    st.integers(1, 4),
)
def test_what_a_csv_writer_writes_is_read_back(put, pairs, size):
    """Quoting as the standard has it loses nothing."""
    quoted = [[f'"{text.replace(chr(34), chr(34) * 2)}"' for text in pair] for pair in pairs]
    path = put("e.csv", csv_bytes(*[f"{START},{user},{item}" for user, item in quoted]))

    events, rejects = load(path, batch_size=size)

    assert [] == rejects
    assert pairs == [event[2:] for event in events]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(), st.sampled_from(["e.csv", "e.jsonl", "e.parquet", "e", "e.csv.gz"]))
def test_no_bytes_give_a_traceback(put, data, name):
    """A file of any bytes gives events, rejects or a FileError, with or without a header."""
    for start in (b"", csv_bytes(), b'{"item":1,"user":2,"ts":3}\n'):
        path = put(name, start + data)
        said = str(path)
        try:
            for clicks, rejects in read([path], Source()):
                assert 0 < len(clicks) + len(rejects)
        except FileError as error:
            said = str(error)
        assert str(path) in said


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([*rows(3), '"', "x", f'{START},"a', f'b",i{START}', ""])))
def test_every_line_is_an_event_a_reject_or_part_of_a_row(put, lines):
    """A stray quote never swallows good rows unseen: each stands in an event or a reject."""
    path = put("e.csv", csv_bytes(*rows(1), *lines))

    events, rejects = load(path)

    positions = sorted([event[0] for event in events] + [reject.position for reject in rejects])
    assert len(events) + len(rejects) == len(positions)
    for line in set(rows(3)):
        whole = [event for event in events if event[3] == line.split(",")[2]]
        held = sum(event[2].count(line) for event in events)
        assert [*rows(1), *lines].count(line) == len(whole) + held


def test_a_long_line_takes_no_memory(put):
    """A line of 30 MB is passed over in blocks."""
    path = put("e.csv.gz", gzip.compress(csv_bytes(*rows(2), "x" * 30_000_000, *rows(2))))
    tracemalloc.start()

    events, [reject] = load(path)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 4 == len(events)
    assert 4 == reject.position
    assert peak < 12_000_000


@pytest.mark.parametrize(
    ("words", "name", "data"),
    [
        (["is empty"], "e.csv", b""),
        (["is empty"], "e", b""),
        (["is empty"], "e.jsonl", b"\n \n"),
        (["is empty"], "e.csv.gz", gzip.compress(b"", mtime=0)),
        (["a header but no events"], "e.csv", csv_bytes()),
        (["a header but no events"], "e.csv", csv_bytes("", "")),
        (["UTF-8"], "e.csv", csv_bytes(*rows(1)).decode().encode("utf-16")),
        (["none of its first 1 lines is a JSON object"], "e.jsonl", b"[1]"),
        (["no sound Parquet"], "e.parquet", b"PAR1 junk PAR1"),
        (["no sound Parquet"], "e.parquet", b""),
        (
            ["hold item", "columns are: ts, user_id, thing.", "--map item=COLUMN"],
            "e.csv",
            b"ts,user_id,thing\n1,2,3\n",
        ),
        (
            ["user or item or timestamp", "a^b^c", "--map user=COLUMN --map item=COLUMN"],
            "e.csv",
            b"a^b^c\n1^2^3\n",
        ),
        (["columns are: a, b", "--map timestamp=COLUMN"], "e.jsonl", b'{"a":1}\n{"b":2}'),
        (["header in line 1 cannot be read"], "e.csv", b'"a,b\n1,2\n'),
    ],
)
def test_a_file_that_cannot_be_read_says_why(put, words, name, data):
    """What, where, and how to mend it."""
    found, message = failure(put(name, data))

    assert [] == found
    for word in words:
        assert word in message


def test_a_map_to_a_column_that_is_not_there(put):
    """The columns there are stand in the message."""
    _, message = failure(put("e.csv", csv_bytes(*rows(1))), map={"price": "cost"})

    assert "no column 'cost' for price. Its columns are: timestamp, user_id, item_id." in message


def test_a_map_of_fields_we_do_not_have(put):
    """A slip in the map is a settings error that lists the fields."""
    with pytest.raises(SettingsError, match="'itm' is none of our fields; they are user, item"):
        load(put("e.csv", csv_bytes(*rows(1))), given_map={"itm": "x"})


@contextmanager
def no_root():
    """Act as a user without rights, where the tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_what_cannot_be_opened_is_said_before_anything_is_read(put, tmp_path):
    """All files are opened first, so that the last one's name is not wrong after an hour."""
    good = put("good.csv", csv_bytes(*rows(1)))
    locked = put("locked.csv", csv_bytes(*rows(1)))
    locked.chmod(0)

    with pytest.raises(FileError, match="no such file"):
        read([good, tmp_path / "absent.csv"], Source())
    with pytest.raises(FileError, match="is a directory"):
        read([good, tmp_path], Source())
    with no_root(), pytest.raises(FileError, match="permission denied"):
        read([locked], Source())


@pytest.mark.parametrize("sort", [False, True])
def test_a_truncated_gzip_gives_its_events_and_then_an_error(put, sort):
    """What stands before the break is read; the error names line and byte."""
    path = put("e.csv.gz", gzip.compress(csv_bytes(*rows(20_000)))[:-2000])

    found, message = failure(path, sort=sort)

    assert re.search(r"breaks off in line \d+, at byte \d+ of the file", message)
    assert 10_000 < len(found) < 20_000
    assert [f"i{i}" for i in range(len(found))] == found


def test_a_damaged_gzip_ends_in_an_error(put):
    """The checksum tells at the latest; events far before the damage are as they were."""
    data = gzip.compress(csv_bytes(*rows(20_000)))

    found, message = failure(put("e.csv.gz", data[:-1000] + b"x" * 999))

    assert [f"i{i}" for i in range(10_000)] == found[:10_000]
    assert "breaks off in line" in message


def test_sorting_is_by_time_and_stable(put):
    """Positions are places in the order of time; rejects are kept; dictionaries are small."""
    lines = [f"{START + 9 - i // 3},u{i},i{i}" for i in range(9)]
    path = put("e.csv", csv_bytes(*lines, "bad"))

    batches = list(read([path], Source(), sort=True, batch_size=4))

    assert list(range(9)) == [p for clicks, _ in batches for p in clicks.position]
    assert ["i6", "i7", "i8", "i3", "i4", "i5", "i0", "i1", "i2"] == [
        item for clicks, _ in batches for item in texts(clicks.item)
    ]
    assert [4, 4, 1] == [len(clicks.user.values) for clicks, _ in batches]
    assert [1] == [len(rejects) for _, rejects in batches if rejects]


@pytest.mark.skipif(not ONLINE_RETAIL.exists(), reason=f"{ONLINE_RETAIL} is not here")
def test_online_retail_needs_no_map():
    """A real export with its own column names is read whole."""
    clicks, rejects = next(read([ONLINE_RETAIL], Source()))

    assert [] == rejects
    assert 8192 == len(clicks)
    assert "13085" == clicks.user.values[0]
    assert {"purchase", "cancel"} == set(clicks.event_type.values)


def test_an_empty_file_among_others_ends_nothing(put, caplog):
    """Whoever writes in parts writes such; it is named in a warning."""
    paths = put("a.csv", csv_bytes(*rows(1))), put("b.csv", csv_bytes()), put("_SUCCESS", b"")
    events, rejects = load(*paths, put("c.jsonl", b""), put("d.csv", csv_bytes(*rows(1))))

    assert ([0, 1], []) == ([event[0] for event in events], rejects)
    assert ["b.csv", "_SUCCESS", "c.jsonl"] == [
        Path(record.getMessage().partition(": ")[0]).name for record in caplog.records
    ]


def test_fields_that_come_later_in_jsonl_are_read_by_our_names(put):
    """The first batch has sessions alone; a later click without one has a user."""
    early = b'{"session_id":"s","item":"a","ts":%d}\n' % START
    late = b'{"user_id":"anna","item":"b","ts":%d}\n' % START

    events, rejects = load(put("e.jsonl", early * 2 + late), batch_size=2)

    assert (["session:s", "session:s", "anna"], []) == ([event[2] for event in events], rejects)
