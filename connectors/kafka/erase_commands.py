# ruff: noqa: PLC0415, FBT002, PLR0917  (heavy imports stand inside the commands, so that --help answers at
#   once; a command's options are its arguments)
"""`driftline erase`: a user's state, profile, windows and exemplars, live or of a replay."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from connectors.kafka.erasures import Erasures, Request
    from connectors.kafka.settings import Kafka

REMAINS = 9
"""The exit code where something is left that should be gone: see docs/reference.md."""
_POLL_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples:\n\n"
        "  driftline erase 1228 --settings driftline.toml\n\n"
        "  driftline erase 1228 --verify\n\n"
        "  driftline erase 1228 --out out/demo"
    )(erase)


def erase(
    user: str,
    verify: Annotated[
        bool, typer.Option("--verify", help="Erase nothing: look at what is left, everywhere.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="From a replay's directory, not the bus.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", envvar="DRIFTLINE_SETTINGS", help="A TOML file.")
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(help="Of the learner's state; else `learner` in worker.data."),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for workers to take it on.")
    ] = 30.0,
) -> None:
    """Erase a user: state, profile, windows, exemplars; say which checkpoints have seen them."""
    from connectors.kafka.live_settings import load_live

    _, kafka, worker = load_live(settings)
    if out is not None:
        from connectors.replay_erasure import erase_replay, replay_traces

        if not verify:
            for checkpoint in erase_replay(out, user):
                _say(f"Checkpoint {checkpoint} was trained on this user's clicks, among others.")
        _finish([(where, count, True, "") for where, count in replay_traces(out, user)])
    elif verify:
        data = Path(worker.data)
        _verify(kafka, user, data, directory or data / "learner")
    else:
        _ask(kafka, user, wait)


def _ask(kafka: Kafka, user: str, wait: float) -> None:
    from connectors.kafka.erasures import ask

    request = asyncio.run(ask(kafka, user))
    lacking, erasures = asyncio.run(_answered(kafka, request, wait))
    if lacking:
        _say(
            f"Asked for. {', '.join(lacking)} have yet to take it on: they do once a worker has "
            "them, however often it is restarted. --verify tells."
        )
    else:
        _say("State and profile are erased.")
    _tell_learner(erasures, request)


def _tell_learner(erasures: Erasures, request: Request) -> None:
    from connectors.kafka.erasures import LEARNER

    receipt = erasures.receipts.get((request.user, LEARNER))
    if receipt is None or receipt.asked < request.asked:
        _say("The learner has yet to take it on: it does between two windows.")
        return
    seen = ", ".join(receipt.checkpoints) or "none"
    _say(f"The learner has erased the user. Checkpoints trained since it met them: {seen}.")


async def _answered(kafka: Kafka, request: Request, wait: float) -> tuple[list[str], Erasures]:
    """Wait for receipts of all partitions; return which are lacking, and what the topic says."""
    from connectors.kafka.erasures import Erasures

    erasures, until = Erasures(kafka), time.monotonic() + wait
    try:
        while True:
            await erasures.refresh()
            lacking = erasures.missing(request)
            if not lacking or time.monotonic() > until:
                return lacking, erasures
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        await erasures.close()


def _verify(kafka: Kafka, user: str, data: Path, learner: Path) -> None:
    from connectors.kafka.erase_check import traces

    erasures = asyncio.run(_read(kafka))
    request = erasures.request(user)
    rows = [
        (trace.where, trace.count, trace.ours, trace.note)
        for trace in traces(kafka, user, data=data, learner=learner)
    ]
    if request is None:
        _say(f"Nobody has asked for {user} to be erased: `driftline erase {user}` does.")
    else:
        rows += [
            (f"{name} has not answered yet", 1, True, "is a worker running?")
            for name in erasures.missing(request)
        ]
        _tell_learner(erasures, request)
    _finish(rows)


async def _read(kafka: Kafka) -> Erasures:
    from connectors.kafka.erasures import Erasures

    erasures = Erasures(kafka)
    try:
        await erasures.refresh()
    finally:
        await erasures.close()
    return erasures


def _finish(rows: list[tuple[str, int, bool, str]]) -> None:
    """Show where something was looked for; the exit code tells whether any of it is ours."""
    for where, count, ours, note in rows:
        mark = "clean" if not count else "REMAINS" if ours else "stays"
        told = f"{count:,} {note}" if note else f"{count:,}" if count else ""
        sys.stdout.write(f"{mark:8} {where}  {told}".rstrip() + "\n")
    if any(count and ours for _, count, ours, _ in rows):
        raise typer.Exit(REMAINS)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
