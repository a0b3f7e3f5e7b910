"""`driftline learner --weights`: where weights go is looked at before anything is read."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from connectors.cli import Exit, _code_of, app
from connectors.kafka import checkpoints
from connectors.kafka.training import check_address
from learners.checkpoint import CheckpointError


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("s3://models", "Install s3fs"),
        ("simplecache::s3://models", "Install s3fs"),
        ("nowhere://models", "Protocol not known: nowhere"),
    ],
)
def test_an_address_that_cannot_be_written_is_a_settings_error(monkeypatch, address, told):
    """What to install is said at once, not when the first window is learnt."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    done = CliRunner().invoke(app, ["learner", "--weights", address])
    assert Exit.SETTINGS == _code_of(done.exception)
    assert f"--weights {address}: {told}" in str(done.exception)
    with pytest.raises(CheckpointError, match=told):
        checkpoints.fetch(address)


@pytest.mark.parametrize("address", ["", "models", "/models", "file:///models", "memory://models"])
def test_an_address_that_needs_nothing_more_is_taken(address):
    """The bus, a folder, and what fsspec has of its own."""
    check_address(address)
