"""The states on a disk, looked after without a worker."""

import msgspec
import pytest
from clicks import clicks, shopper
from typer.testing import CliRunner

from connectors.cli import app
from connectors.store import Store
from pipeline.engine import Engine
from pipeline.settings import Settings


@pytest.fixture
def disk(tmp_path):
    """Hold a directory with the store of two users."""
    engine = Engine(Settings())
    engine.process(clicks([*shopper("anna", "abab"), *shopper("ben", "ccd")]))
    with Store(tmp_path / "clicks-0") as store:
        store.commit(engine.changes(), {})
        store.compact()
    return tmp_path


def run(*words):
    result = CliRunner().invoke(app, ["state", *map(str, words)])
    return result.exit_code, result.stdout


def test_a_sound_disk_is_said_to_be_sound(disk):
    """Users and events are counted."""
    code, told = run("check", disk)
    assert 0 == code
    assert "sound, 2 users" in told
    assert "7 events applied" in told


def test_a_flipped_bit_is_found(disk):
    """The exit code says so, and the text what to do."""
    for file in disk.glob("*/*.sst"):
        content = bytearray(file.read_bytes())
        content[20] ^= 1
        file.write_bytes(content)
    code, told = run("check", disk)
    assert 7 == code
    assert "Corruption" in told
    assert "restores a damaged store" in told


def test_an_export_has_every_user(disk, tmp_path):
    """A line a user, with names in place of symbols."""
    assert 0 == run("export", disk, "--to", tmp_path / "users.jsonl")[0]
    lines = (tmp_path / "users.jsonl").read_bytes().splitlines()
    users = [msgspec.json.decode(line) for line in lines]
    assert ["anna", "ben"] == [user["user_id"] for user in users]
    assert {"a", "b"} == {interest["category"] for interest in users[0]["short_term"]}


def test_sizes_are_told_before_and_after_compaction(disk):
    """Both commands name the store."""
    assert "2 users" in run("size", disk)[1]
    assert "bytes before" in run("compact", disk)[1]


def test_a_directory_without_stores_is_told(tmp_path):
    """Nothing is made where nothing is."""
    code, _ = run("check", tmp_path)
    assert 0 != code
    assert [] == list(tmp_path.iterdir())
