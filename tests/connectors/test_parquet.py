from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import START, failure, load

MOMENT = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "times",
    [
        pa.array([MOMENT, None], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([MOMENT.replace(tzinfo=None), None], pa.timestamp("us")),
        pa.array([START, None], pa.int64()),
        pa.array([START * 1000.0, None], pa.float64()),
        pa.array(["2024-05-01T12:00:00Z", None]),
        pa.array(["2024-05-01T12:00:00Z", None]).dictionary_encode(),
        pa.array([Decimal(START), None], pa.decimal128(20, 0)),
    ],
    ids=lambda times: str(times.type),
)
def test_parquet_times_of_any_type(tmp_path, times):
    """Times keep their moment whatever column they come in; a null is missing."""
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"ts": times, "user": ["u", "u"], "item": ["i", "i"]}), path)

    events, [reject] = load(path)

    assert [(0, START, "u", "i")] == events
    assert (2, "timestamp is missing") == (reject.position, reject.reason)


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([5, 6, None]),
        pa.array([5, 6, None], pa.uint8()),
        pa.array([5.0, 6.0, None]),
        pa.array(["5", "6", None], pa.large_string()),
        pa.array([b"5", b"6", None]),
        pa.array(["5", "6", None]).dictionary_encode(),
        pa.array([Decimal(5), Decimal(6), None], pa.decimal128(9, 0)),
    ],
    ids=lambda ids: str(ids.type),
)
def test_parquet_ids_of_any_type(tmp_path, ids):
    """Ids are the same text whatever column they come in; a null is none."""
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"ts": [START] * 3, "user": ids, "item": ids}), path)

    events, [reject] = load(path)

    assert ["5", "6"] == [event[2] for event in events]
    assert (3, "item_id is missing") == (reject.position, reject.reason)


def test_parquet_text_that_is_no_text(tmp_path):
    """Invalid UTF-8 costs its own row only; a column of another kind is refused."""
    path = tmp_path / "e.parquet"
    broken = pa.array([b"a", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"ts": [START] * 2, "user": broken, "item": ["i", "i"]}), path)
    events, [reject] = load(path)

    assert ["a"] == [event[2] for event in events]
    assert "user_id is not valid UTF-8" == reject.reason
    assert b"\xff" in reject.record

    pq.write_table(pa.table({"ts": [START], "user": [[1]], "item": ["i"]}), path)
    assert "column 'user' for user_id is of type list" in failure(path)[1]


def test_parquet_without_rows(tmp_path):
    """A file of columns alone is an error, as a header alone is."""
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"ts": [1], "user": [1], "item": [1]}).slice(1), path)

    assert "has columns but no rows" in failure(path)[1]


def test_a_damaged_parquet_gives_its_events_and_then_an_error(tmp_path):
    """Row groups before the damage are read; the error names the row."""
    path = tmp_path / "e.parquet"
    size = 20_000
    table = pa.table({"ts": range(START, START + size), "user": ["u"] * size, "item": range(size)})
    pq.write_table(table, path, row_group_size=8192, write_page_checksum=True, compression="none")
    data = bytearray(path.read_bytes())
    middle = len(data) * 6 // 10
    data[middle : middle + 50] = b"\xff" * 50
    path.write_bytes(data)

    found, message = failure(path)

    assert [str(i) for i in range(8192)] == found
    assert "no sound Parquet from row 8193 on" in message


def test_no_text_is_no_value(tmp_path):
    """As in CSV: a time of none is missing, a user of none is the session."""
    path = tmp_path / "e.parquet"
    columns = {"ts": ["2024-05-01T12:00:00Z", "", "2024-05-01T12:00:00Z"], "item": ["i"] * 3}
    pq.write_table(pa.table({**columns, "user": ["u", "u", ""], "session": ["s"] * 3}), path)

    events, [reject] = load(path)

    assert [(0, START, "u", "i"), (2, START, "session:s", "i")] == events
    assert (2, "timestamp is missing") == (reject.position, reject.reason)


def test_a_column_that_is_there_twice_is_told(tmp_path):
    """Which of the two it is, nobody could say."""
    path = tmp_path / "e.parquet"
    columns = [pa.array([START]), pa.array(["u"]), pa.array(["v"]), pa.array(["i"])]
    pq.write_table(pa.Table.from_arrays(columns, ["ts", "user", "user", "item"]), path)

    assert "more than one column 'user'" in failure(path)[1]
