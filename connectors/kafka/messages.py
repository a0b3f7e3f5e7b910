"""What a worker says, as records: CloudEvents in binary mode, attributes in the headers.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

from dataclasses import dataclass

from connectors.kafka.cloudevents import cloud_event
from connectors.kafka.records import Headers, RecordBatch
from connectors.kafka.topics import FORECASTS, LARGEST, ROLLUPS
from connectors.profiles import encode_profiles
from connectors.validate import Reject
from connectors.wire import encode_alert, encode_forecast, encode_rollup
from pipeline.events import CategoryForecast, DriftAlert
from pipeline.rollups import Rollup
from pipeline.snapshots import Snapshots
from pipeline.symbols import Names

ALERTS = "interest-drift"
PROFILES = "interest-profiles"
DEAD_LETTERS = "clicks-dlq"
LATE = "clicks-late"
TOO_LATE = "further behind the user's newest event than interests.lateness allows"

_ROOM = 1 << 16
"""Bytes left to headers in the largest message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A record to be sent; `topic` is without the prefix."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


def alert_message(alert: DriftAlert) -> Message:
    """Return an alert as a record."""
    headers = cloud_event(f"alert.{alert.kind}", alert.id, alert.time, source=alert.source.source)
    return Message(ALERTS, alert.subject.encode(), encode_alert(alert), headers)


def profile_messages(snapshots: Snapshots, names: Names, source: str) -> list[Message]:
    """Return profiles as records. One is told apart by the number of events behind it."""
    events, times = snapshots.taken["events"].tolist(), snapshots.taken["time"].tolist()
    values = encode_profiles(snapshots, names)
    return [
        Message(
            PROFILES,
            user.encode(),
            value,
            cloud_event("profile", f"{user}/{number}", time, source=source),
        )
        for user, number, time, value in zip(snapshots.users, events, times, values, strict=True)
    ]


def gone_message(user: str) -> Message:
    """Return what ends a user's profiles: compaction deletes those before it, and then itself."""
    return Message(PROFILES, user.encode(), None, [])


def rollup_message(rollup: Rollup) -> Message:
    """Return a partition's counts of a window as a record."""
    name = f"{rollup.source}/{rollup.start}"
    headers = cloud_event("rollup", name, rollup.end, source=rollup.source)
    return Message(ROLLUPS, str(rollup.start).encode(), encode_rollup(rollup), headers)


def forecast_message(forecast: CategoryForecast, source: str) -> Message:
    """Return a category's forecast as a record."""
    name = f"{forecast.category}/{forecast.made}"
    headers = cloud_event("forecast", name, forecast.made, source=source)
    return Message(FORECASTS, forecast.category.encode(), encode_forecast(forecast), headers)


def dead_letter(reject: Reject, batch: RecordBatch, row: int) -> Message:
    """Return a record that could not be used as it was received, with why and whence in headers.

    One too large for the topic is cut; a header then tells how long it was.
    """
    return _set_aside(DEAD_LETTERS, batch, row, reject.reason)


def late_event(batch: RecordBatch, row: int) -> Message:
    """Return the record of a late event as it was received, in the form of a dead letter."""
    return _set_aside(LATE, batch, row, TOO_LATE)


def fitting(key: bytes | None, value: bytes | None) -> tuple[bytes | None, Headers]:
    """Return a record's value, cut to what our topics take, and a header that tells of the cut."""
    if value is None and key is None:  # a client cannot send what has neither
        return b"", []
    if value is None or len(value) <= LARGEST - _ROOM:
        return value, []
    return value[: LARGEST - _ROOM], [("driftline-length", b"%d" % len(value))]


def _set_aside(topic: str, batch: RecordBatch, row: int, reason: str) -> Message:
    records = batch.records
    key = records.keys[row]
    value, further = fitting(key, records.values[row])
    headers = [
        *records.headers.get(row, ()),
        ("driftline-reason", reason.encode(errors="backslashreplace")),
        ("driftline-topic", batch.topic.encode()),
        ("driftline-partition", b"%d" % batch.partition),
        ("driftline-offset", b"%d" % records.offsets[row]),
        *further,
    ]
    return Message(topic, key, value, headers)
