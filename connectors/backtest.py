"""The embedded driver: files in, files out, no Kafka.

It reads, orders and writes; what the events mean is decided in `pipeline` and `learners`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from connectors.interest_history import InterestHistory
from connectors.log import JsonLines
from connectors.store import Store, StoreError, unpack
from connectors.validate import Reject
from pipeline.engine import Engine
from pipeline.events import Clicks, DriftAlert
from pipeline.prior import Prior
from pipeline.river_drift import RiverDrift
from pipeline.rollups import Rollup
from pipeline.settings import Settings
from pipeline.trends import Trends, TrendsState
from pipeline.windows import Window

if TYPE_CHECKING:
    from connectors.learning import LearningStage, Progress

COMMIT_EVERY = 8
"""Batches between two commits."""

_FORGOTTEN = 4096
"""Users looked at between two writes."""

LOGS = ("alerts.jsonl", "rejects.jsonl", "rollups.jsonl", "forecasts.jsonl", "metrics.jsonl")


class Committed(msgspec.Struct, kw_only=True):
    """How far a replay has durably come, beside the engine's own progress."""

    batches: int = 0
    lengths: dict[str, int] = {}
    trends: TrendsState = msgspec.field(default_factory=TrendsState)
    learner: str = ""
    drained: bool = False


class _RejectLine(msgspec.Struct, frozen=True, kw_only=True):
    """A bad record as rejects.jsonl has it."""

    source: str
    line: int
    reason: str
    record: str

    @classmethod
    def of(cls, reject: Reject) -> Self:
        """Put a reject into text; bytes that are none are shown as what they are."""
        return cls(
            source=reject.source,
            line=reject.position,
            reason=reject.reason,
            record=(reject.record or b"").decode(errors="backslashreplace"),
        )


class Backtest:
    """One replay into one directory, begun or resumed.

    A batch counts as replayed once it is committed. A run that was cut off is handed the same
    batches again: the interest stage passes over those committed, the learning stage over the
    windows learnt, and what is written in the end is the same.
    """

    def __init__(
        self,
        directory: Path,
        settings: Settings,
        prior: Prior,
        *,
        learning: bool,
        progress: Progress,
        river: RiverDrift | None = None,
    ) -> None:
        """Open or make the directory's stores and files.

        With `river` its alerts stand in place of the engine's.

        Raises:
            StoreError: The state store cannot be opened.
            OSError: The directory cannot be written.
        """
        self.store = Store(directory / "state")
        self._committed = unpack(self.store.get("committed"), Committed, str(directory))
        self._logs = {
            name: JsonLines(directory / name, self._committed.lengths.get(name, 0)) for name in LOGS
        }
        self.engine = Engine(
            settings,
            load=self.store.load,
            name=self.store.name,
            prior=prior,
            progress=self.store.progress(),
        )
        self._river = river
        self._history = InterestHistory(directory, self._committed.batches, self.engine.names)
        self._trends = Trends(settings, self._committed.trends, prior.version)
        self.learning: LearningStage | None = None
        if learning:
            from connectors.learning import LearningStage  # noqa: PLC0415  torch takes seconds

            self.learning = LearningStage(settings, directory, self._committed.learner, progress)
        self.events = 0
        self.seconds = 0.0
        """Events and seconds of the interest stage in this process, decoding included."""

    def run(self, batches: Iterable[tuple[Clicks, list[Reject]]]) -> None:
        """Replay all batches, then close what is still open: the input has an end."""
        done = self._committed.batches
        count = 0
        for count, (clicks, rejects) in enumerate(self._timed(batches), start=1):
            if count > done:
                self._interest(clicks, rejects)
            elif self._river:
                self._river.process(clicks)  # it is held in memory alone
            learned = self._learn(self.learning.windows.add(clicks)) if self.learning else False
            if count > done and (learned or count % COMMIT_EVERY == 0):
                self._commit(count)
        if not self._committed.drained:
            self._raise([], self.engine.drain())
            self._committed.drained = True
            self._commit(count)
        self._forget()
        if self.learning and self._learn(self.learning.windows.drain()):
            self._commit(count)

    def _timed(
        self, batches: Iterable[tuple[Clicks, list[Reject]]]
    ) -> Iterator[tuple[Clicks, list[Reject]]]:
        start = perf_counter()
        for batch in batches:
            self.seconds += perf_counter() - start
            yield batch
            start = perf_counter()

    def _interest(self, clicks: Clicks, rejects: list[Reject]) -> None:
        start = perf_counter()
        effects = self.engine.process(clicks)
        self._history.add(effects.profiles)
        alerts = self._river.process(clicks) if self._river else effects.alerts
        self._raise(alerts, effects.rollups)
        for reject in rejects:
            self._logs["rejects.jsonl"].write(_RejectLine.of(reject))
        self.events += len(clicks)
        self.seconds += perf_counter() - start

    def _raise(self, alerts: list[DriftAlert], rollups: list[Rollup]) -> None:
        """Write user and category alerts in the order of the events that tipped them."""
        raised = list(alerts)
        for rollup in rollups:
            self._logs["rollups.jsonl"].write(rollup)
            outlook = self._trends.add(rollup)
            raised += outlook.alerts
            for forecast in outlook.forecasts:
                self._logs["forecasts.jsonl"].write(forecast)
        for alert in sorted(raised, key=lambda alert: alert.source.position):
            self._logs["alerts.jsonl"].write(alert)

    def _forget(self) -> None:
        """Delete the users who have been silent for too long."""
        user = ""
        while self.engine.forgetful and (stored := self.store.after(user, _FORGOTTEN)):
            user = stored[-1][0]
            self.store.commit(self.engine.changes(stored), {})

    def _learn(self, windows: list[Window]) -> bool:
        """Learn from closed windows; say whether anything was learnt."""
        learned = False
        for window in windows:
            lesson = self.learning.learn(window) if self.learning else None
            if lesson:
                learned = True
                self._logs["metrics.jsonl"].write(lesson.report)
                for alert in lesson.alerts:
                    self._logs["alerts.jsonl"].write(alert)
        return learned

    def _commit(self, batches: int) -> None:
        """Make everything so far durable.

        1. The files are flushed: an alert that a state knows of is on disk before that state. So is
           the interest history.
        2. States, progress and the lengths of the files go to the store in one atomic write.
        3. Only then is the learner's former state deleted.
        """
        start = perf_counter()
        self._committed.lengths = {name: log.flush() for name, log in self._logs.items()}
        self._history.flush(batches)
        self._committed.batches = batches
        self._committed.trends = self._trends.state
        if self.learning:
            self._committed.learner = self.learning.state
        committed = msgspec.msgpack.encode(self._committed)
        self.store.commit(self.engine.changes(), {"committed": committed})
        if self.learning:
            self.learning.forget_former()
        self.seconds += perf_counter() - start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A full disk fails here once more, and what failed first is what has to be told.
        with suppress(OSError, StoreError) if error else nullcontext():
            self.store.close()
        for log in self._logs.values():
            with suppress(OSError) if error else nullcontext():
                log.close()
