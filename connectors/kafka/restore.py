"""Makes the store of a partition equal to its changelog, whatever is on the disk."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from aiokafka import ConsumerRecord

from connectors.kafka.changelog import Changelog
from connectors.kafka.settings import BusError
from connectors.kafka.topics import TOMBSTONES_KEPT
from connectors.store import (
    CorruptStoreError,
    Pair,
    Store,
    is_replicated,
    local_key,
    meta_key,
    unpack,
)

log = logging.getLogger(__name__)

LOG = "log"
"""Where store and changelog both bear the number of the changelog: one made anew has another."""
_FOLLOWED = "followed"
_AT_ONCE = 64 << 20
"""Bytes of values that are taken in as one file."""


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """How far a store has followed a changelog."""

    log: str
    next: int
    """The offset of the changelog to go on at."""
    seconds: float
    """The time on this machine's clock."""

    @classmethod
    def now(cls, log: str, following: int) -> Followed:
        """Note that a store has followed up to here."""
        return cls(log=log, next=following, seconds=time.time())

    def pair(self) -> Pair:
        """Return it as the store keeps it."""
        return local_key(_FOLLOWED), msgspec.msgpack.encode(self)


def state_path(data: str, topic: str, partition: int) -> Path:
    """Return where a worker keeps the store of a partition."""
    return Path(data) / f"{topic}-{partition}"


async def open_state(path: Path, changelog: Changelog) -> tuple[Store, Followed]:
    """Claim a partition, and open its store as the last flush of whoever had it left it.

    A store that has followed the changelog is brought up to date. One that has not, or is damaged,
    is made anew from it. Where the changelog is empty, and is an older store's first or was lost,
    the store's content begins it.

    Raises:
        StoreError: the store cannot be opened or written.
        BusError: the changelog cannot be read or written.
    """
    store = await asyncio.to_thread(opened, path)
    try:
        await changelog.claim()
        try:
            followed = await _begin(store, changelog)
        except CorruptStoreError as error:
            store.close()
            set_aside(path, error)
            store, followed = Store(path), None
        if followed is None:
            store = await asyncio.to_thread(_renewed, store)
            followed = await _follow(store, changelog, 0)
    except BaseException:
        store.close()
        raise
    return store, followed


def open_copy(path: Path, changelog: str, first: int, end: int) -> tuple[Store, Followed]:
    """Open a store that is to follow a changelog whose partition is another worker's.

    Nothing is claimed, and nothing ever written to the bus. The store is emptied where it cannot
    go on in a changelog that has offsets from `first` to `end`; then, and as long as its number
    has not been read, `Followed.log` is empty.

    Raises:
        StoreError: the store cannot be opened or written.
    """
    store = opened(path)
    try:
        followed = _standing(store, changelog, first, end)
        if followed is None:
            store = _renewed(store)
            followed = Followed.now("", first)
    except BaseException:
        store.close()
        raise
    return store, followed


def taken(records: Iterable[ConsumerRecord], changelog: str) -> Iterator[Pair]:
    """Yield the keys and values of a changelog's records.

    Raises:
        BusError: a record is not driftline's.
    """
    for record in records:
        if not is_replicated(record.key):
            raise BusError(
                f"{changelog} bears records that are not driftline's, at offset "
                f"{record.offset}: who else writes to it? Delete the topic, and it begins anew"
            )
        yield record.key, record.value


def set_aside(path: Path, error: CorruptStoreError) -> None:
    """Move a damaged store out of the way, for who wants to look into it; one is kept."""
    there = aside(path)
    shutil.rmtree(there, ignore_errors=True)
    path.rename(there)
    log.error("%s; it is rebuilt from the bus, and what was there is now %s", error, there)


def aside(path: Path) -> Path:
    """Return where a damaged store goes."""
    return path.with_name(f"{path.name}.damaged")


def opened(path: Path) -> Store:
    """Open a store, an empty one in its place where it is damaged.

    Raises:
        StoreError: it cannot be opened.
    """
    path.mkdir(parents=True, exist_ok=True)
    try:
        return Store(path)
    except CorruptStoreError as error:
        set_aside(path, error)
        return Store(path)


def _renewed(store: Store) -> Store:
    """Return an empty store in the place of one."""
    store.close()
    shutil.rmtree(store.path)
    return Store(store.path)


async def _begin(store: Store, changelog: Changelog) -> Followed | None:
    """Bring a store up to date; return None where it must be made anew."""
    first, end = await changelog.span()
    if end == 0:
        return await _seed(store, changelog)
    before = _standing(store, changelog.name, first, end)
    if before is None:
        return None
    followed = await _follow(store, changelog, before.next)
    if before.log and followed.log != before.log:
        log.warning("%s was made anew: %s is rebuilt from it", changelog.name, store.path)
        return None
    return followed


def _standing(store: Store, changelog: str, first: int, end: int) -> Followed | None:
    """Tell where a store goes on in a changelog; None where it must be made anew."""
    kept = store.local(_FOLLOWED)
    if kept is None:
        if store.is_empty():
            return Followed.now("", first)
        log.warning("%s: the disk has states of their own; those of the bus count", store.path)
        return None
    before = unpack(kept, Followed, str(store.path))
    away = time.time() - before.seconds
    if before.next > end or before.next < first or away > 0.9 * TOMBSTONES_KEPT:
        log.warning("%s does not fit %s any more: it is rebuilt", store.path, changelog)
        return None
    return before


async def _seed(store: Store, changelog: Changelog) -> Followed | None:
    """Begin a changelog with what a store holds, which may be nothing; None where it is a part."""
    number = uuid.uuid4().hex
    if store.is_empty():
        return Followed.now(number, 0)
    if store.progress() is None:
        log.warning("%s was never whole: it begins anew", store.path)
        return None
    log.warning("%s is empty: it begins with the states of %s", changelog.name, store.path)
    store.write([(meta_key(LOG), number.encode())])
    followed = Followed.now(number, await changelog.write(store.replicated(), []))
    store.write([followed.pair()])
    return followed


async def _follow(store: Store, changelog: Changelog, start: int) -> Followed:
    """Take over what the changelog bears from `start` on."""
    began, count, position = time.monotonic(), 0, start
    waiting: dict[bytes, bytes | None] = {}
    size = 0
    store.load_in_bulk(begin=True)
    async for position, records in changelog.read(start):  # noqa: B007  used after the loop
        count += len(records)
        for key, value in taken(records, changelog.name):
            waiting[key] = value
            size += len(value or b"")
        if size > _AT_ONCE:
            await asyncio.to_thread(store.take_in, waiting)
            waiting, size = {}, 0
    await asyncio.to_thread(store.write, waiting.items(), durable=False)
    store.load_in_bulk(begin=False)
    number = store.get(LOG)
    followed = Followed.now(number.decode() if number else uuid.uuid4().hex, position)
    if count:
        await asyncio.to_thread(store.flush)
        store.write([followed.pair()])
        log.info(
            "%s: %d records from %s in %.1f s",
            *(store.path, count, changelog.name, time.monotonic() - began),
        )
    return followed
