"""What Prometheus sees of a worker: exact totals, as the states have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from connectors.kafka.partitions import Partition

LOOPBACK = "127.0.0.1"


class Metrics(Collector):
    """Reads the partitions whenever it is asked.

    Totals of events are those of a partition's whole history, and go with it to other workers.
    """

    def __init__(self, partitions: Callable[[], Iterable[Partition]]) -> None:
        self._partitions = partitions
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
        for partition in self._partitions():
            for outcome, count in outcomes(partition).items():
                events.add_metric([partition.source, outcome], count)
            for kind, count in partition.alerts.items():
                alerts.add_metric([partition.source, kind], count)
            lag.add_metric([partition.source], partition.lag)
            offset.add_metric([partition.source], partition.stamp.next)
        return iter([events, alerts, lag, offset, split])

    def serve(self, port: int) -> WSGIServer:
        """Answer over HTTP, on this machine only."""
        registry = CollectorRegistry()
        registry.register(self)
        server, _ = start_http_server(port, addr=LOOPBACK, registry=registry)
        return server


def outcomes(partition: Partition) -> dict[str, int]:
    """Count a partition's records by what became of them: together, all that were read."""
    counts = partition.engine.progress.counts
    return {
        "applied": counts.applied,
        "late": counts.late,
        "duplicate": counts.duplicates + partition.stamp.origins.repeated,
        "dead_letter": partition.stamp.dead_letters,
    }
