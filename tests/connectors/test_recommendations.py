"""`driftline recommend`, on a checkpoint of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from connectors.cli import Exit, app
from learners import checkpoint
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
