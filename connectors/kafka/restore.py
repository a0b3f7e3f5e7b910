"""Makes the store of a partition equal to its changelog, whatever is on the disk."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
import uuid
from pathlib import Path

import msgspec

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


async def open_state(path: Path, changelog: Changelog) -> tuple[Store, Followed]:
    """Claim a partition, and open its store as the last flush of whoever had it left it.

    A store that has followed the changelog is brought up to date. One that has not, or is damaged,
    is made anew from it. Where the changelog is empty, and is an older store's first or was lost,
    the store's content begins it.

    Raises:
        StoreError: the store cannot be opened or written.
        BusError: the changelog cannot be read or written.
    """
    store = await asyncio.to_thread(_open, path)
    try:
        await changelog.claim()
        followed = await _begin(store, changelog)
        if followed is None:
            store = await asyncio.to_thread(_renewed, store)
            followed = await _follow(store, changelog, 0)
    except BaseException:
        store.close()
        raise
    return store, followed


def set_aside(path: Path, error: CorruptStoreError) -> None:
    """Move a damaged store out of the way, for who wants to look into it; one is kept."""
    there = aside(path)
    shutil.rmtree(there, ignore_errors=True)
    path.rename(there)
    log.error("%s; it is rebuilt from the changelog, and what was there is now %s", error, there)


def aside(path: Path) -> Path:
    """Return where a damaged store goes."""
    return path.with_name(f"{path.name}.damaged")


def _open(path: Path) -> Store:
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
    kept = store.local(_FOLLOWED)
    before = unpack(kept, Followed, str(store.path)) if kept else None
    first, end = await changelog.span()
    if end == 0:
        return await _seed(store, changelog)
    if before is None:
        if store.progress() is not None:
            log.warning("%s: the disk has states of their own; those of the bus count", store.path)
            return None
        return await _follow(store, changelog, 0)
    away = time.time() - before.seconds
    if before.next > end or before.next < first or away > 0.9 * TOMBSTONES_KEPT:
        log.warning("%s does not fit %s any more: it is rebuilt", store.path, changelog.name)
        return None
    followed = await _follow(store, changelog, before.next)
    if followed.log != before.log:
        log.warning("%s was made anew: %s is rebuilt from it", changelog.name, store.path)
        return None
    return followed


async def _seed(store: Store, changelog: Changelog) -> Followed:
    """Begin a changelog with what a store holds, which may be nothing."""
    number = uuid.uuid4().hex
    if store.progress() is None:
        return Followed.now(number, 0)
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
        for record in records:
            if not is_replicated(record.key):
                raise BusError(
                    f"{changelog.name} bears records that are not driftline's, at offset "
                    f"{record.offset}: who else writes to it? Delete the topic, and it begins anew"
                )
            waiting[record.key] = record.value
            size += len(record.value or b"")
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
