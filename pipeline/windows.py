"""Event-time windows: which clicks belong together, and when no more will come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgspec
import numpy as np

from pipeline.events import Clicks, Column, concatenate
from pipeline.settings import Settings

_LONG_AGO = -(2**62)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A closed window: the clicks with start <= time < end, by time, each user's in log order.

    The order does not depend on how the clicks of different users were interleaved in the log.
    `sources` gives, by log, the position of the newest click in the window.
    """

    start: int
    end: int
    clicks: Clicks
    sources: dict[str, int]


class Mark(msgspec.Struct, frozen=True):
    """A place in a log: the position of the next click, and the newest event time before it."""

    position: int
    newest: int


class WindowsState(msgspec.Struct, frozen=True, kw_only=True):
    """From where the open windows can be filled again: all that a restart needs.

    `closed` is the watermark up to which windows have closed, `logs` where to go on reading.
    """

    closed: int = _LONG_AGO
    logs: dict[str, Mark] = {}


class Windows:
    """Gathers clicks into tumbling windows and hands over those that have closed.

    The watermark of a log is its newest event time less the allowed lateness; the watermark of
    all is that of the log furthest behind, so that how far one log is read ahead of another cuts
    nothing off. A window closes when the watermark of all reaches its end. A click is late, and
    only counted in `late`, when its own log's watermark has reached the end of its window, or the
    window has closed. A log that has been read to its end and is more than the size of a window
    behind the newest event of all does not hold windows up: its later clicks may be late.

    Clicks that were added before, known by their positions, are passed over.
    """

    def __init__(self, settings: Settings, state: WindowsState | None = None) -> None:
        """Start anew, or with `state`, to which every log has to be read again from its mark."""
        state = state or WindowsState()
        self._size = int(settings.windows.size)
        self._lateness = int(settings.windows.lateness)
        self._closed = state.closed
        self._ends = dict(state.logs)
        self._open: dict[int, _Open] = {}
        self.late = 0

    @property
    def state(self) -> WindowsState:
        """The state from which the windows that are open now can be filled again."""
        logs = {
            source: min(
                (w.first[source] for w in self._open.values() if source in w.first),
                key=lambda mark: mark.position,
                default=end,
            )
            for source, end in self._ends.items()
        }
        return WindowsState(closed=self._closed, logs=logs)

    def add(self, clicks: Clicks, read: Mapping[str, bool] = MappingProxyType({})) -> list[Window]:
        """Take a batch of one log; return the windows that it closes, in order of time.

        Args:
            clicks: the batch, which may be empty.
            read: the logs that there are, as far as the caller knows, and whether each has been
                read to its end. Logs that clicks came from need not be named.
        """
        if clicks.source in self._ends:
            known = np.searchsorted(clicks.position, self._ends[clicks.source].position)
            clicks = clicks.take(slice(int(known), None))
        if len(clicks):
            self._take(clicks)
        return self._close(self._watermark(read))

    def drain(self) -> list[Window]:
        """Close every window: the source is bounded and has ended."""
        return self._close(2**62)

    def forget(self, user: str) -> None:
        """Drop a user's clicks from the open windows."""
        for start, window in list(self._open.items()):
            kept = [without(user, batch) for batch in window.batches]
            window.batches[:] = [batch for batch in kept if len(batch)]
            if not window.batches:
                del self._open[start]

    def _take(self, clicks: Clicks) -> None:
        source = clicks.source
        before = self._ends[source].newest if source in self._ends else _LONG_AGO
        newest = np.maximum(np.maximum.accumulate(clicks.time), before)
        self._ends[source] = Mark(int(clicks.position[-1]) + 1, int(newest[-1]))
        starts = clicks.time // self._size * self._size
        ends = starts + self._size
        in_time = (ends + self._lateness > newest) & (ends > self._closed)
        self.late += int((~in_time).sum())
        for start in np.unique(starts[in_time]).tolist():
            rows = np.flatnonzero(in_time & (starts == start))
            at = int(rows[0])
            mark = Mark(int(clicks.position[at]), int(newest[at - 1]) if at else before)
            window = self._open.setdefault(start, _Open([], {}))
            window.batches.append(clicks.take(rows))
            window.first.setdefault(source, mark)

    def _watermark(self, read: Mapping[str, bool]) -> int:
        newest = dict.fromkeys(read, _LONG_AGO)
        newest |= {source: end.newest for source, end in self._ends.items()}
        idle = max(newest.values(), default=_LONG_AGO) - self._size
        held = [time for log, time in newest.items() if time >= idle or not read.get(log)]
        return min(held, default=_LONG_AGO) - self._lateness

    def _close(self, watermark: int) -> list[Window]:
        self._closed = max(self._closed, watermark)
        ends = sorted(start for start in self._open if start + self._size <= self._closed)
        return [self._window(start, self._open.pop(start).batches) for start in ends]

    def _window(self, start: int, batches: list[Clicks]) -> Window:
        sources: dict[str, int] = {}
        for batch in batches:
            newest = int(batch.position[-1])
            sources[batch.source] = max(newest, sources.get(batch.source, newest))
        return Window(
            start=start, end=start + self._size, clicks=_in_order(batches), sources=sources
        )


@dataclass(frozen=True, slots=True)
class _Open:
    """An open window: its clicks, and by log where the first of them stands."""

    batches: list[Clicks]
    first: dict[str, Mark]


def without(user: str, clicks: Clicks) -> Clicks:
    """Return a batch without a user's clicks, nor the user's name."""
    codes = [code for code, name in enumerate(clicks.user.values) if name == user]
    if not codes:
        return clicks
    kept = clicks.take(np.flatnonzero(~np.isin(clicks.user.codes, codes)))
    names = ["" if name == user else name for name in clicks.user.values]
    return replace(kept, user=Column(names, kept.user.codes))


def _in_order(batches: list[Clicks]) -> Clicks:
    """Join batches and sort them by time and user, each user's clicks left in log order."""
    clicks = concatenate(sorted(batches, key=lambda batch: batch.source))
    by_name = sorted(range(len(clicks.user.values)), key=clicks.user.values.__getitem__)
    rank = np.empty(len(by_name), np.int64)
    rank[by_name] = np.arange(len(by_name))
    return clicks.take(np.lexsort((rank[clicks.user.codes], clicks.time)))
