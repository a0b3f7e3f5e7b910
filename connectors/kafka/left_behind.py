"""Stores on a worker's disk whose partitions are another worker's by now."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from faust.types import TP

from connectors.kafka.erasures import Request
from connectors.kafka.partitions import stamp_of
from connectors.kafka.restore import aside
from connectors.store import CorruptStoreError, Store, state_key


def left_behind(data: Path, topic: str) -> Iterator[tuple[TP, Path]]:
    """Yield the partitions of a topic that a worker has stores of, open or not."""
    for mark in sorted(data.glob(f"{topic}-*/CURRENT")):
        number = mark.parent.name.removeprefix(f"{topic}-")
        if number.isdigit():
            yield TP(topic, int(number)), mark.parent


def drop_damaged(path: Path) -> None:
    """Delete what was set aside of a store because it was damaged."""
    shutil.rmtree(aside(path), ignore_errors=True)


def erase_from(path: Path, requests: Iterable[tuple[int, Request]]) -> None:
    """Erase users from a store that nobody has open; one that is damaged goes as a whole.

    What the store has of a request that it has taken on is of a user who came back. Should the
    partition come back, the changelog erases the others once more, or gives all the rest back.

    Args:
        path: of the store.
        requests: with their offsets.

    Raises:
        StoreError: the store cannot be opened or written.
    """
    try:
        with Store(path) as store:
            taken_on = stamp_of(store).erased
            store.write([(state_key(r.user), None) for at, r in requests if at >= taken_on])
    except CorruptStoreError:
        shutil.rmtree(path)
