"""What the command line shows: progress, tables, a user's interests, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from connectors.demo import demo_events
from connectors.files import read
from connectors.prior_file import write_prior
from connectors.recommendations import recommend
from connectors.replay import Request, replay
from connectors.run_error import RunError
from connectors.run_files import read_lines, read_table
from connectors.summary import Summary, iso
from pipeline.calibration import calibrate
from pipeline.events import (
    USER_KINDS,
    AlertKind,
    AlertState,
    DriftAlert,
    Interest,
    InterestProfile,
    concatenate,
)
from pipeline.settings import Drift, Settings

out_console = Console(markup=False, emoji=False)
err_console = Console(stderr=True, emoji=False)

_DEMO_HISTORY = "2017-04-01T00:00:00+00:00"
"""The demo's prior is made from what came before."""

_DEMO_USER = "1228"

_ENDLESS = 1e9
"""Events, from which on their number says nothing more."""

_MODELS = ("model", "blend", "knn", "personal", "markov", "popularity")


@contextmanager
def _bar(label: str) -> Iterator[tuple[Progress, TaskID]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err_console) as progress:
        yield progress, progress.add_task(label, total=1.0)


def replay_with_progress(
    request: Request, out: Path, *, command: str, resume: bool, overwrite: bool
) -> Summary:
    """Replay with a progress bar, and end with a short table and the report's path."""
    try:
        with _bar("reading") as (bar, task):

            def show(fraction: float, text: str) -> None:
                bar.update(task, completed=fraction, description=text or None)

            summary = replay(
                request, out, command=command, resume=resume, overwrite=overwrite, progress=show
            )
    except KeyboardInterrupt:
        err_console.print("Interrupted. The same command with --resume goes on from here.")
        raise
    _show_summary(summary, out)
    return summary


def _show_summary(summary: Summary, out: Path) -> None:
    table = Table(title=f"{summary.first_event[:10]} to {summary.last_event[:10]}", box=None)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_row("events", f"{summary.events:,}")
    table.add_row("applied", f"{summary.applied:,}")
    table.add_row("late", f"{summary.late:,}")
    table.add_row("duplicates", f"{summary.duplicates:,}")
    table.add_row("rejected", f"{summary.rejected:,}")
    table.add_row("users", f"{summary.users:,}")
    for kind, count in summary.alerts.items():
        table.add_row(f"alerts: {kind.replace('_', ' ')}", f"{count:,}")
    table.add_row("interest stage", f"{summary.interest_events_per_second:,.0f} events/s")
    out_console.print(table)
    _show_metrics(out / "metrics.jsonl")
    if summary.late:
        out_console.print(
            f"{summary.late:,} events came later than the settings allow (interests.lateness); "
            "--sort replays them in order of time."
        )
    if summary.late_for_windows:
        out_console.print(
            f"{summary.late_for_windows:,} events came when their window had closed "
            "(windows.lateness). A single event of the future closes all before it; source.latest "
            "refuses such."
        )
    if summary.rejected:
        out_console.print(f"{summary.rejected:,} bad records: {out / 'rejects.jsonl'} says why.")
    out_console.print(f"Report: {out / 'report.html'}")


def _show_metrics(path: Path) -> None:
    lines = list(read_lines(path, dict[str, Any]))
    evaluated = [line for line in lines if line["evaluated"]]
    if not evaluated:
        return
    metrics = ("recall@20", "mrr@20", "ndcg@10")
    table = Table(title=f"mean over {len(evaluated)} windows", box=None)
    table.add_column(style="dim")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for model in _MODELS:
        rows = [line if model == "model" else line[model] for line in evaluated]
        table.add_row(model, *(f"{np.mean([row[m] for row in rows]):.4f}" for m in metrics))
    out_console.print(table)
    promoted = sum(line["decision"] == "promoted" for line in lines)
    out_console.print(
        f"{promoted} of {len(lines)} checkpoints promoted; "
        f"training took {sum(line['training_seconds'] for line in lines):.0f} s."
    )


def calibrate_files(files: list[Path], settings: Settings, to: Path, until: int | None) -> None:
    """Make a prior from files, with a progress bar."""
    with _bar("reading history") as (bar, task):
        history = []
        reading = read(files, settings.source)
        for clicks, _ in reading:
            bar.update(task, completed=reading.fraction)
            rows = np.flatnonzero(clicks.time < until) if until is not None else slice(None)
            history.append(clicks.take(rows))
        bar.update(task, description="calibrating")
        prior = calibrate(concatenate(history), settings)
    write_prior(to, prior)
    out_console.print(f"Wrote {to}: {len(prior.shares):,} categories, version {prior.version}.")
    if prior.measured:
        delay = prior.measured.delay
        out_console.print(
            "On users it was not made from, visits shuffled: "
            f"{prior.measured.false_alarms_per_1000} false alarms per 1,000 events, "
            f"{100 * prior.measured.recall:.0f} % of the changes found"
            + (f", half of them within {delay:.0f} events." if delay is not None else "."),
            highlight=False,
        )
    out_console.print(f'Use it with [drift] prior = "{to}" in the settings file.', highlight=False)


def run_demo(out: Path) -> None:
    """Replay Complete Journey, and look at a user, as commands that anyone could type."""
    out.parent.mkdir(parents=True, exist_ok=True)
    events, prior = out.with_name("events.parquet"), out.with_name("prior.json")
    if not events.exists():
        count = demo_events(events)
        out_console.print(f"Wrote {events}: {count:,} purchases of 84.51°'s Complete Journey.")
    until = datetime.fromisoformat(_DEMO_HISTORY)
    _say(f"driftline calibrate {events} --until {until:%Y-%m-%d} --to {prior}")
    calibrate_files([events], Settings(), prior, int(until.timestamp() * 1000))
    command = f"driftline replay {events} --prior {prior} --out {out} --overwrite"
    _say(command)
    request = Request(inputs=[str(events)], settings=Settings(drift=Drift(prior=str(prior))))
    replay_with_progress(request, out, command=command, resume=False, overwrite=True)
    _say(f"driftline inspect {_DEMO_USER} --out {out}")
    show_user(_DEMO_USER, out)
    _say(f"driftline recommend --user {_DEMO_USER} --top 5 --out {out}")
    recommend([], out, Settings(), user=_DEMO_USER, checkpoint=None, count=5, as_json=False)
    out_console.print(f"Now open {out / 'report.html'}")


def _say(command: str) -> None:
    err_console.print(f"[bold]$ {escape(command)}[/]", highlight=False)


def show_user(user: str, out: Path) -> bool:
    """Show one user of a replay; False where the replay has not seen that user."""
    profile = _profile(user, out)
    if profile is None:
        err_console.print(f"{out} knows no user {user!r}", markup=False)
        return False
    out_console.print(f"{user}: {profile.events:,} events, the newest {iso(profile.time)}")
    table = Table(box=None)
    for column in ("short term", "long term"):
        table.add_column(column)
        table.add_column(justify="right")
    for i in range(max(len(profile.short_term), len(profile.long_term))):
        table.add_row(*_cell(profile.short_term, i), *_cell(profile.long_term, i))
    out_console.print(table)
    out_console.print(f"recent items: {', '.join(profile.recent_items)}")
    history = [
        alert for alert in _alerts(out) if alert.kind in USER_KINDS and alert.subject == user
    ]
    out_console.print(f"drift history: {len(history)} alerts")
    for alert in history:
        out_console.print(f"  {one_line(alert)}")
    return True


def one_line(alert: DriftAlert) -> str:
    """Return an alert as a person reads it, in one line."""
    what = alert.kind.replace("_", " ")
    if alert.state in {AlertState.UPDATED, AlertState.RESOLVED}:
        what += f" {alert.state}"
    parts = [f"since {iso(alert.since)[:10]}", *_certainty(alert)]
    if alert.kind in {AlertKind.POPULATION_SHIFT, AlertKind.INPUT_DRIFT}:
        parts.insert(0, f"{_reached(alert)}{_changes(alert)}")
    elif alert.after:
        parts.insert(0, f"from {_named(alert.before)} to {_named(alert.after)}")
    if alert.evidence:
        parts.append(f"tipped by {', '.join(told.item_id for told in alert.evidence[-3:])}")
    if alert.clears_after:
        parts.append(f"cleared by about {alert.clears_after} like before")
    return f"{iso(alert.time)[:16]} {what} {alert.subject}: {', '.join(parts)}"


def _certainty(alert: DriftAlert) -> list[str]:
    if not alert.by_chance:
        return [f"score {alert.score:.1f} against {alert.threshold:.1f}"]
    return [
        f"{100 * (alert.strength or 0):.0f} % of the interests moved",
        f"by chance once in {_rounded(alert.by_chance)} events",
    ]


def _rounded(number: float) -> str:
    """Return a number to two digits, as a person says it.

    >>> _rounded(123456)
    '120,000'
    """
    return f"{float(f'{number:.2g}'):,.0f}" if number < _ENDLESS else f"over {_ENDLESS:,.0f}"


def _reached(alert: DriftAlert) -> str:
    if alert.reach is msgspec.UNSET:
        return ""
    return f"about {alert.reach.users:,} of {alert.reach.active:,} moved, "


def _changes(alert: DriftAlert) -> str:
    pairs = zip(alert.before, alert.after, strict=False)
    named = [f"{old.category} {_percent(old)} -> {_percent(new)}" for old, new in pairs]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""  # noqa: PLR2004  as in _named
    return ", ".join(named[:3]) + more


def _percent(interest: Interest) -> str:
    return f"{100 * interest.weight:.1f} %"


def _named(interests: list[Interest]) -> str:
    return ", ".join(f"{i.category} {100 * i.weight:.1f} %" for i in interests[:3]) or "nothing"


def _cell(interests: list[Interest], row: int) -> tuple[str, str]:
    if row >= len(interests):
        return "", ""
    return interests[row].category, f"{100 * interests[row].weight:.1f} %"


def _profile(user: str, out: Path) -> InterestProfile | None:
    path = out / "profiles.parquet"
    if not path.exists():
        raise RunError(f"{out} holds no finished replay: name its directory with --out")
    rows = read_table(path, filters=[("user_id", "==", user)]).to_pylist()
    if not rows:
        return None
    row = rows[0]
    return InterestProfile(
        user_id=user,
        time=int(row["last_event"].timestamp() * 1000),
        events=row["events"],
        short_term=msgspec.convert(row["short_term"], list[Interest]),
        long_term=msgspec.convert(row["long_term"], list[Interest]),
        recent_items=row["recent_items"],
    )


def _alerts(out: Path) -> Iterator[DriftAlert]:
    path = out / "alerts.jsonl"
    if not path.exists():
        raise RunError(f"{path} is gone: replay anew (--overwrite)")
    return read_lines(path, DriftAlert)
