"""`driftline recommend`, on a checkpoint of its own and on a learner's state."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from weeks import quick, week

from connectors.cli import Exit, app
from connectors.learning import LearningStage
from learners import checkpoint
from learners.checkpoint import champion
from learners.metrics import figures
from learners.model import SequenceModel
from pipeline.settings import Model

SETTINGS = Model(dim=8)
NAMES = checkpoint.Names(items=["lamp", "desk", "kite"], categories=["", "home"], types=["click"])


@pytest.fixture
def out(tmp_path):
    model = SequenceModel(SETTINGS, torch.Generator().manual_seed(1))
    model.grow(torch.tensor([1, 1, 0]), 2, 1, torch.Generator().manual_seed(2))
    manifest = checkpoint.Manifest(
        parent=None,
        window_start=0,
        window_end=1,
        sources={},
        settings="s",
        model=SETTINGS,
        items=3,
        metrics=figures(np.zeros(0, np.int64)),
        champion_metrics=None,
        decision="promoted",
        reason="the first",
    )
    packed = checkpoint.pack(manifest, model.state_dict(), NAMES)
    checkpoint.write(tmp_path / "checkpoints", packed)
    checkpoint.point(tmp_path / "checkpoints", packed.manifest.id)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["recommend", *map(str, arguments)])


def test_the_best_items_are_shown_with_their_categories(out):
    """As many as were asked for, the best first; as JSON an item a line."""
    done = run("lamp", "--top", 2, "--json", "--out", out)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (0, 2) == (done.exit_code, len(rows))
    assert rows == sorted(rows, key=lambda row: -row["score"])
    homes = {"lamp": "home", "desk": "home", "kite": ""}
    assert {row["item_id"]: row["category"] for row in rows}.items() <= homes.items()
    assert "desk" in run("lamp", "--out", out).stdout


def test_items_that_the_champion_does_not_know_are_named(out):
    """One of several is left out; where there is no other, nothing can be shown."""
    some = run("lamp", "boat", "--out", out)
    assert (0, True) == (some.exit_code, "does not know boat" in some.stderr)
    none = run("boat", "--out", out)
    assert (Exit.NOT_FOUND, "") == (none.exit_code, none.stdout)
    assert "none of boat is among the 3 items" in none.stderr


def test_names_are_shown_as_they_are(out):
    """Brackets and colons in an item's name are no markup."""
    odd = "[/red][x]:cat:"
    assert f"does not know {odd}" in run("lamp", odd, "--out", out).stderr
    assert f"none of {odd} is among" in run(odd, "--out", out).stderr


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    home = tmp_path_factory.mktemp("learnt")
    stage = LearningStage(quick(epochs=1), home, "")
    for number in range(2):
        stage.learn(week(number))
    return home


def test_a_user_is_shown_what_the_blend_makes_of_the_history(learnt):
    """With items or without; the blend is asked where there is one."""
    done = run("--user", "u7", "--top", 3, "--json", "--out", learnt)
    with_items = run("i1", "--user", "u7", "--top", 3, "--json", "--out", learnt)
    assert (0, 0, 3) == (done.exit_code, with_items.exit_code, len(done.stdout.splitlines()))
    assert done.stdout != with_items.stdout
    assert "the blend around" in run("i1", "--out", learnt).stdout


def test_a_checkpoint_that_is_named_is_asked_alone(learnt):
    """It knows no users; nor does a directory without a learner's state."""
    named = champion(learnt / "checkpoints")
    assert f"by {named}" in run("i1", "--checkpoint", named, "--out", learnt).stdout
    refused = run("--user", "u7", "--checkpoint", named, "--out", learnt)
    assert "knows no users" in str(refused.exception)


def test_a_stranger_is_told(learnt):
    """Nothing can be shown to a user who was never met, nor to nobody after nothing."""
    stranger = run("--user", "u99", "--out", learnt)
    assert (Exit.NOT_FOUND, "") == (stranger.exit_code, stranger.stdout)
    assert "nothing is known of u99" in stranger.stderr
    assert 2 == run("--out", learnt).exit_code
