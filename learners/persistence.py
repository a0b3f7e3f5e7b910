"""What of a learner outlives the process, and how it is put back."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from learners.catalogue import Catalogue, Vocabulary
from learners.ewc import Consolidation
from learners.forgetting import Probe
from learners.metrics import Figures
from learners.model import SequenceModel
from learners.recipe import OwnRecipe
from learners.state import State, StateError
from pipeline.settings import Settings, SettingsError

if TYPE_CHECKING:
    from learners.continual import Learner

_ARRAYS = (
    "catalogue.unseen",
    "ensemble.popularity.counts",
    "ensemble.neighbours.seen",
    "ensemble.neighbours.again",
    "ensemble.blend.weights",
    "ensemble.blend.curvature",
    "recipe.replay.priority",
    "anchors.priority",
)
_LAYOUT = 3
_SINCE = {
    "ensemble.neighbours.again": 2,
    "ensemble.blend.weights": 2,
    "ensemble.blend.curvature": 2,
    "catalogue.unseen": 3,
    "prints": 3,
}
"""The layout in which an array is new, or began to mean what it does."""
_COUNTED = ("markov", "neighbours", "personal")
_BUFFERS = ("recipe.replay", "anchors")


def collect(learner: Learner) -> State:
    """Take down all that a learner knows.

    Raises:
        StateError: its recipe is not driftline's own.
    """
    recipe = _own(learner)
    state = State()
    state.texts |= {
        "layout": _LAYOUT,
        "settings": learner.settings.version,
        "learnt under": learner.settings.encode().decode(),
        "items": learner.catalogue.items.names,
        "categories": learner.catalogue.categories.names,
        "types": learner.catalogue.types.names,
        "users": learner.ensemble.personal.users.names,
        "sources": learner.sources,
        "until": learner.until,
        "champion": learner.champion_id,
        "probed": learner.probes.added,
        "probes": [[probe.number, probe.start, probe.items] for probe in learner.probes.kept],
        "probes then": [probe.then for probe in learner.probes.kept],
    }
    state.put("category", learner.catalogue.category)
    state.put("hits", learner.hits)
    state.put("prints", learner.prints.view(np.int64))
    for name in _ARRAYS:
        state.put(name, attrgetter(name)(learner))
    for name in _COUNTED:
        state.put_counts(name, getattr(learner.ensemble, name).counts)
    for name in _BUFFERS:
        state.put_sequences(name, attrgetter(name)(learner).sequences)
    state.put_sequences("histories", learner.histories.past)
    for probe in learner.probes.kept:
        state.put_sequences(f"probe {probe.number}", probe.sequences)
    state.put_group("fisher", recipe.consolidation.fisher)
    state.put_group("anchor", recipe.consolidation.anchor)
    if learner.champion is not None:
        state.put_group("champion", learner.champion.state_dict())
    return state


def settings_of(state: State, where: str) -> Settings:
    """Return the settings that a state was saved under.

    Raises:
        StateError: an earlier release saved it, which did not note them; or a later one.
    """
    try:
        return Settings.decode(state.texts["learnt under"].encode())
    except (KeyError, SettingsError):
        raise StateError(
            f"{where} was saved by another release of driftline, and does not tell the settings it "
            "was saved under: have this one learn another window, or replay anew"
        ) from None


def restore(learner: Learner, state: State, where: str) -> None:
    """Put back into a new learner what was taken down of an old one.

    What an earlier layout does not have, or means otherwise, starts anew.

    Raises:
        StateError: the old one had other settings.
    """
    recipe = _own(learner)
    texts, device = state.texts, learner.device
    if texts["settings"] != learner.settings.version:
        raise StateError(
            f"{where} was saved under settings {texts['settings']}, these are "
            f"{learner.settings.version}: take the settings it was saved under, or start anew"
        )
    layout = texts.get("layout", 1)
    learner.catalogue = Catalogue(
        texts["items"], texts["categories"], texts["types"], state.array("category")
    )
    learner.ensemble.personal.users = Vocabulary(texts["users"])
    learner.sources, learner.until = texts["sources"], texts["until"]
    learner.champion_id = texts["champion"]
    learner.hits = state.array("hits")
    if layout >= _SINCE["prints"]:
        learner.prints = state.array("prints").view(np.uint64)
    learning = learner.settings.learning
    for name in (name for name in _ARRAYS if layout >= _SINCE.get(name, 1)):
        owner, _, field = name.rpartition(".")
        setattr(attrgetter(owner)(learner), field, state.array(name))
    for name in _COUNTED:
        getattr(learner.ensemble, name).counts = state.counts(name, learning.neighbours)
    for name in _BUFFERS:
        attrgetter(name)(learner).sequences = state.sequences(name)
    learner.histories.past = state.sequences("histories")
    learner.probes.added = texts["probed"]
    learner.probes.kept = [
        Probe(
            number=number,
            start=start,
            items=items,
            sequences=state.sequences(f"probe {number}"),
            then=msgspec.convert(then, Figures | None),
        )
        for (number, start, items), then in zip(texts["probes"], texts["probes then"], strict=True)
    ]
    recipe.consolidation = Consolidation(
        state.group("fisher", device), state.group("anchor", device)
    )
    if learner.champion_id is not None:
        weights = state.group("champion", torch.device("cpu"))
        learner.champion = SequenceModel.restore(learning.model, weights).to(device)


def _own(learner: Learner) -> OwnRecipe:
    if not isinstance(learner.recipe, OwnRecipe):
        raise StateError(
            f"what {type(learner.recipe).__name__} remembers has no file format: "
            "only a learner with driftline's own recipe can be saved and loaded"
        )
    return learner.recipe
