"""CloudEvents 1.0 attributes as Kafka headers: the protocol binding's binary mode."""

from __future__ import annotations

from datetime import datetime, timedelta

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC, as all times here


def cloud_event(
    kind: str, number: str, time: int, *, source: str, content: str = "application/json"
) -> list[tuple[str, bytes]]:
    """Return the headers of a message.

    Args:
        kind: what the message is, such as "champion".
        number: its id; two messages of one kind with the same id are the same message.
        time: event time in milliseconds.
        source: what of driftline it comes from: the learner, or the partition behind it.
        content: the media type of the value.
    """
    moment = _EPOCH + timedelta(
        milliseconds=time
    )  # without a zone: with one it takes thrice as long
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", f"driftline.{kind}".encode()),
        ("ce_source", f"driftline/{source}".encode()),
        ("ce_id", number.encode()),
        ("ce_time", f"{moment.isoformat(timespec='milliseconds')}Z".encode()),
        ("content-type", content.encode()),
    ]
