"""Priors on disk."""

from __future__ import annotations

from pathlib import Path

import msgspec

from connectors.log import write_atomically
from pipeline.prior import UNIFORM, Prior
from pipeline.settings import SettingsError


def load_prior(path: str) -> Prior:
    """Read a prior; an empty path gives the uniform one.

    Raises:
        SettingsError: The file cannot be read, or is no prior.
    """
    if not path:
        return UNIFORM
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Prior)
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsError(
            f"cannot read the prior {path} (settings: drift.prior): {error}; "
            "`driftline calibrate` makes one"
        ) from None


def write_prior(path: Path, prior: Prior) -> None:
    """Write a prior to a file."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(prior)))
