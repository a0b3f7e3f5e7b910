"""Where the brokers are and how to talk to them. Nothing here changes what comes out."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pipeline.settings import Positive, PositiveDuration, Section, SettingsError

_LAST_PORT = 65_535

BY_USER = "-by-user"
"""Follows the click topic's name in that of the topic that it is re-keyed through."""


class BusError(RuntimeError):
    """The brokers do not do what is asked; the message says why and how to mend it."""


class Tls(Section, frozen=True):
    """Encrypted connections. File names are of PEM files."""

    enabled: bool = False
    ca: str = ""
    """Who signs the brokers' certificates; empty trusts whom the system trusts."""
    certificate: str = ""
    """The client's own certificate, where the brokers ask for one; with its chain."""
    key: str = ""
    """The key of that certificate; empty where it stands in the same file."""
    key_password_env: str = ""
    """The environment variable that holds the key's password."""


class Sasl(Section, frozen=True):
    """A user name and a password. The password itself never stands in the settings."""

    mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    """Empty does without a password."""
    username: str = ""
    password_env: str = ""
    """The environment variable that holds the password."""
    password_file: str = ""
    """Or the file that holds it, such as a mounted secret."""
    allow_without_tls: bool = False
    """Send the password, and all events, readable to everyone on the way."""


class Kafka(Section, frozen=True):
    """The event bus."""

    bootstrap_servers: Annotated[list[str], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["localhost:9092"]
    )
    """Some of the brokers, as host:port; the rest is learned from them."""
    group: str = "driftline"
    """The consumer group; workers of one group share the partitions."""
    topic_prefix: str = ""
    """Set before every topic's name, such as "shop."."""
    clicks_topic: str = "clicks"
    """Where the clicks are read, without the prefix."""
    rekey: bool = False
    """Send the clicks on through a topic of their own, keyed by user, because they are not."""
    partitions: Positive = 4
    """Partitions of topics that are created; as many workers can share the work."""
    replication: Annotated[int, msgspec.Meta(ge=-1, le=32767)] = -1
    """Replicas of topics that are created; -1 takes the brokers' default."""
    retention: PositiveDuration = PositiveDuration.parse("30d")
    """How long topics that are created keep clicks, alerts and dead letters."""
    tls: Tls = Tls()
    sasl: Sasl = Sasl()

    def __post_init__(self) -> None:
        """Hold the replicas to a number that there can be, and servers to their form."""
        if not self.replication:
            raise SettingsError("kafka: replication is 0: write -1 for the brokers' default, or 1")
        for server in self.bootstrap_servers:
            host, _, port = server.rpartition(":")
            if not host or not port.isdecimal() or int(port) > _LAST_PORT:
                raise SettingsError(f"kafka.bootstrap_servers: {server!r} is not host:port")

    @property
    def servers(self) -> str:
        """The brokers named, as a message tells of them."""
        return ", ".join(self.bootstrap_servers)

    def failure(self, what: str, error: Exception) -> BusError:
        """Return what to raise where a client cannot do something, and what may be the cause."""
        return BusError(
            f"cannot {what} at {self.servers}: {error}; is the broker running, and are kafka.tls "
            "and kafka.sasl set as it wants?"
        )

    @property
    def received(self) -> str:
        """The full name of the topic that clicks come in by."""
        return self.topic_prefix + self.clicks_topic

    @property
    def clicks(self) -> str:
        """The full name of the topic that clicks are read from: it is keyed by user."""
        return self.received + (BY_USER if self.rekey else "")
