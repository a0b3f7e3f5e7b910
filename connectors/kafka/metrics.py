"""What Prometheus and a supervisor see of a worker: exact totals, as the states have them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from connectors.kafka.partitions import Partition
from pipeline.settings import SettingsError

LOOPBACK = "127.0.0.1"
BEAT_SECONDS = 30.0
"""How long the event loop may stand still before the process counts as sick."""

Troubles = Callable[[], list[str]]
"""Says what does not go on, and why; an empty list where all goes on."""


class Pulse:
    """Knows when the event loop last ran."""

    def __init__(self) -> None:
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """Say that it runs."""
        self._beaten = time.monotonic()

    def sickness(self) -> list[str]:
        """Say whether it has stood still for long, which only a restart mends."""
        still = time.monotonic() - self._beaten
        return [f"the event loop has stood still for {still:.0f} s"] if still > BEAT_SECONDS else []


class Metrics(Collector):
    """Reads the partitions whenever it is asked.

    Totals of events are those of a partition's whole history, and go with it to other workers.
    """

    def __init__(
        self,
        partitions: Callable[[], Iterable[Partition]],
        *,
        copies: Callable[[], Mapping[str, int]],
    ) -> None:
        """Read `partitions`, and of each of the `copies`, by source, how far it is behind."""
        self._partitions = partitions
        self._copies = copies
        self.split_users: Callable[[], int] = lambda: 0
        """Tells how many users were met in several partitions, see `keying`."""

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        events = CounterMetricFamily(
            "driftline_events", "Records read, by what became of them", labels=["source", "outcome"]
        )
        alerts = CounterMetricFamily(
            "driftline_alerts", "Alerts published since the start", labels=["source", "kind"]
        )
        lag = GaugeMetricFamily("driftline_lag", "Records yet to be read", labels=["source"])
        offset = GaugeMetricFamily("driftline_offset", "The next to be read", labels=["source"])
        split = GaugeMetricFamily(
            "driftline_split_users",
            "Users met in several partitions, of those sampled: the topic is not keyed by user",
            value=self.split_users(),
        )
        standby = GaugeMetricFamily(
            "driftline_standby_lag",
            "Records of the changelog that a copy has yet to read",
            labels=["source"],
        )
        for source, behind in self._copies().items():
            standby.add_metric([source], behind)
        for partition in self._partitions():
            for outcome, count in outcomes(partition).items():
                events.add_metric([partition.source, outcome], count)
            for kind, count in partition.alerts.items():
                alerts.add_metric([partition.source, kind], count)
            lag.add_metric([partition.source], partition.lag)
            offset.add_metric([partition.source], partition.stamp.next)
        return iter([events, alerts, lag, offset, split, standby])


def serve(port: int, metrics: Collector, told: Mapping[str, Troubles]) -> WSGIServer:
    """Answer over HTTP, on this machine only.

    Args:
        port: to answer at.
        metrics: for Prometheus, at `/metrics`.
        told: by path: 200 where there is no trouble, else 503, and what it is.
    """
    registry = CollectorRegistry()
    registry.register(metrics)
    of_metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        ask = told.get(environ["PATH_INFO"])
        if ask is None:
            found: Iterable[bytes] = of_metrics(environ, start)
            return found
        troubles = ask()
        status = "503 Service Unavailable" if troubles else "200 OK"
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return ["\n".join(troubles or ["ok"]).encode() + b"\n"]

    server = make_server(LOOPBACK, port, answer, server_class=_Server, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def require_free(port: int) -> None:
    """Check that nobody answers at a port yet; 0 is none.

    Raises:
        SettingsError: somebody does, or the port is not for us.
    """
    try:
        with socket.create_server((LOOPBACK, port)):
            pass
    except (OSError, OverflowError) as error:
        raise SettingsError(f"metrics port {port}: {error}: name another one") from None


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each on a thread of its own: one who connects and asks nothing holds nobody up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave out of the log who went away, or was silent for too long."""


class _Quiet(WSGIRequestHandler):
    timeout = 5.0
    """Seconds to ask in."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name in the library
        """Leave the log to what matters."""


def outcomes(partition: Partition) -> dict[str, int]:
    """Count a partition's records by what became of them: together, all that were read."""
    counts = partition.engine.progress.counts
    return {
        "applied": counts.applied,
        "late": counts.late,
        "duplicate": counts.duplicates + partition.stamp.origins.repeated,
        "dead_letter": partition.stamp.dead_letters,
        "erased": partition.stamp.passed_over,
    }
