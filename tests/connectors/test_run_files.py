"""A file of a replay that somebody damaged is told by its name, with how to mend it."""

import msgspec
import pytest

from connectors.run_error import RunError
from connectors.run_files import read_lines, read_table


class Row(msgspec.Struct):
    number: int


def test_lines_are_read_up_to_the_broken_one(tmp_path):
    """The error names the line; a file that is not there has none."""
    path = tmp_path / "rows.jsonl"
    assert [] == list(read_lines(path, Row))
    path.write_bytes(b'{"number":1}\n\n{"number":2}\n{"num')
    lines = read_lines(path, Row)
    assert [Row(1), Row(2)] == [next(lines), next(lines)]
    with pytest.raises(RunError, match=r"rows\.jsonl, line 4 is damaged: .*--overwrite"):
        next(lines)


@pytest.mark.parametrize("content", [b"", b"no table", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_table_that_is_none_is_told(tmp_path, content):
    """Whatever stands in its place."""
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"rows\.parquet is damaged: .*--overwrite"):
        read_table(path)


def test_a_table_that_cannot_be_read_is_not_called_damaged(tmp_path):
    """It may be sound: nobody is told to replace it."""
    with pytest.raises(OSError, match="directory"):
        read_table(tmp_path / "no.parquet" / "rows.parquet")
