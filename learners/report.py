"""What a window's learning leaves behind: a line of metrics.jsonl."""

from __future__ import annotations

import msgspec

from learners.gate import Decision
from learners.metrics import Figures
from learners.staleness import Stale


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A window: how the model stood before it, and what came of training on it.

    Figures at the top are of the model alone; "blend" is the model with the counting
    recommenders. All are over the same targets, already known before the window, except
    `cold_inclusive` (items never seen before count as misses) and `repeat_free` (targets that do
    not occur in their own input).
    """

    window_start: str
    window_end: str
    events: int
    evaluated: int
    recall: float = msgspec.field(name="recall@20")
    mrr: float = msgspec.field(name="mrr@20")
    ndcg: float = msgspec.field(name="ndcg@10")
    blend: Figures
    popularity: Figures
    markov: Figures
    knn: Figures
    personal: Figures
    cold_inclusive: Figures
    repeat_free: Figures
    training_seconds: float
    decision: Decision
    reason: str
    checkpoint: str | None
    champion: str | None
    items: int
    stale: Stale | None
