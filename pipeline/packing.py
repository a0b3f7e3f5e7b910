"""The bytes in which interest states are stored and sent.

Most of a state is zeros: rings not yet full, items and categories not yet met. Layout 3: its number
in 2 bytes; a bit for each 8 bytes of the record, set where they are not all zero; then these 8
bytes each. Layout 2 is read, too: the record as it was, the unused slots left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.interest import LAYOUT_VERSION, SLOT, SLOTS, STATE, StateError, States

_AT_ONCE = 256
"""States whose words are looked at in one go: few enough to stay in the processor's cache."""
_WORD = 8
_WORDS = STATE.itemsize // _WORD
_MARK = LAYOUT_VERSION.to_bytes(2, "little")
_BITS = slice(2, 2 + -(-_WORDS // 8))

_BEFORE = (2).to_bytes(2, "little")
_OFFSETS = {name: STATE.fields[name][1] for name in ("born", "slots")} if STATE.fields else {}
_LACKING = 8
"""Bytes: layout 2 does not say when a user's history began."""


def encode(states: States) -> list[bytes]:
    """Return the bytes of n states."""
    encoded: list[bytes] = []
    for start in range(0, len(states), _AT_ONCE):
        those = words(states[start : start + _AT_ONCE])
        told = those != 0
        bits = np.packbits(told, axis=1)
        body = those[told].tobytes()
        ends = [0, *np.cumsum(told.sum(1) * _WORD).tolist()]
        encoded += [
            _MARK + row.tobytes() + body[first:end]
            for row, (first, end) in zip(bits, pairwise(ends), strict=True)
        ]
    return encoded


def decode(encoded: Sequence[bytes]) -> States:
    """Return the states of n encoded ones.

    Raises:
        StateError: One has another layout, or a length that does not fit.
    """
    states = np.zeros(len(encoded), STATE)
    for start in range(0, len(encoded), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        _unpack(states[some], [_renewed(data) for data in encoded[some]])
    wrong = (states["layout"] != LAYOUT_VERSION) | (states["used"] > SLOTS)
    if wrong.any():
        first = states[int(np.argmax(wrong))]
        raise StateError(f"an interest state of layout {first['layout']}, {first['used']} slots")
    return states


def _unpack(states: States, encoded: Sequence[bytes]) -> None:
    lengths = np.array([len(data) for data in encoded])
    if lengths.min() < _BITS.stop:
        raise StateError(f"an interest state has {lengths.min()} bytes")
    bits = np.frombuffer(b"".join([data[_BITS] for data in encoded]), np.uint8)
    told = np.unpackbits(bits.reshape(len(encoded), -1), axis=1, count=_WORDS).view(np.bool_)
    wrong = np.flatnonzero(_BITS.stop + told.sum(1) * _WORD != lengths)
    if len(wrong):
        row = int(wrong[0])
        raise StateError(
            f"an interest state that tells of {int(told[row].sum())} words has {lengths[row]} bytes"
        )
    words(states)[told] = np.frombuffer(
        b"".join([data[_BITS.stop :] for data in encoded]), np.uint64
    )


def words(states: States) -> NDArray[np.uint64]:
    """Return n states as their 8-byte words, a view: (n, words).

    To copy records means, for numpy, to copy field by field; it takes ten times as long.
    """
    return states.view(np.uint64).reshape(len(states), _WORDS)


def _renewed(data: bytes) -> bytes:
    """Return an encoded state in this layout."""
    if data.startswith(_MARK):
        return data
    if not data.startswith(_BEFORE):
        raise StateError(
            f"an interest state has layout {int.from_bytes(data[:2], 'little')}, and this version "
            f"reads 2 and {LAYOUT_VERSION}"
        )
    used = int.from_bytes(data[2:4], "little")
    if len(data) != _OFFSETS["slots"] - _LACKING + used * SLOT.itemsize or used > SLOTS:
        raise StateError(f"an interest state with {used} slots has {len(data)} bytes")
    born = _OFFSETS["born"]
    record = _MARK + data[2:born] + bytes(_LACKING) + data[born:]
    [renewed] = encode(np.frombuffer(record.ljust(STATE.itemsize, b"\0"), STATE))
    return renewed
