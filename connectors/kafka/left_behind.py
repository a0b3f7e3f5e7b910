"""Stores on a worker's disk whose partitions are another worker's by now."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from faust.types import TP

from connectors.kafka.erasures import Request
from connectors.kafka.partitions import stamp_of
from connectors.kafka.restore import aside
from connectors.store import CorruptStoreError, Store, state_key

log = logging.getLogger(__name__)


def left_behind(data: Path, topic: str) -> Iterator[tuple[TP, Path]]:
    """Yield the partitions of a topic that a worker has stores of, open or not."""
    for mark in sorted(data.glob(f"{topic}-*/CURRENT")):
        number = mark.parent.name.removeprefix(f"{topic}-")
        if number.isdigit():
            yield TP(topic, int(number)), mark.parent


def drop_damaged(data: Path, topic: str) -> None:
    """Delete the stores that were set aside because they were damaged: nobody erases from them."""
    for path in data.glob(aside(Path(f"{topic}-*")).name):
        if path.stem.removeprefix(f"{topic}-").isdigit():
            shutil.rmtree(path, ignore_errors=True)
            log.warning("%s is deleted: users may be in it who were to be erased", path)


def erase_from(path: Path, requests: Iterable[tuple[int, Request]]) -> None:
    """Erase users from a store that nobody has open; one that is damaged goes as a whole.

    What the store has of a request that it has taken on is of a user who came back. Should the
    partition come back, the changelog erases the others once more, or gives all the rest back.

    Args:
        path: of the store.
        requests: that the owner of the partition has taken on, with their offsets: one that takes
            them on later, and finds the user nowhere, would leave changelog and profiles as is.

    Raises:
        StoreError: the store cannot be opened or written.
    """
    try:
        with Store(path) as store:
            taken_on = stamp_of(store).erased
            store.write([(state_key(r.user), None) for at, r in requests if at >= taken_on])
    except CorruptStoreError:
        shutil.rmtree(path)
