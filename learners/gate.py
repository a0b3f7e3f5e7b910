"""Promotion: a challenger is published only when it holds up against the champion.

Before that, a window that is no record of interests is refused: one that a single user floods
with a single item, and one that repeats what came before word by word.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from learners.sequences import Sequences
from pipeline.settings import Learning

Decision = Literal["promoted", "rejected", "none"]


Prints = NDArray[np.uint64]

_LEAST = 3  # events of a sequence that is not repeated by chance
_ENOUGH = 20  # such sequences in a window that is judged
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: its powers do not die out


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate decided, and why, in words."""

    decision: Decision
    reason: str


def first(challenger: float, popularity: float) -> Verdict:
    """Judge the first model, which has no champion to beat, only popularity to be told beside."""
    return Verdict(
        decision="promoted",
        reason=f"first model: MRR@20 on the newest slice is {challenger:.4f}, "
        f"of the popularity baseline {popularity:.4f}",
    )


def judge(
    newest: tuple[float, float], past: tuple[float, float] | None, settings: Learning
) -> Verdict:
    """Compare a challenger with the champion.

    Args:
        newest: MRR@20 of challenger and champion on the newest slice of the window.
        past: the same on exemplars of the past; none where there are none yet.
        settings: the shares that the challenger may lose.
    """
    for name, pair, allowed in (
        ("the newest slice", newest, settings.gate_tolerance),
        ("the past", past, settings.gate_forgetting),
    ):
        if pair is None:
            continue
        challenger, champion = pair
        if not challenger >= champion * (1 - allowed):
            return Verdict(
                decision="rejected",
                reason=f"MRR@20 on {name} is {challenger:.4f}, of the champion {champion:.4f}: "
                f"more than {allowed:.0%} less",
            )
    told = f"MRR@20 on the newest slice is {newest[0]:.4f}, of the champion {newest[1]:.4f}"
    if past is not None:
        told += f"; on the past {past[0]:.4f}, of the champion {past[1]:.4f}"
    return Verdict(decision="promoted", reason=told)


def prints(sequences: Sequences, names: list[str]) -> Prints:
    """Return a hash of the items' names, in order, of each sequence of some length.

    Rows will not do: an item that expired and came back has another one.
    """
    present, at = np.unique(sequences.items, return_inverse=True)
    digests = [blake2b(names[item].encode(), digest_size=8).digest() for item in present]
    hashes = np.array([int.from_bytes(digest) for digest in digests], np.uint64)
    with np.errstate(over="ignore"):
        powers = np.multiply.accumulate(
            np.full(int(sequences.lengths.max(initial=0)), _BASE, np.uint64)
        )
        mixed = hashes[at] * powers[sequences.index]
    sums = np.add.reduceat(mixed, sequences.starts[:-1]) if len(sequences) else mixed
    return sums[sequences.lengths >= _LEAST]


def refuse(sequences: Sequences, own: Prints, former: Prints, settings: Learning) -> str:
    """Say why a window must not be learnt from; empty where it may.

    Args:
        sequences: of the window alone.
        own: their prints.
        former: the prints of windows before.
        settings: the shares that are allowed.
    """
    owners = np.repeat(np.arange(len(sequences)), sequences.lengths)
    pairs, counts = np.unique(owners << 32 | sequences.items, return_counts=True)
    if len(pairs) > _ENOUGH:
        share = counts.max() / len(owners)
        if share > settings.gate_flood:
            return (
                f"flooded: {counts.max():,} of {len(owners):,} events are one user's of one item, "
                f"more than {settings.gate_flood:.0%}"
            )
    if len(own) > _ENOUGH:
        copies = np.isin(own, former).mean()
        if copies > settings.gate_copies:
            return (
                f"repeated: {copies:.0%} of the sequences of {_LEAST} events or more were in an "
                f"earlier window word by word, more than {settings.gate_copies:.0%}"
            )
    return ""
