"""Counts of a window from all partitions, put together in the order of windows."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from pipeline.rollups import Rollup, merged

PATIENCE = 2
"""Windows that another partition must be ahead before a silent one is passed over."""


class MergeState(msgspec.Struct, kw_only=True):
    """What was reported, and what waits for other partitions."""

    newest: dict[str, int] = {}
    """The start of the newest window that a source has reported."""
    waiting: dict[int, list[Rollup]] = {}
    """Rollups by the start of their window."""
    closed: int = -(2**62)
    """The start of the newest window handed over."""
    late: int = 0
    """Events whose window had been handed over when they were reported."""


class RollupMerge:
    """Adds up the rollups of all sources.

    A source reports its windows in order of time, and none for a window without events: once it
    has reported a later window, it has nothing more to say of an earlier one. Event time alone
    decides, so that the same rollups give the same sums.
    """

    def __init__(self, state: MergeState | None = None) -> None:
        self.state = state or MergeState()

    def add(self, rollup: Rollup) -> None:
        """Take a rollup; one that was reported before changes nothing."""
        state = self.state
        if rollup.start <= state.newest.get(rollup.source, -(2**62)):
            return
        state.newest[rollup.source] = rollup.start
        if rollup.start <= state.closed:
            state.late += sum(rollup.counts.values())
        else:
            state.waiting.setdefault(rollup.start, []).append(rollup)

    def overdue(self) -> bool:
        """Tell whether a window waits although some source is far ahead of it."""
        return any(self._is_overdue(start) for start in self.state.waiting)

    def closed(self, sources: Collection[str], silent: Collection[str] = ()) -> Iterator[Rollup]:
        """Hand over the windows that are complete, in order of time.

        Args:
            sources: All that may report.
            silent: Those of them that have nothing more to say for now. An overdue window does
                not wait for them.
        """
        for start in sorted(self.state.waiting):
            lacking = {s for s in sources if self.state.newest.get(s, start - 1) < start}
            if lacking and not (self._is_overdue(start) and lacking.issubset(silent)):
                return
            self.state.closed = start
            yield merged(self.state.waiting.pop(start))

    def _is_overdue(self, start: int) -> bool:
        size = self.state.waiting[start][0].end - start
        return max(self.state.newest.values()) > start + PATIENCE * size
