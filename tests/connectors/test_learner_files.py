"""The live learner's directory: what a crash or damage leaves there is mended, or told."""

from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner

from connectors.cli import Exit, _code_of, app
from connectors.kafka.learner_files import LearnerFiles, LearnerFilesError
from connectors.learning import states
from learners import state

DAMAGE = {
    "learner/10/learner.state": b"x" * 40,
    "learnt": b"10\xff",
    "lesson-10.json": b'{"report":',
    "progress.json": b"{",
}


def test_a_window_that_a_crash_has_torn_is_deleted(tmp_path):
    """It holds clicks that no erasure would find; whoever works in the directory alone may."""
    files = LearnerFiles(tmp_path)
    torn = tmp_path / "windows" / "10.abc.arrow.tmp"
    torn.write_bytes(b"half")
    with files.alone():
        left = list((tmp_path / "windows").iterdir())

    assert [] == left


def test_windows_from_before_1970_have_states_too(tmp_path):
    """Their ends, which name the states, are negative."""
    files = LearnerFiles(tmp_path)
    files.record("-604800000", b"{}")
    state.write(tmp_path / "learner" / "-604800000", state.State())
    assert "-604800000" == files.learnt()
    assert [tmp_path / "learner" / "-604800000"] == states(tmp_path)


def test_a_lesson_waits_until_it_was_published(tmp_path):
    """A crash between lesson and state leaves the former state, whose lesson was published."""
    files = LearnerFiles(tmp_path)
    assert None is files.unpublished()
    files.record("10", b'"first"')
    assert b'"first"' == LearnerFiles(tmp_path).unpublished()
    files.record_published()
    (tmp_path / "lesson-20.json").write_bytes(b"of a state that is not recorded")
    assert ("10", None) == (files.learnt(), files.unpublished())
    files.record("20", b'"second"')
    assert ("20", b'"second"') == (files.learnt(), files.unpublished())


def started(home, *lines):
    """Start a learner without a broker, and return why it cannot go on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    toml = [*lines, "[kafka]", f'bootstrap_servers = ["127.0.0.1:{port}"]']
    (home / "driftline.toml").write_text("\n".join(toml))
    words = ["learner", "--settings", home / "driftline.toml", "--directory", home / "learner"]
    return CliRunner().invoke(app, list(map(str, words))).exception


def test_a_key_that_is_not_there_is_told_before_anything_is_read(tmp_path):
    """The learner's own process says so, not the one that trains."""
    error = started(tmp_path, "[signing]", 'key = "none.key"')

    assert Exit.SETTINGS == _code_of(error)
    assert "none.key is no readable Ed25519 key" in str(error)


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_before_anything_is_read(tmp_path, name):
    """The message names the file, and that the whole directory has to go."""
    home = tmp_path / "learner"
    LearnerFiles(home).record("10", b"{}")
    state.write(home / "learner" / "10", state.State())
    (home / name).write_bytes(DAMAGE[name])
    error = started(tmp_path)

    assert (Exit.CORRUPT if "state" in name else Exit.OUTPUT) == _code_of(error)
    assert f"{home / name} is damaged" in str(error)
    assert "directory" in str(error)


def test_a_damaged_offset_of_erasures_is_told(tmp_path):
    """No erasure is passed over for it."""
    files = LearnerFiles(tmp_path)
    (tmp_path / "erased").write_bytes(b"")
    with pytest.raises(LearnerFilesError, match="erased is damaged"):
        files.erased()
