"""Interest profiles put into words: as columns, and as the bytes in which they go on the bus.

Both are made of whole columns: an object for each interest would take longer than all else that is
done for an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import kernel
from pipeline.events import SCHEMA_VERSION
from pipeline.interest import RECENT, StateError
from pipeline.packing import decode
from pipeline.snapshots import Snapshots
from pipeline.symbols import Names

INTERESTS = pa.list_(pa.struct([("category", pa.string()), ("weight", pa.float64())]))
"""Strongest first."""
PROFILES = pa.schema(
    [
        ("user_id", pa.string()),
        ("events", pa.int64()),
        ("last_event", pa.timestamp("ms", tz="UTC")),
        ("short_term", INTERESTS),
        ("long_term", INTERESTS),
        ("recent_items", pa.list_(pa.string())),
    ]
)

_AT_ONCE = 10_000
"""Users read from a store in one go."""
_PARTS = 10_000
"""Weights are told to so many parts of the whole."""
_json = msgspec.json.encode
_WEIGHTS = pa.array([_json(parts / _PARTS) for parts in range(_PARTS + 1)], pa.binary())
_END = b'],"schema":' + _json(SCHEMA_VERSION) + b"}"


def stored_snapshots(states: Iterable[tuple[str, bytes]]) -> Iterator[Snapshots]:
    """Return what users want, by their encoded states, as of a store; many at once.

    Raises:
        StateError: a state cannot be read.
    """
    stored = iter(states)
    while some := list(islice(stored, _AT_ONCE)):
        users = [user for user, _ in some]
        try:
            yield Snapshots(users, kernel.snapshots(decode([data for _, data in some])))
        except StateError as error:
            raise StateError(f"users {users[0]} to {users[-1]}: {error}") from None


def profile_table(snapshots: Snapshots, names: Names) -> pa.Table:
    """Return n users' profiles as rows of `PROFILES`."""
    taken = snapshots.taken
    some = _remembered(taken)
    columns = {
        "user_id": snapshots.users,
        "events": taken["events"],
        "last_event": pa.array(taken["time"], pa.timestamp("ms", tz="UTC")),
        "short_term": interest_lists(taken["short"], names),
        "long_term": interest_lists(taken["long"], names),
        "recent_items": _lists(some, _texts(taken["recent_item"][some], names)),
    }
    return pa.table(columns, schema=PROFILES)


def interest_lists(heaviest: NDArray[np.void], names: Names) -> pa.ListArray:
    """Return n users' interests, (n, TOP) as in `SNAPSHOT`, as lists of `INTERESTS`."""
    some = heaviest["share"] > 0
    categories = _texts(heaviest["category"][some], names)
    weights = pa.array(_parts(heaviest["share"][some]) / _PARTS)
    fields = ["category", "weight"]
    return _lists(some, pa.StructArray.from_arrays([categories, weights], fields))


def encode_profiles(snapshots: Snapshots, names: Names) -> list[bytes]:
    """Return n users' profiles as the JSON of `events.InterestProfile`."""
    taken = snapshots.taken
    some = _remembered(taken)
    encoded = _joined(
        b'{"user_id":',
        pa.array(map(_json, snapshots.users), pa.binary()),
        b',"time":',
        _digits(taken["time"]),
        b',"events":',
        _digits(taken["events"]),
        b',"short_term":[',
        _encoded_interests(taken["short"], names),
        b'],"long_term":[',
        _encoded_interests(taken["long"], names),
        b'],"recent_items":[',
        pc.binary_join(_lists(some, _quoted(taken["recent_item"][some], names)), b","),
        _END,
    )
    values: list[bytes] = encoded.to_pylist()
    return values


def _encoded_interests(heaviest: NDArray[np.void], names: Names) -> pa.Array:
    some = heaviest["share"] > 0
    categories = _quoted(heaviest["category"][some], names)
    weights = _WEIGHTS.take(pa.array(_parts(heaviest["share"][some])))
    interests = _joined(b'{"category":', categories, b',"weight":', weights, b"}")
    return pc.binary_join(_lists(some, interests), b",")


def _remembered(taken: NDArray[np.void]) -> NDArray[np.bool_]:
    """Tell which of the newest items there are, (n, RECENT)."""
    remembered: NDArray[np.bool_] = np.arange(RECENT) < taken["events"][:, None]
    return remembered


def _parts(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(shares * _PARTS).astype(np.int64)


def _lists(some: NDArray[np.bool_], values: pa.Array) -> pa.ListArray:
    """Deal out the values, row by row, over those places of rows that have some."""
    offsets = np.concatenate([[0], np.cumsum(some.sum(1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _texts(symbols: NDArray[np.uint64], names: Names) -> pa.Array:
    return _put(symbols, names.__getitem__, pa.string())


def _quoted(symbols: NDArray[np.uint64], names: Names) -> pa.Array:
    return _put(symbols, lambda number: _json(names[number]), pa.binary())


def _put(
    symbols: NDArray[np.uint64], word: Callable[[int], str | bytes], form: pa.DataType
) -> pa.Array:
    """Put symbols into words, each of them once."""
    encoded = pa.array(symbols).dictionary_encode()
    return pa.array(map(word, encoded.dictionary.to_pylist()), form).take(encoded.indices)


def _digits(numbers: NDArray[np.int64]) -> pa.Array:
    return pa.array(numbers).cast(pa.string()).cast(pa.binary())


def _joined(*parts: pa.Array | bytes) -> pa.Array:
    """Join texts row by row."""
    return pc.binary_join_element_wise(*parts, b"")
