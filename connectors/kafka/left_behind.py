"""Stores on a worker's disk whose partitions are another worker's by now."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from faust.types import TP

from connectors.kafka.restore import aside
from connectors.store import CorruptStoreError, Store, state_key


def left_behind(data: Path, topic: str) -> Iterator[tuple[TP, Path]]:
    """Yield the partitions of a topic that a worker has stores of, open or not."""
    for mark in sorted(data.glob(f"{topic}-*/CURRENT")):
        number = mark.parent.name.removeprefix(f"{topic}-")
        if number.isdigit():
            yield TP(topic, int(number)), mark.parent


def erase_from(path: Path, users: Iterable[str]) -> None:
    """Erase users from a store that nobody has open; what was or is damaged goes as a whole.

    Should the partition come back, the changelog erases them once more, or gives all the rest back.

    Raises:
        StoreError: the store cannot be opened or written.
    """
    shutil.rmtree(aside(path), ignore_errors=True)
    try:
        with Store(path) as store:
            store.write([(state_key(user), None) for user in users])
    except CorruptStoreError:
        shutil.rmtree(path)
