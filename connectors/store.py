"""User states, names and progress in RocksDB.

One database a source. Everything that an engine hands over goes in by one atomic, synced write,
so that after a crash states and progress still agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from pipeline.engine import Changes

_STATE, _NAME, _META = b"s", b"n", b"m"
_PROGRESS = _META + b"progress"

MEMORY = 128 << 20
"""Bytes for the block cache and write buffers together."""


class StoreError(Exception):
    """The store cannot be opened, read or written; the message says which and why."""


class Store:
    """States by user, names by symbol, and small values of the driver's own by key."""

    def __init__(self, path: Path) -> None:
        """Open the database at `path`, or make it.

        Raises:
            StoreError: Another process has it open, the disk is full, or it is corrupt.
        """
        self.path = path
        try:
            self._db = Rdict(str(path), _options())
        except Exception as error:  # noqa: BLE001  rocksdict raises bare Exception
            raise StoreError(f"cannot open the state store {path}: {error}") from None
        durable = WriteOptions()
        durable.sync = True
        self._db.set_write_options(durable)

    def load(self, users: Sequence[str]) -> list[bytes | None]:
        """Return the encoded states of some users; None for one never seen."""
        found: Any = self._db.get([_STATE + user.encode() for user in users])
        return cast("list[bytes | None]", found)

    def name(self, number: int) -> str | None:
        """Return the text behind a symbol."""
        text = self._db.get(_NAME + number.to_bytes(8))
        return None if text is None else text.decode()

    def progress(self) -> bytes | None:
        """Return the engine's progress as of the last commit."""
        found: bytes | None = self._db.get(_PROGRESS)
        return found

    def get(self, key: str) -> bytes | None:
        """Return a value of the driver's own."""
        found: bytes | None = self._db.get(_META + b"/" + key.encode())
        return found

    def commit(self, changes: Changes, values: Mapping[str, bytes]) -> None:
        """Make changes and the driver's values durable, all of them or none.

        Raises:
            StoreError: The disk is full or failing; nothing was changed.
        """
        batch = WriteBatch(raw_mode=True)
        for user, state in changes.states:
            batch.put(_STATE + user.encode(), state)
        for number, name in changes.names.items():
            batch.put(_NAME + number.to_bytes(8), name.encode())
        for key, value in values.items():
            batch.put(_META + b"/" + key.encode(), value)
        batch.put(_PROGRESS, changes.progress)
        try:
            self._db.write(batch)
        except Exception as error:  # noqa: BLE001  rocksdict raises bare Exception
            raise StoreError(f"cannot write to the state store {self.path}: {error}") from None

    def states(self) -> Iterator[tuple[str, bytes]]:
        """Iterate over all users and their encoded states, in byte order of the users."""
        iterator = self._db.iter()
        iterator.seek(_STATE)
        while iterator.valid():
            key = iterator.key()
            if not key.startswith(_STATE):
                break
            yield key[1:].decode(), iterator.value()
            iterator.next()

    def close(self) -> None:
        """Flush and release the database.

        Raises:
            StoreError: The disk is full or failing; what was committed is in the log all the same.
        """
        try:
            self._db.close()
        except Exception as error:  # noqa: BLE001  rocksdict raises bare Exception
            raise StoreError(f"cannot close the state store {self.path}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(MEMORY // 4)
    options.set_max_open_files(256)
    options.set_paranoid_checks(True)
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(MEMORY // 2))
    tables.set_bloom_filter(10, block_based=False)
    tables.set_cache_index_and_filter_blocks(True)
    options.set_block_based_table_factory(tables)
    return options
