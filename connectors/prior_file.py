"""Priors on disk."""

from __future__ import annotations

from pathlib import Path

import msgspec

from connectors.log import write_atomically
from pipeline.prior import SCHEMA, UNIFORM, Prior
from pipeline.settings import SettingsError


def load_prior(path: str) -> Prior:
    """Read a prior; an empty path gives the uniform one.

    Raises:
        SettingsError: The file cannot be read, or is no prior.
    """
    if not path:
        return UNIFORM
    try:
        return decode_prior(Path(path).read_bytes())
    except (OSError, SettingsError) as error:
        raise SettingsError(
            f"cannot read the prior {path} (settings: drift.prior): {error}; "
            "`driftline calibrate` makes one"
        ) from None


def decode_prior(data: bytes) -> Prior:
    """Read a prior.

    Raises:
        SettingsError: The bytes are no prior of the schema that this release reads.
    """
    try:
        prior = msgspec.json.decode(data, type=Prior)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"not a prior in JSON: {error}") from None
    if prior.schema != SCHEMA:
        raise SettingsError(
            f"a prior of schema {prior.schema}, and this release reads {SCHEMA}: calibrate anew"
        )
    return prior


def write_prior(path: Path, prior: Prior) -> None:
    """Write a prior to a file."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(prior)))
