"""What settings about TLS and passwords become, and what is refused."""

import logging
import ssl

import faust
import pytest
from faust.types.auth import AuthProtocol

from connectors.kafka.security import client_config, faust_config
from connectors.kafka.settings import Kafka, Sasl, Tls
from pipeline.settings import SettingsError

VARIABLE, NOWHERE = "KAFKA_PASSWORD", "/nowhere"
ENVIRONMENT = {VARIABLE: "hunter2"}
SASL = Sasl(mechanism="SCRAM-SHA-512", username="ada", password_env=VARIABLE)
SECURE = Kafka(bootstrap_servers=["a:9093", "b:9093"], tls=Tls(enabled=True), sasl=SASL)


def test_without_settings_connections_are_plain():
    """The defaults are a broker on this machine, without TLS and passwords."""
    config = client_config(Kafka(), {})
    assert ["localhost:9092"] == config["bootstrap_servers"]
    assert "PLAINTEXT" == config["security_protocol"]
    assert (None, None) == (config["ssl_context"], config["sasl_plain_password"])
    assert {"broker": "driftline://localhost:9092", "broker_credentials": None} == faust_config(
        Kafka(), {}
    )


def test_tls_verifies_who_answers():
    """With TLS the broker's certificate and host name are checked."""
    config = client_config(Kafka(tls=Tls(enabled=True)), {})
    assert "SSL" == config["security_protocol"]
    assert ssl.CERT_REQUIRED == config["ssl_context"].verify_mode
    assert config["ssl_context"].check_hostname


def test_a_password_goes_through_tls():
    """SASL with TLS sets both for clients and for Faust, which would go in clear by itself."""
    config = client_config(SECURE, ENVIRONMENT)
    assert "SASL_SSL" == config["security_protocol"]
    assert ("SCRAM-SHA-512", "ada", "hunter2") == (
        config["sasl_mechanism"],
        config["sasl_plain_username"],
        config["sasl_plain_password"],
    )
    made = faust_config(SECURE, ENVIRONMENT)
    assert "driftline://a:9093;driftline://b:9093" == made["broker"]
    assert isinstance(made["broker_credentials"], faust.SASLCredentials)
    assert AuthProtocol.SASL_SSL == made["broker_credentials"].protocol
    assert made["broker_credentials"].ssl_context is not None


def test_tls_alone_reaches_faust():
    """TLS without a password becomes Faust's TLS credentials."""
    made = faust_config(Kafka(tls=Tls(enabled=True)), {})
    assert AuthProtocol.SSL == made["broker_credentials"].protocol


def test_a_password_in_clear_needs_a_word():
    """SASL without TLS is refused, unless the settings say that it is wanted."""
    with pytest.raises(SettingsError, match="allow_without_tls"):
        client_config(Kafka(sasl=SASL), ENVIRONMENT)
    allowed = Sasl(mechanism="PLAIN", username="ada", password_env=VARIABLE, allow_without_tls=True)
    config = client_config(Kafka(sasl=allowed), ENVIRONMENT)
    assert "SASL_PLAINTEXT" == config["security_protocol"]


def test_passwords_never_show(caplog):
    """Neither settings nor configurations show a password, printed or logged."""
    config, made = client_config(SECURE, ENVIRONMENT), faust_config(SECURE, ENVIRONMENT)
    logging.getLogger("client").warning("started with %s and %s", config, made)
    assert "hunter2" not in f"{SECURE} {config!r} {config} {made!r} {caplog.text}"


def test_a_password_can_stand_in_a_file(tmp_path):
    """A mounted secret is read without its line end."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    sasl = Sasl(mechanism="PLAIN", username="ada", password_file=str(secret))
    config = client_config(Kafka(tls=Tls(enabled=True), sasl=sasl), {})
    assert "hunter2" == config["sasl_plain_password"]


@pytest.mark.parametrize(
    ("kafka", "message"),
    [
        (SECURE, "KAFKA_PASSWORD is not set"),
        (Kafka(sasl=Sasl(mechanism="PLAIN")), "set kafka.sasl.username"),
        (Kafka(sasl=Sasl(mechanism="PLAIN", username="ada")), "either password_env"),
        (
            Kafka(sasl=Sasl(mechanism="PLAIN", username="ada", password_file=NOWHERE)),
            "cannot read /nowhere",
        ),
        (Kafka(tls=Tls(enabled=True, ca="/nowhere.pem")), "cannot use /nowhere.pem"),
        (Kafka(tls=Tls(ca="ca.pem")), "kafka.tls.enabled is false"),
    ],
)
def test_what_is_missing_is_named(kafka, message):
    """Every mistake says which setting or file is wrong."""
    with pytest.raises(SettingsError, match=message):
        client_config(kafka, {})
