"""The bytes in which interest states are stored and sent.

Most of a state is zeros: rings not yet full, items and categories not yet met. Layout 3: its number
in 2 bytes; a bit for each 8 bytes of the record, set where they are not all zero; then these 8
bytes each. Layout 2 is read, too: the record as it was, the unused slots left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray

from pipeline.interest import LAYOUT_VERSION, SLOT, SLOTS, STATE, StateError, States

Rows = NDArray[np.int64]
Words = NDArray[np.uint64]

_WORD = 8
_WORDS = STATE.itemsize // _WORD
_MARK = LAYOUT_VERSION.to_bytes(2, "little")
_BITS = slice(2, 2 + -(-_WORDS // 8))
_WIDTH = _BITS.stop - _BITS.start

_BEFORE = (2).to_bytes(2, "little")
_OFFSETS = {name: STATE.fields[name][1] for name in ("born", "slots")} if STATE.fields else {}
_LACKING = 8
"""Bytes: layout 2 does not say when a user's history began."""


def encode(states: States, rows: Rows | None = None) -> list[bytes]:
    """Return the bytes of states: of n rows, or of all."""
    rows = np.arange(len(states)) if rows is None else rows
    bits = np.empty((len(rows), _WIDTH), np.uint8)
    body = np.empty(len(rows) * _WORDS, np.uint64)
    ends = np.zeros(len(rows) + 1, np.int64)
    _gather(words(states), rows, bits, body, ends)
    told, packed = bits.tobytes(), body[: ends[-1]].tobytes()
    spans = pairwise((ends * _WORD).tolist())
    return [
        _MARK + told[at * _WIDTH : (at + 1) * _WIDTH] + packed[first:end]
        for at, (first, end) in enumerate(spans)
    ]


def decode(encoded: Sequence[bytes]) -> States:
    """Return the states of n encoded ones.

    Raises:
        StateError: One has another layout, or a length that does not fit.
    """
    states = np.zeros(len(encoded), STATE)
    decode_into(states, np.arange(len(encoded)), encoded)
    return states


def decode_into(states: States, rows: Rows, encoded: Sequence[bytes]) -> None:
    """Write n encoded states over rows of others.

    Raises:
        StateError: One has another layout, or a length that does not fit.
    """
    encoded = [_renewed(data) for data in encoded]
    sizes = np.array([len(data) - _BITS.stop for data in encoded], np.int64)
    short = np.flatnonzero((sizes < 0) | (sizes % _WORD != 0))
    if len(short):
        raise StateError(f"an interest state has {len(encoded[short[0]])} bytes")
    bits = np.frombuffer(b"".join([data[_BITS] for data in encoded]), np.uint8)
    body = np.frombuffer(b"".join([data[_BITS.stop :] for data in encoded]), np.uint64)
    ends = np.cumsum(sizes // _WORD)
    wrong = _scatter(words(states), rows, bits.reshape(-1, _WIDTH), body, ends)
    if wrong >= 0:
        raise StateError(
            f"an interest state of {len(encoded[wrong])} bytes tells of more words, or fewer"
        )
    layouts, used = states["layout"][rows], states["used"][rows]
    strange = np.flatnonzero((layouts != LAYOUT_VERSION) | (used > SLOTS))
    if len(strange):
        first = strange[0]
        raise StateError(f"an interest state of layout {layouts[first]}, {used[first]} slots")


@numba.njit(cache=True, nogil=True)
def _gather(states: Words, rows: Rows, bits: NDArray[np.uint8], body: Words, ends: Rows) -> None:
    """Note the words of some rows that are not zero, and write these one after the other.

    Args:
        states: shape (users, words).
        rows: n of them.
        bits: filled in, shape (n, bytes).
        body: filled in, as far as there are words.
        ends: filled in from the second on: how many words there are up to each row, (n + 1,).
    """
    at = 0
    for i in range(len(rows)):
        row = rows[i]
        for byte in range(bits.shape[1]):
            told = 0
            for w in range(8 * byte, min(8 * byte + 8, states.shape[1])):
                if states[row, w] != 0:
                    told |= 0x80 >> (w & 7)
                    body[at] = states[row, w]
                    at += 1
            bits[i, byte] = told
        ends[i + 1] = at


@numba.njit(cache=True, nogil=True)
def _scatter(states: Words, rows: Rows, bits: NDArray[np.uint8], body: Words, ends: Rows) -> int:
    """Undo `_gather`; return the first of n rows whose bits and words do not agree, or -1.

    Here `ends` has shape (n,).
    """
    at = 0
    for i in range(len(rows)):
        row = rows[i]
        for byte in range(bits.shape[1]):
            told = bits[i, byte]
            if told == 0:
                states[row, 8 * byte : 8 * byte + 8] = 0
                continue
            for w in range(8 * byte, min(8 * byte + 8, states.shape[1])):
                if told & (0x80 >> (w & 7)) == 0:
                    states[row, w] = 0
                elif at == ends[i]:
                    return i
                else:
                    states[row, w] = body[at]
                    at += 1
        if at != ends[i]:
            return i
    return -1


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
