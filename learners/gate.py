"""Promotion: a challenger is published only when it holds up against the champion."""

from __future__ import annotations

from typing import Literal

import msgspec

from pipeline.settings import Learning

Decision = Literal["promoted", "rejected", "none"]


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
