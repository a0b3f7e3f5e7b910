# ruff: noqa: PLC0415  (heavy imports stand inside the commands, so that --help answers at once)
"""`driftline learner`, `driftline checkpoint pull` and `driftline checkpoint rollback`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

SettingsOption = Annotated[
    Path | None, typer.Option("--settings", envvar="DRIFTLINE_SETTINGS", help="A TOML file.")
]


def register(app: typer.Typer) -> None:
    """Add the learner's command."""
    app.command(
        epilog="Examples:\n\n"
        "  driftline learner --settings driftline.toml\n\n"
        "  driftline learner --weights s3://models/shop --metrics-port 9102"
    )(learner)


def register_checkpoint(app: typer.Typer) -> None:
    """Add the commands that belong below `driftline checkpoint`."""
    app.command(
        epilog="Examples:\n\n"
        "  driftline checkpoint pull --to models/checkpoints\n\n"
        "  driftline checkpoint pull --to models/checkpoints --id 3f9c2ab1d0e4f567"
    )(pull)
    app.command(
        epilog="Examples:\n\n"
        "  driftline checkpoint rollback --out out\n\n"
        "  driftline checkpoint rollback --live --settings driftline.toml"
    )(rollback)


def learner(
    settings: SettingsOption = None,
    directory: Annotated[
        Path | None,
        typer.Option(help="Of the learner's state; else `learner` in worker.data."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Where weights go, such as s3://models; else over the bus.")
    ] = "",
    waiting: Annotated[
        int, typer.Option(min=1, help="Closed windows that may wait for training.")
    ] = 4,
    metrics_port: Annotated[
        int, typer.Option(help="Of /metrics, /healthz, /readyz, on loopback only; 0: nowhere.")
    ] = 0,
) -> None:
    """Learn from the click topic, window by window, and publish checkpoints."""
    from connectors.kafka.live_settings import load_live
    from connectors.kafka.metrics import require_free
    from connectors.kafka.trainer import run_learner

    require_free(metrics_port)
    core, kafka, worker = load_live(settings)
    home = directory or Path(worker.data) / "learner"
    run_learner(
        core, kafka, worker, home, weights=weights, waiting=waiting, metrics_port=metrics_port
    )


def pull(
    to: Annotated[Path, typer.Option("--to", help="A directory for checkpoints.")],
    number: Annotated[
        str | None, typer.Option("--id", help="Which checkpoint; else the champion.")
    ] = None,
    settings: SettingsOption = None,
) -> None:
    """Fetch a checkpoint from the bus, every hash and its signature checked."""
    import asyncio

    from rich.console import Console

    from connectors.kafka import checkpoints
    from connectors.kafka.live_settings import load_live
    from learners.signing import trusted

    core, kafka, _ = load_live(settings)
    keys = trusted(core.signing.trusted)
    home, champion = asyncio.run(checkpoints.pull(kafka, to, number, keys))
    note = ", the champion" if champion else ""
    Console(markup=False).print(f"Wrote {home}{note}.", highlight=False, soft_wrap=True)


def rollback(
    out: Annotated[Path, typer.Option("--out", "-o", help="The replay's directory.")] = Path("out"),
    settings: SettingsOption = None,
    live: Annotated[  # noqa: FBT002  a flag of the command line
        bool, typer.Option("--live", help="Of the live learner; the topic is told.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option(help="With --live: of the learner's state; else `learner` in worker.data."),
    ] = None,
) -> None:
    """Make the former champion the champion again; the learner goes on from it."""
    from connectors.checkpoints import roll_back_champion
    from connectors.kafka.checkpoints import tell_rollback
    from connectors.kafka.live_settings import load_live

    core, kafka, worker = load_live(settings)
    if live:
        home = directory or Path(worker.data) / "learner"
        roll_back_champion(home / "checkpoints", core, partial(tell_rollback, kafka))
    else:
        roll_back_champion(out / "checkpoints", core)
