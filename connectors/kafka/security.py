"""From settings to client configurations: the one place where TLS and passwords are set up."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import faust

from connectors.kafka.settings import Kafka, Sasl, Tls
from pipeline.settings import SettingsError

SCHEME = "driftline"
"""The URL scheme of our transport in Faust's registry, see `transport`."""


class Secret(str):
    """A text that does not show itself: clients log their configuration as a dict."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class ClientConfig(TypedDict):
    """What clients of aiokafka and of kafka-python take alike."""

    bootstrap_servers: list[str]
    security_protocol: str
    ssl_context: ssl.SSLContext | None
    sasl_mechanism: str
    sasl_plain_username: str | None
    sasl_plain_password: str | None


def client_config(kafka: Kafka, environment: Mapping[str, str] = os.environ) -> ClientConfig:
    """Return keyword arguments for any client of aiokafka or kafka-python.

    Raises:
        SettingsError: a secret or a certificate is missing, or a password would travel in clear.
    """
    context = _tls_context(kafka.tls, environment)
    password = _password(kafka.sasl, environment) if kafka.sasl.mechanism else None
    if password is not None and context is None and not kafka.sasl.allow_without_tls:
        raise SettingsError(
            "kafka.sasl is set but kafka.tls.enabled is false, so the password would travel in "
            "clear: enable TLS, or set kafka.sasl.allow_without_tls = true in a network you trust"
        )
    return ClientConfig(
        bootstrap_servers=list(kafka.bootstrap_servers),
        security_protocol=("SASL_" if password is not None else "")
        + ("PLAINTEXT" if context is None else "SSL"),
        ssl_context=context,
        sasl_mechanism=kafka.sasl.mechanism or "PLAIN",  # must be one of the known, used or not
        sasl_plain_username=kafka.sasl.username if password is not None else None,
        sasl_plain_password=password,
    )


def faust_config(kafka: Kafka, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return keyword arguments for `faust.App`: the brokers, through our transport, and the keys.

    Raises:
        SettingsError: as `client_config`.
    """
    config = client_config(kafka, environment)
    servers = ";".join(f"{SCHEME}://{server}" for server in config["bootstrap_servers"])
    return {"broker": servers, "broker_credentials": _faust_credentials(config)}


def _faust_credentials(config: ClientConfig) -> Any:
    context = config["ssl_context"]
    if config["sasl_plain_password"] is not None:
        # Without the context Faust would fall back to a connection in clear, silently.
        return faust.SASLCredentials(
            username=config["sasl_plain_username"],
            password=config["sasl_plain_password"],
            mechanism=config["sasl_mechanism"],
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def _tls_context(tls: Tls, environment: Mapping[str, str]) -> ssl.SSLContext | None:
    if not tls.enabled:
        if tls.ca or tls.certificate or tls.key:
            raise SettingsError(
                "kafka.tls names files but kafka.tls.enabled is false, so they would not be used: "
                "set kafka.tls.enabled = true, or remove them"
            )
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.certificate:
            password = _from_environment(tls.key_password_env, environment, "kafka.tls.key")
            # An empty password, not None: OpenSSL would ask for one at the terminal and hang.
            context.load_cert_chain(tls.certificate, tls.key or None, password or "")
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(name for name in (tls.ca, tls.certificate, tls.key) if name)
        raise SettingsError(
            f"kafka.tls: cannot use {files or 'the certificates of the system'}: {error}; PEM "
            f"files are expected, and kafka.tls.key_password_env where the key has a password"
        ) from None
    return context


def _password(sasl: Sasl, environment: Mapping[str, str]) -> Secret:
    if not sasl.username:
        raise SettingsError(f"kafka.sasl.mechanism is {sasl.mechanism}: set kafka.sasl.username")
    if bool(sasl.password_env) == bool(sasl.password_file):
        raise SettingsError(
            "kafka.sasl: set either password_env (the name of an environment variable) or "
            "password_file (the name of a file), and not both"
        )
    if sasl.password_env:
        return _from_environment(sasl.password_env, environment, "kafka.sasl.password_env")
    try:
        return Secret(Path(sasl.password_file).read_text("utf-8").rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(
            f"kafka.sasl.password_file: cannot read {sasl.password_file}: {reason}"
        ) from None


def _from_environment(name: str, environment: Mapping[str, str], where: str) -> Secret:
    if not name:
        return Secret("")
    if not environment.get(name):
        raise SettingsError(f"{where}: the environment variable {name} is not set, or is empty")
    return Secret(environment[name])
