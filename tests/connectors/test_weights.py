"""`driftline learner --weights`: where weights go is looked at before anything is read."""

from __future__ import annotations

import asyncio
import sys

import pytest
from typer.testing import CliRunner

from connectors.cli import Exit, _code_of, app
from connectors.kafka import checkpoints
from connectors.kafka.publisher import Publisher
from connectors.kafka.settings import Kafka
from connectors.kafka.training import check_address
from learners.checkpoint import CheckpointError, Manifest, Names, pack
from learners.metrics import Figures
from pipeline.settings import Model, SettingsError


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


@pytest.mark.parametrize(
    "address",
    ["", "models", "/models", "file:///models", "memory://models", "memory://h:8020/user/me@corp"],
)
def test_an_address_that_needs_nothing_more_is_taken(address):
    """The bus, a folder, and what fsspec has of its own."""
    check_address(address)


@pytest.mark.parametrize("address", ["ftp://me:secret@host/models", "simplecache::s3://a:secret@b"])
def test_a_password_in_an_address_is_refused(address):
    """Manifests would publish it; nor does the message tell it."""
    with pytest.raises(SettingsError, match="bears a password") as error:
        check_address(address)
    assert "secret" not in str(error.value)


def test_whatever_a_file_system_raises_is_an_error_of_writing(tmp_path):
    """The learner tries again, as where the address is away for a while; it does not end."""
    manifest = Manifest(
        parent=None,
        window_start=0,
        window_end=1,
        sources={},
        settings="",
        model=Model(),
        items=0,
        metrics=Figures(recall=0.0, mrr=0.0, ndcg=0.0),
        champion_metrics=None,
        decision="promoted",
        reason="",
    )
    packed = pack(manifest, {}, Names(items=[], categories=[], types=[]))
    address = f"{tmp_path}/\0"  # fsspec raises ValueError
    sent = checkpoints.publish(
        Publisher(Kafka()), None, packed, end=1, checkpoints=tmp_path, weights=address
    )
    with pytest.raises(OSError, match="cannot write the weights to"):
        asyncio.run(sent)
