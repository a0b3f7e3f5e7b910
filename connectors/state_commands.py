# ruff: noqa: PLC0415  (heavy imports stand inside the commands, so that --help answers at once)
"""`driftline state check`, `compact`, `export` and `size`: a worker's or a replay's disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Directory = Annotated[
    Path,
    typer.Argument(help="A worker's data, a replay's output, or one store; nobody may be at work."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    state = typer.Typer(no_args_is_help=True, help="Look after the states on a disk.")
    state.command(epilog="Example:\n\n  driftline state check /var/lib/driftline")(check)
    state.command()(compact)
    state.command(epilog="Example:\n\n  driftline state export data --to users.jsonl")(export)
    state.command()(size)
    app.add_typer(state, name="state")


def check(directory: Directory) -> None:
    """Read everything, and say what is damaged; the exit code is then 7."""
    from connectors.state_files import check_store, found

    damaged = False
    for path in found(directory):
        told, sound = check_store(path)
        sys.stdout.write(f"{path}: {told}\n")
        damaged |= not sound
    if damaged:
        sys.stdout.write("Start the worker: it restores a damaged store from the changelog.\n")
        raise typer.Exit(7)


def compact(directory: Directory) -> None:
    """Merge the files, so that what was overwritten takes no more room."""
    from connectors.state_files import compact_store, found

    for path in found(directory):
        before, after = compact_store(path)
        sys.stdout.write(f"{path}: {before:,} bytes before, {after:,} after\n")


def export(
    directory: Directory,
    to: Annotated[Path, typer.Option("--to", help="The file to write: a user a line, JSON.")],
) -> None:
    """Write every user's interests, as a profile has them."""
    from connectors.state_files import export_stores, found

    users = export_stores(found(directory), to)
    sys.stdout.write(f"{users:,} users in {to}\n")


def size(directory: Directory) -> None:
    """Say how many users there are, and how much room they take."""
    from connectors.state_files import found, size_of

    for path in found(directory):
        sys.stdout.write(f"{path}: {size_of(path)}\n")
