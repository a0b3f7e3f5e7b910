"""What a replay leaves at its end: every user's profile, and a summary of the whole."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from connectors.log import write_atomically
from connectors.profiles import PROFILES, profile_table, stored_snapshots
from connectors.run_files import read_lines
from connectors.store import Store
from pipeline.engine import Counts
from pipeline.events import CategoryForecast
from pipeline.hindsight import Hindsight, hindsight
from pipeline.rollups import FURTHER, Rollup
from pipeline.symbols import Names

_MOST_CATEGORIES = 200


class CategoryShares(msgspec.Struct, frozen=True):
    """A category's share of the events of each window."""

    category: str
    shares: list[float]


class TrendHistory(msgspec.Struct, frozen=True):
    """The events of each window, and the most frequent categories' shares; ISO 8601 starts."""

    window_starts: list[str]
    totals: list[int]
    categories: list[CategoryShares]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A replay in figures; `first_event` and `last_event` are ISO 8601, "" without events."""

    command: str
    settings: str
    events: int
    applied: int
    late: int
    duplicates: int
    rejected: int
    late_for_windows: int
    users: int
    alerts: dict[str, int]
    first_event: str
    last_event: str
    elapsed_seconds: float
    interest_events_per_second: float
    trends: TrendHistory
    forecasts: list[Hindsight]


def write_profiles(path: Path, store: Store, names: Names) -> int:
    """Write every user's interests at the end to a Parquet file; return how many users."""
    users = 0
    temporary = path.with_name(path.name + ".tmp")
    with pq.ParquetWriter(temporary, PROFILES, compression="zstd") as writer:
        for stored in stored_snapshots(store.states()):
            active = stored.where(stored.taken["events"] > 0)
            users += len(active)
            writer.write_table(profile_table(active, names))
    temporary.replace(path)
    return users


def write_summary(
    directory: Path,
    *,
    command: str,
    settings: str,
    counts: Counts,
    users: int,
    late_for_windows: int,
    period: tuple[int, int] | None,
    elapsed: float,
    speed: float,
) -> Summary:
    """Gather what the files of a replay say, and write summary.json."""
    rejected = _count_lines(directory / "rejects.jsonl")
    rollups = list(read_lines(directory / "rollups.jsonl", Rollup))
    first, last = (iso(time) for time in period) if period else ("", "")
    summary = Summary(
        command=command,
        settings=settings,
        events=counts.applied + counts.late + counts.duplicates + rejected,
        applied=counts.applied,
        late=counts.late,
        duplicates=counts.duplicates,
        rejected=rejected,
        late_for_windows=late_for_windows,
        users=users,
        alerts=_alerts_by_kind(directory / "alerts.jsonl"),
        first_event=first,
        last_event=last,
        elapsed_seconds=round(elapsed, 1),
        interest_events_per_second=round(speed),
        trends=_trends(rollups),
        forecasts=hindsight(read_lines(directory / "forecasts.jsonl", CategoryForecast), rollups),
    )
    write_atomically(directory / "summary.json", msgspec.json.encode(summary))
    return summary


def iso(time: int) -> str:
    """Return milliseconds since the epoch as ISO 8601."""
    return datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="seconds")


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _alerts_by_kind(path: Path) -> dict[str, int]:
    class Kind(msgspec.Struct):
        kind: str

    return dict(sorted(Counter(alert.kind for alert in read_lines(path, Kind)).items()))


def _trends(rollups: list[Rollup]) -> TrendHistory:
    totals = [max(rollup.total, 1) for rollup in rollups]
    overall: Counter[str] = Counter()
    for rollup in rollups:
        overall.update(rollup.counts)
    del overall[FURTHER]
    return TrendHistory(
        window_starts=[iso(rollup.start) for rollup in rollups],
        totals=[rollup.total for rollup in rollups],
        categories=[
            CategoryShares(
                category,
                [
                    round(rollup.counts.get(category, 0) / total, 6)
                    for rollup, total in zip(rollups, totals, strict=True)
                ],
            )
            for category, _ in overall.most_common(_MOST_CATEGORIES)
        ],
    )
