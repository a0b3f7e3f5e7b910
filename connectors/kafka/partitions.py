"""What a worker holds of each partition: an engine, and the store of its states.

The state bears the offset at which it goes on, so it alone says where to read: the group's
committed offsets are followed by monitors, and tell what was published before.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np

from connectors.kafka.messages import (
    Message,
    alert_message,
    dead_letter,
    profile_message,
    rollup_message,
)
from connectors.kafka.settings import BusError
from connectors.kafka.transport import RecordBatch, Span
from connectors.store import Store
from connectors.validate import Reject
from connectors.wire import decode_clicks
from pipeline.engine import Effects, Engine
from pipeline.events import AlertKind
from pipeline.prior import Prior
from pipeline.settings import Settings

log = logging.getLogger(__name__)

NAMES = 1 << 17
"""Names of items and categories kept in memory: a profile takes some twenty."""
CHUNK = 4096
"""Records dealt with before the event loop gets its turn."""


class Stamp(msgspec.Struct, kw_only=True):
    """How far a partition has come; durable together with the states."""

    next: int = 0
    """The offset to go on at."""
    dead_letters: int = 0


def first_offset(span: Span, stamped: int, store: Path) -> int:
    """Return where to read on, for a state that has come to the offset `stamped`.

    Raises:
        BusError: the state has seen records that the topic does not have.
    """
    name = f"{span.topic}/{span.partition}"
    if stamped > span.end:
        raise BusError(
            f"{store} has read {name} up to offset {stamped}, but that ends at {span.end}: the "
            "topic was made anew, or has lost records. Delete that directory to begin again, or "
            "name another one (worker.data)"
        )
    if stamped < span.earliest:
        log.error(
            "%s: offsets %d to %d are gone, deleted before they were read here: going on at %d; "
            "longer retention of the topic prevents it",
            *(name, stamped, span.earliest - 1, span.earliest),
        )
    if stamped < span.committed:
        log.warning("%s: rebuilding the state from offset %d to %d", name, stamped, span.committed)
    return max(stamped, span.earliest)


class Partition:
    """One partition of the click topic.

    What lies before `published`, the committed offset, was published before that was committed:
    where the state is rebuilt from there, nothing is said twice.
    """

    def __init__(
        self, path: Path, source: str, settings: Settings, prior: Prior, *, capacity: int
    ) -> None:
        """Open the store at `path`, or make it.

        Raises:
            StoreError: the store cannot be opened.
        """
        path.mkdir(parents=True, exist_ok=True)
        self.source = source
        self.store = Store(path)
        stored = self.store.get("stamp")
        self.stamp = msgspec.msgpack.decode(stored, type=Stamp) if stored else Stamp()
        self.engine = Engine(
            settings,
            load=self.store.load,
            name=lru_cache(NAMES)(self.store.name),
            prior=prior,
            progress=self.store.progress(),
            capacity=capacity,
        )
        self.published = 0
        self.lag = 0
        self.alerts = {AlertKind.USER_JUMP: 0, AlertKind.USER_MIGRATION: 0}
        self._settings = settings

    def begin(self, span: Span) -> int:
        """Return the offset to read on at; a changelog would be read here first."""
        self.published = span.committed
        return first_offset(span, self.stamp.next, self.store.path)

    async def apply(self, batch: RecordBatch) -> list[Message]:
        """Decode a batch, apply it to the states, and return what is to be published."""
        offsets, values = batch.offsets, batch.values
        self._tell_gap(int(offsets[0]))
        messages: list[Message] = []
        first = int(np.searchsorted(offsets, self.stamp.next))
        for start in range(first, len(batch), CHUNK):
            rows = slice(start, start + CHUNK)
            # 1. Decode.
            clicks, rejects = decode_clicks(
                values[rows], offsets[rows], self.source, self._settings.source
            )
            # 2. Apply.
            effects = self.engine.process(clicks)
            messages += self._dead_letters(rejects, batch)
            messages += self._messages(effects)
            await asyncio.sleep(0)
        self.stamp.next = max(self.stamp.next, batch.end)
        self.lag = batch.lag
        return messages

    def commit(self) -> None:
        """Make what was applied durable, all of it or nothing.

        Raises:
            StoreError: the disk is full or failing.
        """
        stamp = msgspec.msgpack.encode(self.stamp)
        self.store.commit(self.engine.changes(), {"stamp": stamp})

    def close(self) -> None:
        """Release the store."""
        self.store.close()

    def _messages(self, effects: Effects) -> list[Message]:
        """Put effects into records; of a user's profiles only the newest."""
        newest = {
            user: state for user, state in effects.profiles if state["position"] >= self.published
        }
        alerts = [alert for alert in effects.alerts if alert.source.position >= self.published]
        for alert in alerts:
            self.alerts[alert.kind] += 1
        return [
            *(alert_message(alert) for alert in alerts),
            *(
                profile_message(self.engine.profile(user, state), self.source)
                for user, state in newest.items()
            ),
            *(
                rollup_message(rollup)
                for rollup in effects.rollups
                if rollup.position >= self.published
            ),
        ]

    def _dead_letters(self, rejects: list[Reject], batch: RecordBatch) -> list[Message]:
        self.stamp.dead_letters += len(rejects)
        rows = np.searchsorted(batch.offsets, [reject.position for reject in rejects])
        return [
            dead_letter(reject, batch.records[row])
            for reject, row in zip(rejects, rows.tolist(), strict=True)
            if reject.position >= self.published
        ]

    def _tell_gap(self, first: int) -> None:
        missing = first - self.stamp.next
        if missing > 1:  # a single one may be the mark at the end of a transaction
            log.error(
                "%s: %d offsets before %d do not come: deleted by retention, or taken by "
                "transactions or compaction",
                *(self.source, missing, first),
            )
