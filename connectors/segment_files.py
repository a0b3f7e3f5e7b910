"""Segments as files: where every user is, and how many went from where to where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.run_error import RunError
from connectors.run_files import read_table
from pipeline.segments import DORMANT, NOBODY, Flows, Interests, Memberships, segments

USERS = pa.schema(
    [
        ("user_id", pa.string()),
        ("segment", pa.string()),
        ("since", pa.timestamp("ms", tz="UTC")),
        ("former", pa.string()),
        ("dormant", pa.bool_()),
    ]
)
"""The columns of segments.parquet, a user a row."""
FLOWS = pa.schema(
    [
        ("window_start", pa.timestamp("ms", tz="UTC")),
        ("from_segment", pa.string()),
        ("to_segment", pa.string()),
        ("users", pa.int64()),
    ]
)
"""The columns of segment_flows.parquet: users by where they were in the window before and are."""
Flow = tuple[int, str, str, int]
"""Start of the window in ms, from, to, users."""
FLOWS_FILE = "segment_flows.parquet"
PLACES = {NOBODY: "(new)", DORMANT: "(dormant)"}
"""Where users are who are in no segment."""
RECENT = 4
"""Windows that count as recent movement."""


def write_segments(directory: Path, interests: Interests, size: int) -> None:
    """Write segments.parquet and segment_flows.parquet, for windows of `size` milliseconds."""
    names, members, flows = segments(interests, size)
    write_table(directory / "segments.parquet", _users(interests.users, names, members))
    write_table(directory / FLOWS_FILE, _flows(_named(names, flows)))


def rows_of_flows(interests: Interests, size: int) -> list[Flow]:
    """Return what segment_flows.parquet would have."""
    names, _, flows = segments(interests, size)
    return _named(names, flows)


def read_flows(directory: Path) -> list[Flow]:
    """Read segment_flows.parquet.

    Raises:
        RunError: It is not there, or damaged.
    """
    path = directory / FLOWS_FILE
    if not path.exists():
        raise RunError(f"{directory} holds no finished replay: name its directory with --out")
    table = read_table(path)
    starts = table["window_start"].cast(pa.int64()).to_pylist()
    columns = (table[name].to_pylist() for name in ("from_segment", "to_segment", "users"))
    return list(zip(starts, *columns, strict=True))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a small Parquet file so that a crash leaves the old one or the new."""
    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def _users(users: list[str], names: list[str], members: Memberships) -> pa.Table:
    named = np.array([*names, None], object)
    return pa.table(
        {
            "user_id": users,
            "segment": named[members.known],
            "since": members.since,
            "former": named[members.former],
            "dormant": members.segment == DORMANT,
        },
        schema=USERS,
    )


def _flows(rows: list[Flow]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    return pa.table(dict(zip(FLOWS.names, columns, strict=True)), schema=FLOWS)


def _named(names: list[str], flows: list[Flows]) -> list[Flow]:
    def name(place: int) -> str:
        return PLACES.get(place) or names[place]

    return [(f.start, name(a), name(b), n) for f in flows for (a, b), n in sorted(f.users.items())]
