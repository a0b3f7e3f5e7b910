"""`driftline checkpoint`: what checkpoints are, whether they are sound, and going back to one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from connectors.run_error import RunError
from learners.checkpoint import CheckpointError, champion, load, roll_back
from learners.signing import trusted, write_pair
from pipeline.settings import Settings

_out = Console(markup=False, emoji=False)
_err = Console(stderr=True, emoji=False)


def _checkpoint_homes(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise RunError(f"{directory} does not exist: name a replay's directory with --out")
    return sorted(home for home in directory.iterdir() if home.is_dir() and home.name[0] != ".")


def show_checkpoints(directory: Path) -> None:
    """List checkpoints in order of their windows."""
    named = champion(directory)
    table = Table(box=None)
    for column in ("checkpoint", "window", "items", "decision", "reason"):
        table.add_column(column, overflow="fold")  # an id cut short is of no use
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


def check_checkpoints(directory: Path, settings: Settings) -> bool:
    """Verify every checkpoint; say which are damaged and how, or that the champion is missing."""
    sound = True
    keys, homes = trusted(settings.signing.trusted), _checkpoint_homes(directory)
    named = champion(directory)
    if named is not None and named not in [home.name for home in homes]:
        sound = False
        told = f"{directory}: champion {named} is not there: fetch it again"
        _err.print(f"[red]refused[/] {escape(told)}", highlight=False, soft_wrap=True)
    for home in homes:
        try:
            signed = load(home, keys).manifest.key
        except CheckpointError as error:
            sound = False
            _err.print(f"[red]refused[/] {escape(str(error))}", highlight=False)
        else:
            note = f", signed by {signed}" if signed else ""
            _out.print(
                f"[green]sound[/]   {escape(home.name + note)}",
                markup=True,
                highlight=False,
                soft_wrap=True,
            )
    return sound


def roll_back_champion(
    directory: Path, settings: Settings, tell: Callable[[str, str], None] | None = None
) -> None:
    """Put the champion's parent in its place, and say so; see `checkpoint.roll_back`."""
    if not directory.is_dir():
        raise RunError(f"{directory} does not exist: name a replay's directory with --out")
    former, now = roll_back(directory, trusted(settings.signing.trusted), tell)
    _out.print(
        f"{now} is champion again in place of {former}; the learner goes on from it with its next "
        "window.",
        highlight=False,
        soft_wrap=True,
    )


def make_keys(path: Path) -> None:
    """Write a key pair, and say how it is used."""
    public = write_pair(path)
    _out.print(
        f'Wrote {path} and {public}. In the settings of the learner: signing.key = "{path}"; '
        f'of whoever loads: signing.trusted = ["{public}"].',
        highlight=False,
        soft_wrap=True,
    )


def _day(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d")
