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
from learners.signing import KeyFileError, Signer, trusted, write_pair
from pipeline.settings import Model


def made(reason="first model", signer=None, parent=None):
    return checkpoint.pack(
        Manifest(
            parent=parent,
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
        signer,
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


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json", "manifest.json"])
def test_a_damaged_copy_is_replaced(tmp_path, name):
    """Who fetches a checkpoint again has it whole."""
    home = checkpoint.write(tmp_path, made())
    (home / name).write_bytes(b"damaged")

    assert made() == checkpoint.load(checkpoint.write(tmp_path, made()))


def test_a_checkpoint_under_the_name_of_another_is_refused(tmp_path):
    """Sound and signed, it still is not what its directory's name says."""
    home = checkpoint.write(tmp_path, made())
    other = home.rename(tmp_path / made("better").manifest.id)
    with pytest.raises(CheckpointError, match=f"{other} holds checkpoint {home.name}"):
        checkpoint.load(other)


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


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "key"
    return path, write_pair(path)


def test_a_signature_is_verified(tmp_path, keys):
    """Who trusts the key loads the checkpoint; it has the id that it has unsigned."""
    signed = made(signer=Signer(keys[0]))
    home = checkpoint.write(tmp_path, signed)

    assert signed == checkpoint.load(home, trusted([keys[1]]))
    assert made().manifest.id == signed.manifest.id


def test_an_untrusted_checkpoint_is_refused(tmp_path, keys):
    """Unsigned, or signed by somebody else, it is not loaded where keys are asked for."""
    other = write_pair(tmp_path / "other")
    for number, signer in enumerate((None, Signer(keys[0]))):
        home = checkpoint.write(tmp_path / str(number), made(signer=signer))
        with pytest.raises(CheckpointError, match="none of the trusted keys"):
            checkpoint.load(home, trusted([other]))


def test_any_flipped_bit_of_a_signed_checkpoint_is_refused(tmp_path, keys):
    """Each bit of the manifest, of the vocabulary and of the weights."""
    home = checkpoint.write(tmp_path, made(signer=Signer(keys[0])))
    known = trusted([keys[1]])
    for path in home.iterdir():
        content = path.read_bytes()
        for bit in range(8 * len(content)):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError):
                checkpoint.load(home, known)
        path.write_bytes(content)
    assert home.name == checkpoint.load(home, known).manifest.id


def test_keys_are_made_once_and_told_apart(tmp_path, keys):
    """A key file is never overwritten; a file that holds none is named."""
    with pytest.raises(KeyFileError, match="exists already"):
        write_pair(keys[0])
    assert 0o600 == keys[0].stat().st_mode & 0o777
    (tmp_path / "none").write_text("nothing")
    with pytest.raises(KeyFileError, match="no readable Ed25519 key"):
        Signer(tmp_path / "none")
    with pytest.raises(KeyFileError, match="no readable Ed25519 key"):
        trusted([str(keys[0])])


def test_the_first_champion_cannot_be_rolled_back(tmp_path):
    """There is nothing to go back to; the error says so."""
    with pytest.raises(CheckpointError, match="names no champion"):
        checkpoint.roll_back(tmp_path)
    home = checkpoint.write(tmp_path, made())
    checkpoint.point(tmp_path, home.name)
    with pytest.raises(CheckpointError, match="the first champion"):
        checkpoint.roll_back(tmp_path)


def promoted(directory, text, parent):
    """Write a checkpoint and make it champion; return its id."""
    packed = made(text, parent=parent)
    checkpoint.write(directory, packed)
    checkpoint.point(directory, packed.manifest.id)
    return packed.manifest.id


def test_rollbacks_add_up(tmp_path):
    """Twice rolled back, the grandparent is champion, and each hop is remembered."""
    ids = [None]
    for number in range(3):
        ids.append(promoted(tmp_path, f"{number}", ids[-1]))
    for _ in range(2):
        checkpoint.roll_back(tmp_path)

    assert ids[1] == checkpoint.champion(tmp_path)
    assert {ids[3]: ids[2], ids[2]: ids[1]} == checkpoint.rolled_back(tmp_path)


def test_a_rollback_passes_over_what_was_rolled_back_before(tmp_path):
    """A parent that is no champion any more does not become it again."""
    first = promoted(tmp_path, "0", None)
    second = promoted(tmp_path, "1", first)
    checkpoint.roll_back(tmp_path)
    third = promoted(tmp_path, "2", second)

    assert (third, first) == checkpoint.roll_back(tmp_path)


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
