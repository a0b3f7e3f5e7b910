"""Checkpoints: whole, named by content, never executed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
import torch

import learners
from learners import checkpoint
from learners.checkpoint import CheckpointError, Manifest, Names
from learners.metrics import Figures
from pipeline.settings import Model


def made(reason="first model"):
    return checkpoint.pack(
        Manifest(
            parent=None,
            window_start=0,
            window_end=1,
            sources={"clicks-0": 41},
            settings="abc",
            model=Model(),
            items=2,
            metrics=Figures(recall=0.1, mrr=0.2, ndcg=0.3),
            champion_metrics=None,
            decision="promoted",
            reason=reason,
        ),
        {"items": torch.arange(6.0).reshape(2, 3)},
        Names(items=["x", "y"], categories=[""], types=[""]),
    )


def test_what_was_written_is_what_is_read(tmp_path):
    """Manifest, weights and names survive."""
    expected = made()
    home = checkpoint.write(tmp_path, expected)
    actual = checkpoint.load(home)

    assert tmp_path / expected.manifest.id == home
    assert expected == actual
    assert ["x", "y"] == actual.names().items
    assert torch.equal(torch.arange(6.0).reshape(2, 3), actual.tensors()["items"])


def test_nothing_half_written_is_left(tmp_path):
    """Only the checkpoint itself lies there, in three files; writing it again changes nothing."""
    checkpoint.write(tmp_path, made())
    checkpoint.write(tmp_path, made())
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())

    assert 1 == len(list(tmp_path.iterdir()))
    assert ["manifest.json", "model.safetensors", "vocabulary.json"] == files


def test_what_a_crash_left_behind_is_replaced(tmp_path):
    """A directory half written before is no hindrance."""
    left = tmp_path / f".{made().manifest.id}"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")

    assert made() == checkpoint.load(checkpoint.write(tmp_path, made()))


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
@pytest.mark.parametrize("place", [0, 9, -1])
def test_a_flipped_bit_is_refused(tmp_path, name, place):
    """A damaged file is named together with what to do about it."""
    path = checkpoint.write(tmp_path, made()) / name
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=f"{name} has the hash .* fetch"):
        checkpoint.load(path.parent)


def test_a_changed_manifest_is_refused(tmp_path):
    """A rejected model cannot be passed off as promoted, nor one model's id for another's."""
    path = checkpoint.write(tmp_path, made()) / "manifest.json"
    for field, value in {"decision": "rejected", "id": "0" * 16, "reason": "better"}.items():
        told = json.loads(msgspec.json.encode(made().manifest)) | {field: value}
        path.write_text(json.dumps(told))
        with pytest.raises(CheckpointError, match="was changed"):
            checkpoint.load(path.parent)


def test_a_missing_checkpoint_is_told(tmp_path):
    """The error names the place."""
    with pytest.raises(CheckpointError, match="nowhere is no readable checkpoint"):
        checkpoint.load(tmp_path / "nowhere")


def test_the_id_is_of_the_content():
    """The same content has the same id; another reason has another."""
    assert made().manifest.id == made().manifest.id != made("better").manifest.id


def test_the_champion_is_named(tmp_path):
    """`champion` holds the id and nothing else."""
    checkpoint.point(tmp_path, "one")
    checkpoint.point(tmp_path, "two")

    assert "two" == (tmp_path / "champion").read_text()


def test_nothing_is_pickled():
    """No module of the package reads or writes pickles."""
    for path in Path(learners.__file__).parent.glob("*.py"):
        found = re.search(r"import pickle|(?<!safetensors\.)torch\.(save|load)\(", path.read_text())
        assert found is None, path
