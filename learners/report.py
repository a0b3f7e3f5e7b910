"""What a window's learning leaves behind: a line of metrics.jsonl."""

from __future__ import annotations

from typing import Any

import msgspec

from learners.ensemble import COMPARED, Standing
from learners.forgetting import Retention
from learners.gate import Decision
from learners.metrics import Figures
from learners.staleness import Stale


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A window: how the model stood before it, and what came of training on it.

    Figures at the top are of the model alone; "blend" is the model with the counting
    recommenders. All are over the same targets, known before the window, what is new left out;
    except `cold_inclusive` (nothing left out, items never seen before count as misses) and
    `repeat_free` (targets that do not occur in their own input). These two are of the model, and
    with a name before them of that recommender.
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
    blend_cold_inclusive: Figures
    blend_repeat_free: Figures
    knn_cold_inclusive: Figures
    knn_repeat_free: Figures
    training_seconds: float
    buffer_bytes: int
    """Of the sequences remembered for replay."""
    counts_bytes: int
    """Of the counts behind kNN, Markov and personal frequency."""
    retention: Retention = Retention()
    """What the champion after this window knows of windows past."""
    decision: Decision
    reason: str
    checkpoint: str | None
    champion: str | None
    items: int
    stale: Stale | None


def slices(standing: Standing) -> dict[str, Any]:
    """Return a report's fields that say how the recommenders stood."""
    model = standing.figures["model"]
    fields: dict[str, Any] = {"recall": model.recall, "mrr": model.mrr, "ndcg": model.ndcg}
    fields |= {name: standing.figures[name] for name in COMPARED if name != "model"}
    for name, start in (("model", ""), ("blend", "blend_"), ("knn", "knn_")):
        fields[f"{start}cold_inclusive"] = standing.cold_inclusive[name]
        fields[f"{start}repeat_free"] = standing.repeat_free[name]
    return fields
