# ruff: noqa: PLC0415, FBT002, PLR0917  (heavy imports stand inside the commands, so that --help
#   answers at once; a command's options are its arguments)
"""`driftline worker`, `topics`, `produce` and `alerts`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from connectors.kafka.live_settings import Worker
    from connectors.kafka.settings import Kafka
    from pipeline.events import Clicks
    from pipeline.settings import Settings

SettingsOption = Annotated[
    Path | None, typer.Option("--settings", envvar="DRIFTLINE_SETTINGS", help="A TOML file.")
]

_DIFFERENT = 8
"""The exit code of topics that are not what is needed: see docs/reference.md."""


def register(app: typer.Typer) -> None:
    """Add the commands of the live driver."""
    topics = typer.Typer(no_args_is_help=True, help="Make and check the topics on the bus.")
    topics.command("create")(create_topics)
    topics.command("check")(check_topics)
    app.add_typer(topics, name="topics")
    app.command(
        epilog="Examples:\n\n"
        "  driftline worker --settings driftline.toml\n\n"
        "  DRIFTLINE_BOOTSTRAP=kafka:9092 driftline worker --data /var/lib/driftline"
    )(worker)
    app.command(
        epilog="Examples:\n\n"
        "  driftline produce clicks.csv.gz --speed 60x\n\n"
        "  driftline produce log.jsonl --map user=visitor --map timestamp=at"
    )(produce)
    app.command(
        epilog="Examples:\n\n"
        "  driftline alerts --follow\n\n"
        "  driftline alerts --kind user_jump --json"
    )(alerts)


def worker(
    settings: SettingsOption = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Of the states; else worker.data.")
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(
            envvar="DRIFTLINE_INSTANCE",
            help="A name of its own, such as the pod's; else worker.instance.",
        ),
    ] = None,
    standby: Annotated[
        bool | None,
        typer.Option(
            "--standby/--no-standby",
            help="Keep copies of the other workers' partitions; else worker.standby.",
        ),
    ] = None,
) -> None:
    """Follow the click topic: interest states, alerts, profiles."""
    import faust
    from msgspec.structs import replace

    from connectors.kafka.live_app import live_app
    from connectors.kafka.metrics import require_free
    from connectors.kafka.settings import BusError
    from connectors.kafka.topics import check

    core, kafka, mine = _load(settings)
    if data is not None:
        mine = replace(mine, data=str(data))
    if instance is not None:
        mine = replace(mine, instance=instance)
    if standby is not None:
        mine = replace(mine, standby=standby)
    require_free(mine.metrics_port)
    differences = check(kafka)
    for difference in differences:
        _say(f"warning: {difference}")
    if any("is not there" in difference for difference in differences):
        raise BusError("topics are missing: make them with `driftline topics create`")
    app = live_app(core, kafka, mine)
    app.on_worker_init.send()
    faust.Worker(app, loglevel="INFO", redirect_stdouts=False).execute_from_commandline()


def create_topics(settings: SettingsOption = None) -> None:
    """Make the topics that are not there; the others are left alone."""
    from connectors.kafka.topics import create

    made = create(_load(settings)[1])
    for name in made:
        sys.stdout.write(f"made {name}\n")
    if not made:
        _say("All topics are there.")


def check_topics(settings: SettingsOption = None) -> None:
    """Compare the topics with what they should be; the exit code is 8 where something differs."""
    from connectors.kafka.topics import check

    differences = check(_load(settings)[1])
    for difference in differences:
        sys.stdout.write(f"{difference}\n")
    if differences:
        raise typer.Exit(_DIFFERENT)
    _say("All topics are as they should be.")


def produce(
    files: Annotated[list[Path], typer.Argument(help="CSV, CSV.gz, JSONL, JSONL.gz or Parquet.")],
    speed: Annotated[
        str, typer.Option(help="60x plays an hour in a minute; max: as fast as it goes.")
    ] = "max",
    mapping: Annotated[
        list[str],
        typer.Option("--map", metavar="FIELD=COLUMN", help="Where a field stands, such as user."),
    ] = [],  # noqa: B006  typer copies it
    settings: SettingsOption = None,
) -> None:
    """Play files of events onto the click topic, as if they happened now."""
    from msgspec.structs import replace
    from rich.progress import BarColumn, Progress, TextColumn

    from connectors.files import read
    from connectors.kafka.produce import produce, timed_records
    from connectors.summary import iso

    core, kafka, _ = _load(settings)
    source = replace(core.source, map=core.source.map | dict(map(_pair, mapping)))
    reading = read(files, source)
    rejected = 0

    def batches() -> Iterator[Clicks]:
        nonlocal rejected
        for clicks, rejects in reading:
            rejected += len(rejects)
            yield clicks

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=_console()) as bar:
        task = bar.add_task("producing", total=1.0, told="")

        def show(events: int, time: int) -> None:
            told = f"{events:,} events, {iso(time)[:16]}" if events else ""
            bar.update(task, completed=reading.fraction, told=told)

        sent = produce(kafka, timed_records(batches()), speed=_speed(speed), progress=show)
    _say(f"Sent {sent:,} events to {kafka.received}.")
    if rejected:
        _say(f"{rejected:,} bad records were left out; `driftline replay` says what is wrong.")


def alerts(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    kind: Annotated[
        str | None, typer.Option(help="Only these, such as user_jump or category_rising.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only those about this user.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON each.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Users' alerts that a population alert stands for, too.")
    ] = False,
    settings: SettingsOption = None,
) -> None:
    """Show the alerts on the bus, each one once."""
    from connectors.kafka.alerts import bus_alerts, population_shifts
    from connectors.terminal import one_line
    from connectors.wire import encode_alert
    from pipeline.events import USER_KINDS, AlertKind
    from pipeline.population import belongs
    from pipeline.settings import SettingsError

    if kind is not None and kind not in set(AlertKind):
        raise SettingsError(f"--kind {kind}: it is one of {', '.join(AlertKind)}")
    kafka, told_for = _load(settings)[1], 0
    asked = everything or as_json or kind is not None or user is not None
    shifts = [] if asked else population_shifts(kafka)
    try:
        for alert in bus_alerts(kafka, follow=follow):
            of_user = alert.kind in USER_KINDS
            if any(belongs(alert, shift) for shift in shifts):
                told_for += 1
            elif kind in {None, alert.kind} and (
                user is None or (of_user and alert.subject == user)
            ):
                text = encode_alert(alert).decode() if as_json else one_line(alert)
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit from None
    if told_for:
        _say(f"{told_for:,} users' alerts belong to a population alert: --all shows them, too.")


def _load(path: Path | None) -> tuple[Settings, Kafka, Worker]:
    from connectors.kafka.live_settings import load_live

    return load_live(path)


def _speed(text: str) -> float | None:
    from pipeline.settings import SettingsError

    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise SettingsError(f"--speed takes a factor, such as 60x, or max, not {text!r}")
    return speed


def _pair(text: str) -> tuple[str, str]:
    from pipeline.settings import SettingsError

    name, sign, column = text.partition("=")
    if not (name and sign and column):
        raise SettingsError(f"--map takes FIELD=COLUMN, such as user=customer_id, not {text!r}")
    return name, column


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _say(text: str) -> None:
    _console().print(text, markup=False, highlight=False, soft_wrap=True)
