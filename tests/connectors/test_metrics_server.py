"""What a supervisor asks is answered, whoever else is connected."""

import socket
import urllib.request

import pytest
from prometheus_client.registry import Collector

from connectors.kafka.metrics import LOOPBACK, require_free, serve
from pipeline.settings import SettingsError


class Nothing(Collector):
    def collect(self):
        return iter(())


@pytest.fixture
def port():
    """Hold the port of a server that runs."""
    with socket.create_server((LOOPBACK, 0)) as free:
        number = free.getsockname()[1]
    server = serve(number, Nothing(), {"/healthz": list})
    yield number
    server.shutdown()
    server.server_close()


def test_who_asks_nothing_holds_nobody_up(port):
    """Health is told while a connection is open on which nothing comes."""
    with (
        socket.create_connection((LOOPBACK, port)),
        urllib.request.urlopen(f"http://{LOOPBACK}:{port}/healthz", timeout=4) as answer,
    ):
        assert b"ok\n" == answer.read()


@pytest.mark.parametrize("wrong", [70_000, -1])
def test_a_port_that_is_none_is_told(wrong):
    """Before anything is started."""
    with pytest.raises(SettingsError, match=f"metrics port {wrong}"):
        require_free(wrong)


def test_a_port_that_is_taken_is_told(port):
    """Of two workers with one port the second says so."""
    with pytest.raises(SettingsError, match="name another"):
        require_free(port)
