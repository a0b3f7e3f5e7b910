"""The settings file of the live driver: the core's tables, and those of the bus and the worker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec.structs import replace

from connectors.kafka.settings import Kafka
from pipeline.settings import (
    Positive,
    PositiveDuration,
    Section,
    Settings,
    SettingsError,
    decode_duration,
)

SETTINGS = "DRIFTLINE_SETTINGS"
"""The environment variable that names the settings file."""
BOOTSTRAP = "DRIFTLINE_BOOTSTRAP"
"""The environment variable that takes the place of kafka.bootstrap_servers: host:port, commas."""


class Worker(Section, frozen=True):
    """A worker process. Nothing here changes what comes out."""

    data: str = "data"
    """The directory of the states; each worker on a machine may have its own, or all the same."""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Of /metrics, /healthz and /readyz, on the loopback address only; 0: nowhere."""
    hot_users: Positive = 20_000
    """Users of a partition whose states are kept in memory, some 6 kB each."""
    batch: Positive = 16_384
    """Records taken at a time, and as many more as complete a producer's batch."""
    flush_interval: PositiveDuration = PositiveDuration.parse("2s")
    """How often changed states become durable; after a crash so much is read again."""
    flush_records: Positive = 500_000
    """And after so many records of a partition, if that is sooner."""
    commit_interval: PositiveDuration = PositiveDuration.parse("3s")
    """How often the group's offsets are committed, as far as states are durable."""
    session_timeout: PositiveDuration = PositiveDuration.parse("15s")
    """Silence after which the partitions of a worker go to the others."""
    instance: str = ""
    """A name that no other worker of the group has: one that is back within the session's timeout
    then has its partitions still, and no others move. Empty: who stops gives them away at once."""
    standby: bool = False
    """Keep copies of the other workers' partitions, too: one that moves here is soon ready. This
    takes a directory (`data`) that no other worker has."""


class Live(Settings, frozen=True):
    """The whole file."""

    kafka: Kafka = Kafka()
    worker: Worker = Worker()


def load_live(
    path: Path | None, environment: Mapping[str, str] = os.environ
) -> tuple[Settings, Kafka, Worker]:
    """Read a settings file, or take the defaults where there is none.

    The core's settings come out as if the other tables were not there: what is computed, and the
    version that alerts bear, does not depend on where the brokers are.

    Raises:
        SettingsError: the file cannot be read or is wrong.
    """
    live = _read(path) if path else Live()
    core = Settings(**{name: getattr(live, name) for name in Settings.__struct_fields__})
    kafka = live.kafka
    if environment.get(BOOTSTRAP):
        servers = [server.strip() for server in environment[BOOTSTRAP].split(",")]
        kafka = replace(kafka, bootstrap_servers=[server for server in servers if server])
    return core, kafka, live.worker


def settings_path(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the settings file that the environment names, if any."""
    return Path(environment[SETTINGS]) if environment.get(SETTINGS) else None


def decode_live(data: bytes, where: str) -> Live:
    """Read settings from TOML; `where` is named in errors.

    Raises:
        SettingsError: they are wrong.
    """
    try:
        return msgspec.toml.decode(data, type=Live, dec_hook=decode_duration)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, SettingsError) as error:
        raise SettingsError(
            f"{where}: {error}; `driftline init` writes a file with every setting and its default"
        ) from None


def _read(path: Path) -> Live:
    try:
        return decode_live(path.read_bytes(), str(path))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
