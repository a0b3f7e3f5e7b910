"""Looks after stores that nobody has open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from connectors.profiles import encode_profiles, stored_snapshots
from connectors.store import CorruptStoreError, Store, StoreError
from pipeline.engine import decode_progress
from pipeline.interest import StateError
from pipeline.packing import decode
from pipeline.symbols import Names


def found(directory: Path) -> list[Path]:
    """Return the stores in a directory, or the one that it is.

    Raises:
        StoreError: there is none.
    """
    marks = [directory / "CURRENT", *directory.glob("*/CURRENT")]
    stores = sorted(mark.parent for mark in marks if mark.exists())
    if not stores:
        raise StoreError(f"{directory} holds no state store: name a worker's `worker.data`")
    return stores


def check_store(path: Path) -> tuple[str, bool]:
    """Read all of a store, every checksum verified; return what is to be said, and if it is sound.

    Raises:
        StoreError: it is in use, or cannot be opened for another reason than damage.
    """
    users = bytes_ = 0
    try:
        with Store(path) as store:
            for user, data in store.states():
                try:
                    decode([data])
                except StateError as error:
                    return f"user {user}: {error}", False
                users += 1
                bytes_ += len(data)
            for _ in store.replicated():
                pass
            progress = store.progress()
    except (CorruptStoreError, StateError) as error:
        return str(error), False
    counts = decode_progress(progress).counts if progress else None
    told = f", {counts.applied:,} events applied" if counts else ""
    return f"sound, {users:,} users, {bytes_:,} bytes{told}", True


def compact_store(path: Path) -> tuple[int, int]:
    """Merge a store's files; return the bytes on disk before and after."""
    before = _bytes(path)
    with Store(path) as store:
        store.compact()
    return before, _bytes(path)


def export_stores(paths: Sequence[Path], to: Path) -> int:
    """Write a line of JSON for each user, and return how many there are."""
    users = 0
    with to.open("wb") as file:
        for path in paths:
            with Store(path) as store:
                names = Names(store.name)
                for stored in stored_snapshots(store.states()):
                    file.writelines(line + b"\n" for line in encode_profiles(stored, names))
                    users += len(stored)
    return users


def size_of(path: Path) -> str:
    """Return what a store takes."""
    with Store(path) as store:
        users = sum(1 for _ in store.states())
        sizes = store.size()
    return f"{users:,} users, {sizes['keys']:,} keys, {_bytes(path):,} bytes on disk"


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
