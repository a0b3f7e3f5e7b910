"""What Prometheus sees of a learner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class LearnerMetrics(Collector):
    """Asks the learner whenever it is asked."""

    def __init__(
        self,
        *,
        lag: Callable[[], Mapping[str, int]],
        outcomes: Callable[[], Mapping[str, int]],
        waiting: Callable[[], int],
    ) -> None:
        """Know whom to ask.

        Args:
            lag: records yet to be read, by partition.
            outcomes: clicks that are in no window, by why, since the start.
            waiting: windows that wait to be learnt, the one being learnt included.
        """
        self._lag = lag
        self._outcomes = outcomes
        self._waiting = waiting

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        lag = GaugeMetricFamily("driftline_learner_lag", "Records to be read", labels=["source"])
        for source, records in self._lag().items():
            lag.add_metric([source], records)
        left_out = CounterMetricFamily(
            "driftline_learner_left_out", "Clicks in no window since the start", labels=["why"]
        )
        for why, clicks in self._outcomes().items():
            left_out.add_metric([why], clicks)
        windows = GaugeMetricFamily(
            "driftline_learner_waiting",
            "Closed windows that wait to be learnt, the one being learnt included",
            value=self._waiting(),
        )
        return iter([lag, left_out, windows])
