"""`driftline checkpoint`: what a replay's checkpoints are, and whether they are sound."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from connectors.run_error import RunError
from learners.checkpoint import CheckpointError, load

_out = Console()
_err = Console(stderr=True)


def _checkpoint_homes(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise RunError(f"{directory} does not exist: name a replay's directory with --out")
    return sorted(home for home in directory.iterdir() if home.is_dir() and home.name[0] != ".")


def show_checkpoints(directory: Path) -> None:
    """List checkpoints in order of their windows."""
    champion = directory / "champion"
    named = champion.read_text() if champion.exists() else ""
    table = Table(box=None)
    for column in ("checkpoint", "window", "items", "decision", "reason"):
        table.add_column(column)
    manifests = [load(home).manifest for home in _checkpoint_homes(directory)]
    for manifest in sorted(manifests, key=lambda manifest: manifest.window_start):
        table.add_row(
            manifest.id + (" (champion)" if manifest.id == named else ""),
            f"{_day(manifest.window_start)} to {_day(manifest.window_end)}",
            f"{manifest.items:,}",
            manifest.decision,
            manifest.reason,
        )
    _out.print(table)


def check_checkpoints(directory: Path) -> bool:
    """Verify every checkpoint; say which are damaged and how."""
    sound = True
    for home in _checkpoint_homes(directory):
        try:
            load(home)
        except CheckpointError as error:
            sound = False
            _err.print(f"[red]damaged[/] {error}", highlight=False)
        else:
            _out.print(f"[green]sound[/]   {home.name}", highlight=False)
    return sound


def _day(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d")
