"""Strategies of continual learning by name: which parts of the recipe are on."""

from __future__ import annotations

from msgspec.structs import replace

from pipeline.settings import Learning

_ON = {"replay": 1.0, "ewc": 100.0, "distillation": 0.5}
"""What a part that is off in the settings is given where a strategy names it."""

_PARTS = {"replay": "replay", "ewc": "ewc", "distill": "distillation"}
_EVERYTHING = 1_000_000_000
NAMES = ("default", "finetune", *_PARTS, "replay+ewc", "replay+ewc+distill", "joint")


def named(name: str, learning: Learning) -> Learning:
    """Return the settings under which a learner follows a strategy.

    "default" is the settings as they are, "finetune" none of the parts, "joint" a new model for
    each window, trained on all that was ever seen. Other names join parts by "+"; distillation
    needs something to replay, and brings the buffer with it.

    Raises:
        ValueError: there is no such strategy.
    """
    if name == "default":
        return learning
    if name == "joint":
        return replace(
            learning,
            retrain=True,
            replay=float(_EVERYTHING),
            replay_capacity=_EVERYTHING,
            replay_policy="reservoir",
            ewc=0.0,
            distillation=0.0,
        )
    parts = set() if name == "finetune" else set(name.split("+"))
    if parts - set(_PARTS):
        raise ValueError(
            f"there is no strategy {name!r}: take {', '.join(NAMES)}, or parts joined by +"
        )
    if "distill" in parts:
        parts.add("replay")
    capacity = learning.replay_capacity if "replay" in parts else 0
    weights = {
        field: (getattr(learning, field) or _ON[field]) if part in parts else 0.0
        for part, field in _PARTS.items()
    }
    return replace(learning, replay_capacity=capacity, **weights)
