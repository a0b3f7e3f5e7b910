"""What the command line makes of errors."""

import sys

import pytest

from connectors.cli import Exit, main


def test_words_that_are_not_utf_8_are_refused(monkeypatch, capsys):
    """No user, file or topic has such a name here, and none could be written out."""
    monkeypatch.setattr(sys, "argv", ["driftline", "inspect", "\udcff"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert Exit.USAGE == ended.value.code
    assert "error: a word of the command line is not UTF-8\n" == capsys.readouterr().err
