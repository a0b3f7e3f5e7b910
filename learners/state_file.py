"""The file of a learner's state: the SHA-256 of what follows, then that; damage is noticed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

FILE = "learner.state"

_NAME = re.compile(r"-?\d+")
_START_OVER = (
    "a live learner starts over from the click topic once its whole directory is removed, a "
    "replay with --overwrite"
)


class StateError(ValueError):
    """A learner's saved state is missing, damaged, or of other settings."""


def is_name(text: str) -> bool:
    """Tell whether a text names a state: the end of the newest window in it, in milliseconds."""
    return _NAME.fullmatch(text) is not None


def seal(content: bytes) -> bytes:
    """Put the hash of what is to be written before it."""
    return hashlib.sha256(content).digest() + content


def unseal(directory: Path) -> bytes:
    """Read the file in a directory, check its hash, and return what follows it.

    Raises:
        StateError: it is not there or damaged.
    """
    path = directory / FILE
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise StateError(
            f"cannot read the learner's state {path}: {error}; {_START_OVER}"
        ) from None
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        raise StateError(f"{path} is damaged: its hash differs from the one stored; {_START_OVER}")
    return content
