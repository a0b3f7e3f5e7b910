"""Strategies of continual learning by name: which parts of the recipe are on, or whose it is."""

from __future__ import annotations

from msgspec.structs import replace

from learners.recipe import Recipe
from pipeline.settings import Learning

_ON = {"replay": 1.0, "ewc": 100.0, "distillation": 0.5}
"""What a part that is off in the settings is given where a strategy names it."""

_RANK = 8

_PARTS = {"replay": "replay", "ewc": "ewc", "distill": "distillation"}
_EVERYTHING = 1_000_000_000
_PREFIX = "avalanche:"
_REFUSED = {
    "der": "it keeps a row of logits as wide as the catalogue for every example of a window, "
    "and rows of windows between which the catalogue grew do not fit together",
    "gem": "every step takes a gradient of all weights for every past window",
}
"""Strategies of Avalanche's that cannot work on this model, and why."""

AVALANCHE = ("naive", "replay", "ewc", "lwf", "agem", "gdumb", "si", "mas")
NAMES = (
    *("default", "finetune", *_PARTS, "replay+ewc", "replay+ewc+distill", "lora", "joint"),
    *(_PREFIX + name for name in AVALANCHE),
)


def named(name: str, learning: Learning) -> Learning:
    """Return the settings under which a learner follows a strategy.

    "default" is the settings as they are, "lora" these with updates of low rank and no EWC,
    "finetune" none of the parts, "joint" a new model for each window, trained on all that was ever
    seen. Other names join parts by "+"; distillation needs something to replay, and brings the
    buffer with it. Under a strategy of Avalanche's, which goes on from its last model whatever came
    of it, every challenger is promoted.

    Raises:
        ValueError: there is no such strategy.
    """
    if name == "default":
        return learning
    if name == "lora":
        return replace(learning, update_rank=learning.update_rank or _RANK, ewc=0.0)
    if name.startswith(_PREFIX):
        _check(name)
        anew = name == _PREFIX + "gdumb"  # it starts from new weights, so it trains as long
        return replace(learning, gate_tolerance=1.0, gate_forgetting=1.0, retrain=anew)
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


def recipe(name: str, learning: Learning) -> Recipe | None:
    """Return the recipe of a strategy of Avalanche's; none for all others: driftline's own.

    Raises:
        ValueError: there is no such strategy, avalanche-lib is not installed, or items expire.
    """
    if not name.startswith(_PREFIX):
        return None
    _check(name)
    if learning.item_windows:
        raise ValueError(
            f"{name} cannot drop items, and learning.item_windows is {learning.item_windows}: "
            "leave it at 0"
        )
    try:
        from learners.avalanche import Adapter  # noqa: PLC0415  its import takes seconds
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name} needs avalanche-lib ({error}): pip install '.[avalanche]'"
        ) from error
    return Adapter(name.removeprefix(_PREFIX), learning)


def _check(name: str) -> None:
    strategy = name.removeprefix(_PREFIX)
    if strategy in _REFUSED:
        raise ValueError(f"{name} does not work on this model: {_REFUSED[strategy]}")
    if strategy not in AVALANCHE:
        raise ValueError(f"there is no strategy {name!r}: take {', '.join(NAMES)}")
