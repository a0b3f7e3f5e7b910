"""Everything that talks to a broker does so through TLS and with a password."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion
from workers import Workers

from connectors.kafka.produce import produce
from connectors.kafka.settings import BusError, Kafka, Sasl, Tls
from connectors.kafka.topics import check, create
from deploy.kafka.cluster import HOST, Cluster, missing

VARIABLE = "DRIFTLINE_TEST_PASSWORD"
ENVIRONMENT = {VARIABLE: "let-ada-in"}
STORE = "store-word"


@dataclass(frozen=True)
class Secure:
    """A broker that wants TLS and a password, and what a client has to know."""

    address: str
    ca: str
    admin: KafkaAdminClient

    def settings(self, **sasl: str) -> dict:
        """Return the settings of a client that may come in."""
        return {
            "bootstrap_servers": [self.address],
            "partitions": 2,
            "replication": 1,
            "tls": {"enabled": True, "ca": self.ca},
            "sasl": {"username": "ada", "password_env": VARIABLE} | sasl,
        }


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    if missing() or not shutil.which("keytool"):
        reason = f"a broker with TLS needs Java and its keytool ({missing()})"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    home = tmp_path_factory.mktemp("secure")
    store, ca = home / "broker.p12", home / "ca.pem"
    keytool = ["keytool", "-alias", "broker", "-keystore", store, "-storepass", STORE]
    made = ["-genkeypair", "-keyalg", "RSA", "-dname", "CN=broker", "-storetype", "PKCS12"]
    named = ["-ext", f"san=ip:{HOST}", "-ext", "bc=ca:true"]
    subprocess.run([*keytool, *made, *named], check=True, capture_output=True)
    subprocess.run([*keytool, "-exportcert", "-rfc", "-file", ca], check=True, capture_output=True)
    plain, port = _free_port(), _free_port()
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    properties = {
        "listeners": f"PLAINTEXT://{HOST}:{plain},CONTROLLER://{HOST}:{plain + 100},"
        f"SAFE://{HOST}:{port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{plain},SAFE://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SAFE:SASL_SSL",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.safe.plain.sasl.jaas.config": f'{login} user_ada="{ENVIRONMENT[VARIABLE]}";',
        "listener.name.safe.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security."
        "scram.ScramLoginModule required;",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": STORE,
        "ssl.key.password": STORE,
        "ssl.keystore.type": "PKCS12",
    }
    with Cluster(directory=home / "kafka", port=plain, properties=properties) as cluster:
        admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        yield Secure(f"{HOST}:{port}", str(ca), admin)
        admin.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_all_clients_come_in_with_tls_and_a_password(secure, mechanism, monkeypatch, tmp_path):
    """Topics are made, clicks produced and a Faust worker reads them, all through one setting."""
    monkeypatch.setenv(VARIABLE, ENVIRONMENT[VARIABLE])
    _let_in(secure.admin, "ada", ENVIRONMENT[VARIABLE])
    prefix, group = f"{mechanism.lower()}.", f"group-{mechanism}"
    given = secure.settings(mechanism=mechanism) | {"topic_prefix": prefix, "group": group}
    tls, sasl = Tls(**given["tls"]), Sasl(**given["sasl"])
    kafka = Kafka(**(given | {"tls": tls, "sasl": sasl}))
    create(kafka)
    assert [] == check(kafka)
    numbers = np.arange(100).tolist()
    assert 100 == produce(kafka, ((n, b"user", str(n).encode()) for n in numbers))
    with Workers(secure.admin, tmp_path, **given) as workers:
        workers.start(f"{prefix}clicks")
        workers.wait(lambda: 100 == sum(len(b["values"]) for b in workers.batches()), "all read")
        assert [str(n) for n in numbers] == [v for b in workers.batches() for v in b["values"]]


def test_a_wrong_password_is_told_and_not_shown(secure, monkeypatch):
    """A refused password is an error that names the settings, and not the password."""
    monkeypatch.setenv(VARIABLE, "let-eve-in")
    given = secure.settings(mechanism="PLAIN")
    kafka = Kafka(**(given | {"tls": Tls(**given["tls"]), "sasl": Sasl(**given["sasl"])}))
    for attempt in (lambda: create(kafka), lambda: produce(kafka, [])):
        with pytest.raises(BusError, match=r"kafka\.sasl") as caught:
            attempt()
        assert "let-eve-in" not in str(caught.value)


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]


def _let_in(admin: KafkaAdminClient, user: str, password: str) -> None:
    admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_512, password)]
    )
