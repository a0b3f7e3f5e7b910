"""Plays clicks onto the bus, as fast as it goes or at a multiple of the time they took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np
from aiokafka.errors import KafkaError

from connectors.kafka.sender import Sender, connect
from connectors.kafka.settings import Kafka
from pipeline.events import NO_CODE, Clicks, Column

Record = tuple[int, bytes, bytes]
"""Event time in milliseconds, key, value."""

SLACK = 0.02
"""Seconds that a paced event may be sent too early, so that not each goes alone."""
REPORT_SECONDS = 0.5


def click_records(clicks: Clicks) -> Iterator[tuple[bytes, bytes]]:
    """Encode clicks as they stand on the bus: user id, and JSON without what an event lacks.

    An event id is only known by its hash here, so its decimal digits are written in its place.
    """
    columns = [
        _fragments("item_id", clicks.item),
        _fragments("event_type", clicks.event_type),
        _fragments("category", clicks.category),
        _fragments("session_id", clicks.session),
    ]
    keys = {int(code): clicks.user.values[code].encode() for code in np.unique(clicks.user.codes)}
    users = {code: msgspec.json.encode(key.decode()) for code, key in keys.items()}
    codes = (clicks.user, clicks.item, clicks.event_type, clicks.category, clicks.session)
    rows = zip(
        clicks.time.tolist(),
        clicks.event_id.tolist(),
        *(column.codes.tolist() for column in codes),
        strict=True,
    )
    for when, event_id, user, *others in rows:
        fields = b"".join(column[code] for column, code in zip(columns, others, strict=True))
        named = b',"event_id":"%d"' % event_id if event_id else b""
        yield keys[user], b'{"user_id":%b,"timestamp":%d%b%b}' % (users[user], when, fields, named)


def timed_records(batches: Iterable[Clicks]) -> Iterator[Record]:
    """Encode batches of clicks as records with their event times, for `produce`."""
    for clicks in batches:
        for when, (key, value) in zip(clicks.time.tolist(), click_records(clicks), strict=True):
            yield when, key, value


def produce(
    kafka: Kafka,
    records: Iterable[Record],
    *,
    speed: float | None = None,
    progress: Callable[[int, int], None] = lambda _events, _time: None,
) -> int:
    """Send records to the click topic, those of one key to one partition, in order.

    Partitions are chosen as Java's clients do. Records carry the time at which they are sent, not
    the event time, so that retention does not delete history at once.

    Args:
        kafka: where to.
        records: in the order in which they are sent.
        speed: event time that passes in a unit of wall time: 60 plays an hour in a minute; None
            sends as fast as it goes. An event older than its predecessor is sent at once.
        progress: called now and then, and at the end, with the number of events sent and the
            event time reached.

    Returns:
        The number of events that the brokers acknowledged: all, for anything else raises.

    Raises:
        BusError: no broker answers, the topic is not there, or a record is refused.
        SettingsError: see `security.client_config`.
    """
    if speed is not None and not speed > 0:
        raise ValueError(f"speed is {speed}: give a number above 0, or None for as fast as it goes")
    return asyncio.run(_produce(kafka, records, speed, progress))


async def _produce(
    kafka: Kafka,
    records: Iterable[Record],
    speed: float | None,
    progress: Callable[[int, int], None],
) -> int:
    sender: Sender | None = None
    try:
        sender = await connect(kafka, kafka.received)
        return await _play(sender, records, speed, progress)
    except KafkaError as error:
        raise kafka.failure(f"produce to {kafka.received}", error) from error
    finally:
        if sender:
            await sender.close()


async def _play(
    sender: Sender,
    records: Iterable[Record],
    speed: float | None,
    progress: Callable[[int, int], None],
) -> int:
    pace = _Pace(speed)
    reported, when = time.monotonic(), 0
    for when, key, value in records:
        if pace.early(when):
            await sender.flush()
            await pace.wait(when)
        await sender.send(key, value)
        if sender.fresh and time.monotonic() - reported > REPORT_SECONDS:
            sender.fresh, reported = False, time.monotonic()
            progress(sender.events, when)
    await sender.finish()
    progress(sender.events, when)
    return sender.events


class _Pace:
    """Ties event time to the wall clock, from the first event on."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._first: int | None = None
        self._began = 0.0
        self._due = 0.0

    def early(self, when: int) -> bool:
        """Tell whether an event's time lies well ahead of what is due."""
        if self._speed is None:
            return False
        if self._first is None:
            self._first, self._began = when, time.monotonic()
        if when > self._due:
            passed = time.monotonic() - self._began + SLACK
            self._due = self._first + passed * self._speed * 1000
        return when > self._due

    async def wait(self, when: int) -> None:
        """Sleep until an event is due."""
        if self._speed is not None and self._first is not None:
            due = self._began + (when - self._first) / 1000 / self._speed
            await asyncio.sleep(due - time.monotonic())


def _fragments(name: str, column: Column) -> dict[int, bytes]:
    """Encode the values that a batch uses of a column: its dictionary may be far larger."""
    used = (int(code) for code in np.unique(column.codes) if code != NO_CODE)
    found = {c: b',"%b":%b' % (name.encode(), msgspec.json.encode(column.values[c])) for c in used}
    return found | {NO_CODE: b""}
