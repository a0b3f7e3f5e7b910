"""CloudEvents around clicks: a structured one is the value, a binary one stands in the headers.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

SPECVERSION = "1.0"
"""Of CloudEvents: the one that is read and written."""

_NOTHING = msgspec.Raw()


class EnvelopeError(ValueError):
    """A CloudEvent that cannot be opened; the message says why."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an event's attributes say of the click in it, where that does not say it itself."""

    event_id: str | None
    time: str | None


class _Structured(msgspec.Struct, frozen=True):
    specversion: str
    source: str = ""
    id: str = ""
    time: str | None = None
    data: msgspec.Raw = _NOTHING
    data_base64: str | None = None


_read = msgspec.json.Decoder(_Structured).decode


def opened(record: bytes) -> tuple[bytes | msgspec.Raw, Context]:
    """Return the data of a structured event, and its attributes.

    Raises:
        EnvelopeError: it is no event of the version that is read, or has no data.
    """
    try:
        event = _read(record)
        data = b64decode(event.data_base64, validate=True) if event.data_base64 else event.data
    except ValueError as error:  # of msgspec and of base64 alike
        raise EnvelopeError(f"not a CloudEvent in JSON: {error}") from None
    _require(event.specversion)
    if not data:
        raise EnvelopeError("a CloudEvent without data")
    return data, _context(event.source, event.id, event.time)


def of_headers(headers: Iterable[tuple[str, bytes | None]]) -> Context | None:
    """Return the attributes of a binary event; None where the headers are not of one.

    Raises:
        EnvelopeError: it is of a version that is not read.
    """
    told = {name: value for name, value in headers if name.startswith("ce_")}
    if "ce_specversion" not in told:
        return None
    texts = {name: (value or b"").decode(errors="replace") for name, value in told.items()}
    _require(texts["ce_specversion"])
    return _context(texts.get("ce_source", ""), texts.get("ce_id", ""), texts.get("ce_time"))


def _context(source: str, number: str, time: str | None) -> Context:
    """Tell events apart by source and id: only together are they unique."""
    return Context(event_id=f"{source}#{number}" if number else None, time=time)


def _require(version: str) -> None:
    if version != SPECVERSION:
        raise EnvelopeError(
            f"a CloudEvent of specversion {version[:40]!r}: this release reads {SPECVERSION}"
        )
