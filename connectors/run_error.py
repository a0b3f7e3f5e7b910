"""What is wrong with a replay's directory."""

from __future__ import annotations


class RunError(Exception):
    """A directory cannot take a run, or holds none; the message says why and how to mend it."""
