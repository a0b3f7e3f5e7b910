"""Users' interests over time, as a replay keeps them: Parquet files in a folder.

A row is a user's strongest short-term interests at a time, at most one a user and
`interests.profile_interval`. Each commit leaves a file named by the batches read until then, so
that a resumed run drops what it will write again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from connectors.profiles import interest_lists
from connectors.run_files import read_table
from pipeline.segments import Interests
from pipeline.snapshots import TOP, Snapshots
from pipeline.symbols import Names

FOLDER = "interests"


def _schema(text: pa.DataType, list_: Callable[[pa.DataType], pa.DataType]) -> pa.Schema:
    interest = pa.struct([("category", text), ("weight", pa.float64())])
    time = pa.timestamp("ms", tz="UTC")
    return pa.schema([("user_id", text), ("time", time), ("short_term", list_(interest))])


SCHEMA = _schema(pa.string(), pa.list_)
"""The columns of a file of the folder; interests are strongest first."""
_LARGE = _schema(pa.large_string(), pa.large_list)
"""The same for all files together: more than 2 GiB of text has no place in the other types."""


class InterestHistory:
    """Takes profiles that are due, and writes them at each commit."""

    def __init__(self, directory: Path, batches: int, names: Names) -> None:
        """Go on behind a commit after so many batches: what is newer is dropped."""
        self._folder = directory / FOLDER
        self._folder.mkdir(exist_ok=True)
        self._names = names
        self._users: list[str] = []
        self._taken: list[tuple[NDArray[np.int64], NDArray[np.void]]] = []
        for part in self._folder.iterdir():
            if part.suffix != ".parquet" or int(part.stem) > batches:
                part.unlink()

    def add(self, profiles: Snapshots) -> None:
        """Take the profiles that a batch made due."""
        if profiles.users:
            self._users += profiles.users
            self._taken.append((profiles.taken["time"].copy(), profiles.taken["short"].copy()))

    def flush(self, batches: int) -> None:
        """Make what was taken durable, as the file of a commit after so many batches."""
        if not self._users:
            return
        times, short = map(np.concatenate, zip(*self._taken, strict=True))
        table = pa.table(
            {
                "user_id": self._users,
                "time": pa.array(times, pa.timestamp("ms", tz="UTC")),
                "short_term": interest_lists(short, self._names),
            },
            schema=SCHEMA,
        )
        temporary = self._folder / f"{batches:09}.tmp"
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / f"{batches:09}.parquet")
        self._users.clear()
        self._taken.clear()


def read_history(directory: Path) -> Interests:
    """Read the interests that a replay left; there are none where it left none."""
    parts = sorted((directory / FOLDER).glob("*.parquet"))
    tables = [read_table(part, schema=SCHEMA) for part in parts]
    return interests_of(pa.concat_tables(tables) if tables else SCHEMA.empty_table())


def interests_of(table: pa.Table) -> Interests:
    """Turn rows of `SCHEMA` into arrays, in order of time; those without an interest are none."""
    table = table.cast(_LARGE)
    table = table.filter(pc.greater(pc.fill_null(pc.list_value_length(table["short_term"]), 0), 0))
    table = table.take(pc.sort_indices(table["time"])).combine_chunks()  # a stable sort
    users = _encoded(table["user_id"])
    lists = table["short_term"]
    lengths = pc.list_value_length(lists).to_numpy()
    flat = pc.list_flatten(lists)
    names = _encoded(pc.struct_field(flat, "category"))
    category = np.zeros((len(table), TOP), np.int32)
    share = np.zeros((len(table), TOP))
    held = np.arange(TOP) < lengths[:, None]
    category[held] = names.indices.to_numpy()
    share[held] = pc.struct_field(flat, "weight").to_numpy()
    return Interests(
        users=users.dictionary.to_pylist(),
        categories=names.dictionary.to_pylist(),
        user=users.indices.to_numpy().astype(np.int32),
        time=table["time"].cast(pa.int64()).to_numpy(),
        category=category,
        share=share,
    )


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    encoded = pc.dictionary_encode(column)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded
