"""User states, names and progress in RocksDB.

One database a source. Everything that an engine hands over goes in by one atomic, synced write,
so that after a crash states and progress still agree.

Layout 1, keys and values: `s` + user: the encoded state (`pipeline.interest`); `n` + symbol in 8
bytes, big endian: the name; `mprogress`: the engine's progress; `m/` + key: a value of the driver's
own; `l`: the number of the layout. RocksDB verifies a checksum of every block that it reads. A
changelog bears the same keys and values, but for `l` and what begins with it: this disk's alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import msgspec
from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    SstFileWriter,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from pipeline.engine import Changes

LAYOUT = 1
MEMORY = 256 << 20
"""Bytes for the block caches and write buffers of all stores of a process together."""

_TAKEN_IN = "taken-in"

_BUFFER, _BULK_BUFFER = MEMORY // 8, MEMORY * 3 // 8

_STATE, _NAME, _META, _LOCAL = b"s", b"n", b"m", b"l"
_PROGRESS = _META + b"progress"

Pair = tuple[bytes, bytes | None]
"""A key and its value; None deletes it."""


class StoreError(Exception):
    """The store cannot be opened, read or written; the message says which and why."""


class CorruptStoreError(StoreError):
    """What is on the disk is not what was written."""


_Kept = TypeVar("_Kept")


def unpack(data: bytes | None, kind: type[_Kept], where: str) -> _Kept:
    """Read what a driver has packed with msgpack; nothing gives what `kind` is by default.

    Raises:
        StoreError: the bytes are not of that kind.
    """
    if data is None:
        return kind()
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(
            f"{where} holds a {kind.__name__} that this version does not read ({error}): take the "
            "version that wrote it, or delete it and have it rebuilt"
        ) from None


class Store:
    """States by user, names by symbol, and small values of the driver's own by key."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the database at `path`, or make it.

        With `read_only` it must be there, and may be in use: it is seen as it is now.

        Raises:
            StoreError: Another process has it open, the disk is full, or another version wrote it.
            CorruptStoreError: It is damaged.
        """
        self.path = path
        try:
            access = AccessType.read_write()
            if read_only:  # beside the log of whoever writes
                access = AccessType.read_only(error_if_log_file_exist=False)
            options = _options()
            # Its column family named, or RocksDB takes that one's options from the disk: without
            # cache and filters, which cannot be written down.
            self._db = Rdict(str(path), options, {"default": options}, access)
        except Exception as error:  # noqa: BLE001  rocksdict raises bare Exception
            raise _told(error, f"cannot open the state store {path}") from None
        self._durable = WriteOptions()
        self._durable.sync = True
        self._fast = WriteOptions()
        setattr(self._fast, "disable_wal", True)  # noqa: B010  a property, which its stub denies
        try:
            self._check_layout(read_only=read_only)
        except StoreError:
            self._db.close()
            raise

    def load(self, users: Sequence[str]) -> list[bytes | None]:
        """Return the encoded states of some users; None for one never seen.

        Raises:
            CorruptStoreError: A block's checksum is wrong.
        """
        return cast("list[bytes | None]", self._get([state_key(user) for user in users]))

    def name(self, number: int) -> str | None:
        """Return the text behind a symbol."""
        text = self._get(name_key(number))
        return None if text is None else text.decode()

    def progress(self) -> bytes | None:
        """Return the engine's progress as of the last commit."""
        return cast("bytes | None", self._get(_PROGRESS))

    def get(self, key: str) -> bytes | None:
        """Return a value of the driver's own."""
        return cast("bytes | None", self._get(meta_key(key)))

    def local(self, key: str) -> bytes | None:
        """Return a value about this disk, which no changelog has."""
        return cast("bytes | None", self._get(local_key(key)))

    def commit(self, changes: Changes, values: Mapping[str, bytes]) -> None:
        """Make changes and the driver's values durable, all of them or none.

        Raises:
            StoreError: The disk is full or failing; nothing was changed.
        """
        self.write(pairs(changes, values))

    def write(self, items: Iterable[Pair], *, durable: bool = True) -> None:
        """Make keys and values durable, all of them or none.

        Without `durable` they are durable only after `flush`, and may be lost in part before.

        Raises:
            StoreError: The disk is full or failing; nothing was changed.
        """
        batch = WriteBatch(raw_mode=True)
        for key, value in items:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        try:
            self._db.write(batch, self._durable if durable else self._fast)
        except Exception as error:  # noqa: BLE001  rocksdict raises bare Exception
            raise _told(error, f"cannot write to the state store {self.path}") from None

    def take_in(self, items: Mapping[bytes, bytes | None]) -> None:
        """Make many keys and values durable, all of them or none, as a file of their own.

        It spares RocksDB its log and its memory tables: for thousands of items, not for a few.

        Raises:
            StoreError: The disk is full or failing; nothing was changed.
        """
        file = self.path / _TAKEN_IN
        file.unlink(missing_ok=True)
        moved = IngestExternalFileOptions()
        moved.set_move_files(True)
        try:
            writer = SstFileWriter(_options())
            writer.open(str(file))
            for key in sorted(items):
                value = items[key]
                if value is None:
                    del writer[key]
                else:
                    writer[key] = value
            writer.finish()
            self._db.ingest_external_file([str(file)], moved)
        except Exception as error:  # noqa: BLE001  rocksdict raises bare Exception
            raise _told(error, f"cannot write to the state store {self.path}") from None

    def load_in_bulk(self, *, begin: bool) -> None:
        """Begin or end writing much at once: files are merged when it ends, not meanwhile."""
        size = _BULK_BUFFER if begin else _BUFFER
        options = {"disable_auto_compactions": str(begin).lower(), "write_buffer_size": str(size)}
        self._db.set_options(options)

    def flush(self) -> None:
        """Make durable what was written without being so.

        Raises:
            StoreError: The disk is full or failing.
        """
        try:
            self._db.flush()
        except Exception as error:  # noqa: BLE001  rocksdict raises bare Exception
            raise _told(error, f"cannot write to the state store {self.path}") from None

    def states(self) -> Iterator[tuple[str, bytes]]:
        """Iterate over all users and their encoded states, in byte order of the users.

        Raises:
            CorruptStoreError: A block's checksum is wrong.
        """
        for key, value in self._items(_STATE):
            yield key[1:].decode(), value

    def after(self, user: str, most: int) -> list[tuple[str, bytes]]:
        """Return the next users behind one, and their encoded states: so many, fewer at the end.

        Raises:
            CorruptStoreError: A block's checksum is wrong.
        """
        following = self._items(_STATE, user.encode() + b"\0" if user else b"")
        return [(key[1:].decode(), value) for key, value in islice(following, most)]

    def replicated(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over all keys and values that a changelog bears, the driver's own values last."""
        for kind in (_STATE, _NAME, _META):
            yield from self._items(kind)

    def is_empty(self) -> bool:
        """Tell whether there is nothing that a changelog bears.

        Raises:
            CorruptStoreError: A block's checksum is wrong.
        """
        return next(self.replicated(), None) is None

    def size(self) -> dict[str, int]:
        """Return the estimated number of keys, and bytes on disk and in memory."""
        properties = {
            "keys": "rocksdb.estimate-num-keys",
            "bytes": "rocksdb.live-sst-files-size",
            "memory": "rocksdb.cur-size-all-mem-tables",
        }
        return {name: self._db.property_int_value(p) or 0 for name, p in properties.items()}

    def compact(self) -> None:
        """Merge all files, so that what was overwritten or deleted takes no more room."""
        self._db.compact_range(None, None)

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

    def _check_layout(self, *, read_only: bool) -> None:
        found = self._get(_LOCAL)
        if found is None and not read_only:
            self.write([(_LOCAL, b"%d" % LAYOUT)])
        elif found is not None and found != b"%d" % LAYOUT:
            raise StoreError(
                f"the state store {self.path} has layout {found.decode()}, and this version reads "
                f"{LAYOUT}: take the version that wrote it, or delete the directory and have it "
                "rebuilt"
            )

    def _get(self, keys: Any) -> Any:
        try:
            return self._db.get(keys)
        except Exception as error:  # noqa: BLE001  rocksdict raises bare Exception
            raise _told(error, f"cannot read the state store {self.path}") from None

    def _items(self, kind: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        iterator = self._db.iter()
        iterator.seek(kind + start)
        while iterator.valid():
            key = iterator.key()
            if not key.startswith(kind):
                break
            yield key, iterator.value()
            iterator.next()
        try:
            iterator.status()
        except Exception as error:  # noqa: BLE001  rocksdict raises bare Exception
            raise _told(error, f"cannot read the state store {self.path}") from None


class WriteBehind:
    """Reads a store as it is to be once what is on its way has been written."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.on_its_way: dict[bytes, bytes | None] = {}

    def load(self, users: Sequence[str]) -> list[bytes | None]:
        """Return the encoded states of some users; None for one never seen, or deleted.

        Raises:
            CorruptStoreError: A block's checksum is wrong.
        """
        keys = [state_key(user) for user in users]
        ahead = self.on_its_way
        others = (user for user, key in zip(users, keys, strict=True) if key not in ahead)
        stored = iter(self.store.load(list(others)))
        return [ahead[key] if key in ahead else next(stored) for key in keys]

    def name(self, number: int) -> str | None:
        """Return the text behind a symbol."""
        text = self.on_its_way.get(name_key(number))
        return text.decode() if text else self.store.name(number)


def pairs(changes: Changes, values: Mapping[str, bytes]) -> list[Pair]:
    """Return changes and the driver's values as keys and values, these last."""
    return [
        *((state_key(user), state) for user, state in changes.states),
        *((state_key(user), None) for user in changes.gone),
        *((name_key(number), name.encode()) for number, name in changes.names.items()),
        (_PROGRESS, changes.progress),
        *((meta_key(key), value) for key, value in values.items()),
    ]


def state_key(user: str) -> bytes:
    """Return where a user's state stands."""
    return _STATE + user.encode()


def name_key(number: int) -> bytes:
    """Return where the text behind a symbol stands."""
    return _NAME + number.to_bytes(8)


def is_replicated(key: bytes | None) -> bool:
    """Tell whether a key is one that a changelog bears."""
    return key is not None and key[:1] in {_STATE, _NAME, _META}


def meta_key(key: str) -> bytes:
    """Return where a value of the driver's own stands."""
    return _META + b"/" + key.encode()


def local_key(key: str) -> bytes:
    """Return where a value about this disk stands."""
    return _LOCAL + b"/" + key.encode()


def _told(error: Exception, what: str) -> StoreError:
    kind = CorruptStoreError if "Corruption" in str(error) else StoreError
    return kind(f"{what}: {error}")


@cache
def _memory() -> tuple[Cache, WriteBufferManager]:
    """Return what all stores of this process share; write buffers count against the cache."""
    blocks = Cache(MEMORY)
    buffers = WriteBufferManager.new_write_buffer_manager_with_cache(MEMORY // 2, False, blocks)
    return blocks, buffers


def _options() -> Options:
    blocks, buffers = _memory()
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(_BUFFER)
    options.set_write_buffer_manager(buffers)
    options.set_max_open_files(256)
    options.set_keep_log_file_num(10)  # of RocksDB's own log, a file for each opening
    options.set_paranoid_checks(True)
    tables = BlockBasedOptions()
    tables.set_block_cache(blocks)
    tables.set_bloom_filter(10, block_based=False)
    tables.set_cache_index_and_filter_blocks(True)
    options.set_block_based_table_factory(tables)
    return options
