"""Bytes <-> events, alerts, profiles, rejects. JSON, with a schema version.

Decoding clicks never raises: what cannot be used comes back as a reject. Decoding what driftline
itself has written raises a `WireError` where the bytes are not what they should be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from connectors.envelope import Context, EnvelopeError, opened
from connectors.flat_json import FlatReader
from connectors.layout import FIELDS, full_names
from connectors.packed import Packed
from connectors.raw import Encoded, Raw
from connectors.timestamps import Span
from connectors.validate import RawClicks, Reject, validate
from pipeline.events import (
    NO_CODE,
    SCHEMA_VERSION,
    CategoryForecast,
    Clicks,
    DriftAlert,
    InterestProfile,
)
from pipeline.rollups import Rollup
from pipeline.settings import SettingsError, Source

MAX_RECORD = 1 << 20
"""The longest record that is read, in bytes."""

EXCERPT = 500
"""How much of a rejected record is kept in a file of rejects."""

_Message = TypeVar("_Message")
_TIME, _EVENT_ID = attrgetter("time"), attrgetter("event_id")


class WireError(ValueError):
    """Bytes that are not a message of ours; the message says what is wrong with them."""


class _VersionedRollup(msgspec.Struct, frozen=True, kw_only=True):
    rollup: Rollup
    schema: int = SCHEMA_VERSION


class _Versioned(msgspec.Struct):
    """The part of a message that says how to read the rest."""

    schema: int


class ClickDecoder:
    """Reads JSON clicks of one layout, bare or as the data of structured CloudEvents.

    Where the layout itself leads through an event's data ("data.user.id"), events are not opened.
    """

    def __init__(self, paths: Mapping[str, str], *, versioned: bool = False) -> None:
        """Take our fields' full names -> their keys; "data.user.id" is a key of nested objects.

        With `versioned` the layout is our own, and a click of another schema version is a fault.
        """
        tree: dict[str, Any] = {}
        for field, path in paths.items():
            _plant(tree, field, path)
        self._paths = paths
        self._attributes = {field: _attributes(tree, path) for field, path in paths.items()}
        self._opens = not tree.keys() & {"specversion", "data"}
        self._versioned = versioned and "schema" not in tree
        marks: dict[str, str | None] = {"specversion": None} if self._opens else {}
        if self._versioned:
            marks["schema"] = str(SCHEMA_VERSION)
        self._layout = _layout(tree, list(marks))
        self._decode = msgspec.json.Decoder(self._layout).decode
        self._flat = None
        if not any(tree.values()):
            whole = {path for field, path in paths.items() if field != "price"}
            fractions = tree.keys() - whole
            self._flat = FlatReader(list(tree), marks, fractions=fractions, longest=MAX_RECORD)

    def columns(
        self,
        records: Sequence[bytes | None],
        contexts: Mapping[int, Context] = MappingProxyType({}),
    ) -> RawClicks:
        """Decode n records to raw columns; a record that cannot be decoded is a fault.

        Args:
            records: the values.
            contexts: by row what is known beside the value, of a record that does not say it.
        """
        packed = Packed.of(records)
        columns, left = self._flatly(packed)
        faults: dict[int, str] = {}
        if left:
            rows, reasons, told = self._closely(list(packed[left]))
            faults = {left[at]: reason for at, reason in reasons.items()}
            contexts = dict(contexts) | {left[at]: context for at, context in told.items()}
            for field, path in self._attributes.items():
                columns[field] = columns[field].put(left, _column(rows, path))
        _fill(columns, len(packed), contexts)
        return RawClicks(timestamp=columns.pop("timestamp"), columns=columns, faults=faults)

    def _flatly(self, records: Packed) -> tuple[dict[str, Encoded], list[int]]:
        """Read what is plain to read: a column a field, and the rows that are left."""
        if self._flat is None:
            nothing = Encoded.none(len(records))
            return dict.fromkeys(self._attributes, nothing), list(range(len(records)))
        flat = self._flat.read(records)
        columns = {field: flat.columns[path] for field, path in self._paths.items()}
        return columns, flat.left

    def _closely(
        self, records: Sequence[bytes | None]
    ) -> tuple[list[Any], dict[int, str], dict[int, Context]]:
        """Decode records one by one: rows, faults, and attributes of structured events."""
        nothing = self._layout()
        rows: list[Any] = []
        faults: dict[int, str] = {}
        decode = self._decode
        for record in records:
            if record is None or len(record) > MAX_RECORD:
                faults[len(rows)] = _unreadable(record)
                rows.append(nothing)
                continue
            try:
                rows.append(decode(record))
            except (ValueError, RecursionError) as error:
                faults[len(rows)] = _not_a_click(record, error)
                rows.append(nothing)
        contexts = self._open(records, rows, faults) if self._opens else {}
        if self._versioned:
            faults |= _of_other_versions(rows)
        return rows, faults, contexts

    def _open(
        self, records: Sequence[bytes | None], rows: list[Any], faults: dict[int, str]
    ) -> dict[int, Context]:
        """Put what is in structured events in their place; return their attributes by row."""
        contexts = {}
        for at in _told(rows, "specversion"):
            try:
                data, contexts[at] = opened(records[at] or b"")
                rows[at] = self._decode(data)
            except (ValueError, RecursionError) as error:
                wrapped = isinstance(error, EnvelopeError)
                faults[at] = str(error) if wrapped else f"not a click in a CloudEvent: {error}"
                rows[at] = self._layout()
        return contexts


def decode_clicks(
    records: Sequence[bytes | None],
    positions: NDArray[np.int64],
    source: str,
    settings: Source,
    contexts: Mapping[int, Context] = MappingProxyType({}),
) -> tuple[Clicks, list[Reject]]:
    """Decode and validate a batch of JSON clicks.

    Args:
        records: The values of the records, None for a tombstone, n of them.
        positions: Their places in the log, strictly increasing, (n,).
        source: The log's name, a topic's partition.
        settings: The layout and the range of event times. Fields that the map leaves out are
            looked for under the names of `events.Click`; fields unknown to both are ignored.
        contexts: By row what is known beside the value.

    Returns:
        The clicks that hold, and a reject with the original bytes for each record that does not.
    """
    raw = click_decoder(settings).columns(records, contexts)
    clicks, faults = validate(raw, source=source, position=positions, span=Span.of(settings))
    rejects = [
        Reject(source=source, position=int(positions[row]), reason=reason, record=records[row])
        for row, reason in faults.items()
    ]
    return clicks, rejects


def click_decoder(settings: Source) -> ClickDecoder:
    """Return the decoder of a layout, the same one for the same map.

    Raises:
        SettingsError: the map cannot hold for any record.
    """
    return _click_decoder(tuple(sorted(full_names(settings.map).items())))


@cache
def _click_decoder(given: tuple[tuple[str, str], ...]) -> ClickDecoder:
    own = {field: field for field in FIELDS.values()}
    return ClickDecoder(own | dict(given), versioned=not given)


def encode_alert(alert: DriftAlert) -> bytes:
    """Write an alert as JSON."""
    return msgspec.json.encode(alert)


def decode_alert(data: bytes) -> DriftAlert:
    """Read an alert.

    Raises:
        WireError: the bytes are no alert of a schema version that this release reads.
    """
    return decode_versioned(data, DriftAlert)


def decode_profile(data: bytes) -> InterestProfile:
    """Read a profile, as `profiles.encode_profiles` writes it.

    Raises:
        WireError: the bytes are no profile of a schema version that this release reads.
    """
    return decode_versioned(data, InterestProfile)


def encode_forecast(forecast: CategoryForecast) -> bytes:
    """Write a category's forecast as JSON."""
    return msgspec.json.encode(forecast)


def decode_forecast(data: bytes) -> CategoryForecast:
    """Read a category's forecast.

    Raises:
        WireError: the bytes are no forecast of a schema version that this release reads.
    """
    return decode_versioned(data, CategoryForecast)


def encode_rollup(rollup: Rollup) -> bytes:
    """Write a source's counts of a window as JSON."""
    return msgspec.json.encode(_VersionedRollup(rollup=rollup))


def decode_rollup(data: bytes) -> Rollup:
    """Read a source's counts of a window.

    Raises:
        WireError: the bytes are no rollup of a schema version that this release reads.
    """
    rollup = decode_versioned(data, _VersionedRollup).rollup
    places = range(len(rollup.counts))
    if any(place not in places for met in rollup.users.values() for place in met):
        raise WireError("a Rollup whose users have met categories that it does not count")
    return rollup


def excerpt(record: bytes) -> bytes:
    """Return the first `EXCERPT` characters of a record."""
    return (
        record[: 4 * EXCERPT]
        .decode(errors="surrogateescape")[:EXCERPT]
        .encode(errors="surrogateescape")
    )


def decode_versioned(data: bytes, kind: type[_Message]) -> _Message:
    """Read a message that bears its schema version.

    Raises:
        WireError: the bytes are no such message of a schema version that this release reads.
    """
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema
        if version != SCHEMA_VERSION:
            raise WireError(
                f"{kind.__name__} of schema version {version}: this release of driftline reads "
                f"version {SCHEMA_VERSION}; use the release that wrote it, or a newer one"
            )
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a {kind.__name__} in JSON: {error}") from None


def _unreadable(record: bytes | None) -> str:
    if record is None:
        return "the record has no value (a tombstone)"
    return f"the record is longer than {MAX_RECORD} bytes"


def _not_a_click(record: bytes, error: Exception) -> str:
    framed = record[:1] == b"\0"  # as serialisers of Avro and Protobuf do, with a schema's id
    note = "; it begins like a record of a schema registry, and only JSON is read" if framed else ""
    return f"not a click in JSON: {error}{note}"


def _of_other_versions(rows: Sequence[Any]) -> dict[int, str]:
    """Return the reason for each row whose schema version is none that is read."""
    versions = {at: rows[at].schema for at in _told(rows, "schema")}
    return {
        at: f"a click of schema version {version}: this release reads version {SCHEMA_VERSION}"
        for at, version in versions.items()
        if type(version) is int and version != SCHEMA_VERSION
    }


def _told(rows: Sequence[Any], mark: str) -> list[int]:
    """Return the rows that bear a mark: few, or none."""
    marks = _column(rows, [mark])
    if marks.count(None) == len(marks):
        return []
    return [at for at, value in enumerate(marks) if value is not None]


def _fill(columns: dict[str, Encoded], rows: int, contexts: Mapping[int, Context]) -> None:
    """Let what is known beside the record stand where the record says nothing."""
    if not contexts:
        return
    for field, known in (("timestamp", _TIME), ("event_id", _EVENT_ID)):
        column = columns.get(field) or Encoded.none(rows)
        codes = column.codes.tolist()
        lacking = [row for row in contexts if codes[row] == NO_CODE]
        columns[field] = column.put(lacking, [known(contexts[row]) for row in lacking])


def _plant(tree: dict[str, Any], field: str, path: str) -> None:
    """Put a path into the tree of keys: an inner key has a dict, the last one None."""
    *inner, last = path.split(".")
    for key in inner:
        tree = tree.setdefault(key, {})
        if tree is None:
            break
    if tree is None or isinstance(tree.get(last), dict) or not all((*inner, last)):
        raise SettingsError(
            f"source.map: {path!r} for {field} cannot be read: a key of it is empty, or stands "
            "for a value in one place and for an object in another"
        )
    tree[last] = None


def _layout(tree: Mapping[str, Any], marks: Sequence[str] = ()) -> type[msgspec.Struct]:
    """Return the struct that reads an object: keys -> attributes f0, f1, ... of the same order.

    `marks` are further keys, read as they are: attributes of their own names.
    """
    names = {f"f{index}": key for index, key in enumerate(tree)}
    kinds = (Raw if inner is None else _layout(inner) | None for inner in tree.values())
    fields: list[tuple[str, Any, None]]
    fields = [(name, kind, None) for name, kind in zip(names, kinds, strict=True)]
    fields += [(mark, Any, None) for mark in marks]
    return msgspec.defstruct("Click", fields, rename=names, gc=False)


def _attributes(tree: Mapping[str, Any], path: str) -> list[str]:
    """Return the attributes that lead to a path's value in a decoded record."""
    attributes = []
    for key in path.split("."):
        attributes.append(f"f{list(tree).index(key)}")
        tree = tree[key]
    return attributes


def _column(rows: Sequence[Any], attributes: Sequence[str]) -> list[Raw]:
    outer, *inner = attributes
    column = list(map(attrgetter(outer), rows))
    for attribute in inner:
        get = attrgetter(attribute)
        column = [None if value is None else get(value) for value in column]
    return column
