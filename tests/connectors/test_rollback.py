"""`driftline checkpoint keygen`, `verify` and `rollback` as a user meets them."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from connectors.cli import Exit, _code_of, app
from learners import checkpoint
from learners.continual import Learner
from learners.signing import write_pair
from pipeline.settings import Signing

sys.path.insert(0, str(Path(__file__).parents[1] / "learners"))
from msgspec.structs import replace
from weeks import quick, week


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with two promoted, signed checkpoints."""
    home = tmp_path_factory.mktemp("replay")
    write_pair(home / "key")
    settings = quick(gate_tolerance=1.0, gate_forgetting=1.0, first_epochs=1, epochs=1)
    settings = replace(settings, signing=Signing(key=str(home / "key")))
    learner = Learner(settings, checkpoints=home / "checkpoints")
    for number in range(2):
        learner.learn(week(number))
    return home


def run(*words):
    return CliRunner().invoke(app, ["checkpoint", *map(str, words)])


def trusting(path, key):
    path.write_text(f'[signing]\ntrusted = ["{key}"]\n')
    return path


def test_signatures_are_verified_on_request(home, tmp_path):
    """Sound for who trusts the key, refused by who trusts another."""
    ours = run(
        "verify", "--out", home, "--settings", trusting(tmp_path / "a.toml", home / "key.pub")
    )
    made = run("keygen", tmp_path / "other")
    settings = trusting(tmp_path / "b.toml", tmp_path / "other.pub")
    others = run("verify", "--out", home, "--settings", settings)

    assert (0, 2) == (ours.exit_code, ours.output.count("sound"))
    assert "signing.trusted" in made.output
    assert (7, 0) == (others.exit_code, others.output.count("sound"))


def test_a_champion_that_is_not_there_is_told(home, tmp_path):
    """All checkpoints are sound, but the one to serve is missing."""
    shutil.copytree(home / "checkpoints", tmp_path / "checkpoints")
    champion = checkpoint.champion(tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "checkpoints" / champion)
    done = run("verify", "--out", tmp_path)

    assert (7, 1) == (done.exit_code, done.output.count("sound"))
    assert f"champion {champion} is not there" in done.stderr


def test_a_rollback_that_cannot_be_told_changes_nothing(home, tmp_path):
    """With the brokers away the champion stays, so that who tries again goes back by one."""
    shutil.copytree(home / "checkpoints", tmp_path / "checkpoints")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = tmp_path / "driftline.toml"
    settings.write_text(f'[kafka]\nbootstrap_servers = ["127.0.0.1:{port}"]\n')
    before = checkpoint.champion(home / "checkpoints")
    done = run("rollback", "--live", "--settings", settings, "--directory", tmp_path)

    assert Exit.BUS == _code_of(done.exception)
    assert before == checkpoint.champion(tmp_path / "checkpoints")
    assert {} == checkpoint.rolled_back(tmp_path / "checkpoints")


def test_a_rollback_names_both(home):
    """The former champion is champion again, and the command says which is which."""
    bad = checkpoint.champion(home / "checkpoints")
    parent = checkpoint.load(home / "checkpoints" / bad).manifest.parent
    done = run("rollback", "--out", home)

    assert 0 == done.exit_code
    assert f"{parent} is champion again in place of {bad}" in done.output
    assert parent == checkpoint.champion(home / "checkpoints")
    assert isinstance(run("rollback", "--out", home).exception, checkpoint.CheckpointError)
