"""The live learner's directory: what a crash or damage leaves there is mended, or told."""

from __future__ import annotations

from connectors.kafka.learner_files import LearnerFiles


def test_a_window_that_a_crash_has_torn_is_deleted(tmp_path):
    """It holds clicks that no erasure would find; whoever works in the directory alone may."""
    files = LearnerFiles(tmp_path)
    torn = tmp_path / "windows" / "10.abc.arrow.tmp"
    torn.write_bytes(b"half")
    with files.alone():
        left = list((tmp_path / "windows").iterdir())

    assert [] == left
