"""`driftline`: the command line.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace as replace_fields
from rich.console import Console
from rich.markup import escape

from connectors import state_commands
from connectors.kafka import commands, erase_commands, learner_commands
from connectors.kafka.live_settings import load_live
from pipeline.settings import Duration, PositiveDuration, Settings, SettingsError


class Exit(IntEnum):
    """Exit codes: documented in docs/reference.md."""

    OK = 0
    BUG = 1
    USAGE = 2
    INPUT = 3
    OUTPUT = 4
    SETTINGS = 5
    NOT_FOUND = 6
    CORRUPT = 7
    BUS = 8
    INTERRUPTED = 130


_CODES = {
    "FileError": Exit.INPUT,
    "CalibrationError": Exit.INPUT,
    "RunError": Exit.OUTPUT,
    "StoreError": Exit.OUTPUT,
    "OSError": Exit.OUTPUT,
    "SettingsError": Exit.SETTINGS,
    "BusError": Exit.BUS,
    "CheckpointError": Exit.CORRUPT,
    "StateError": Exit.CORRUPT,
    "SpoolError": Exit.CORRUPT,
    "WireError": Exit.CORRUPT,
    "KeyFileError": Exit.SETTINGS,
}
"""By the names of the errors: importing their classes would take seconds."""

app = typer.Typer(
    name="driftline",
    help="Know when your users' interests move, and keep the model moving with them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
checkpoints = typer.Typer(
    no_args_is_help=True, help="Look at checkpoints, sign them, go back to one."
)
app.add_typer(checkpoints, name="checkpoint")
commands.register(app)
learner_commands.register(app)
erase_commands.register(app)
state_commands.register(app)
learner_commands.register_checkpoint(checkpoints)

OutOption = Annotated[Path, typer.Option("--out", "-o", help="The replay's directory.")]
SettingsOption = Annotated[
    Path | None, typer.Option("--settings", help="A TOML file; `driftline init` writes one.")
]
PriorOption = Annotated[
    Path | None, typer.Option("--prior", help="What `driftline calibrate` wrote.")
]
MapOption = Annotated[
    list[str],
    typer.Option(
        "--map",
        metavar="FIELD=COLUMN",
        help="Where user, item, timestamp, type, category, session, price or event_id stands. "
        "May be given more than once.",
    ),
]


@app.command(
    epilog="Examples:\n\n"
    "  driftline replay clicks.csv.gz\n\n"
    "  driftline replay 2024-*.parquet --out year --window 7d\n\n"
    "  driftline replay kafka://localhost:9092/clicks --from 2024-01-01 --to 2024-04-01\n\n"
    "  driftline replay clicks.parquet --detector river:adwin --out adwin\n\n"
    "  driftline replay log.jsonl --map user=visitor --map timestamp=at --no-learning"
)
def replay(
    inputs: Annotated[
        list[str],
        typer.Argument(help="CSV, CSV.gz, JSONL, JSONL.gz or Parquet; or kafka://broker/topic."),
    ],
    out: OutOption = Path("out"),
    mapping: MapOption = [],  # noqa: B006  typer copies it
    settings: SettingsOption = None,
    prior: PriorOption = None,
    detector: Annotated[
        str | None,
        typer.Option(help="Of users' changes: driftline, or river:adwin, river:pagehinkley, …"),
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Length of a learning window, such as 7d.")
    ] = None,
    learning: Annotated[
        bool, typer.Option("--learning/--no-learning", help="Train and evaluate the model.")
    ] = True,
    limit: Annotated[int, typer.Option(min=0, help="Stop after so many events; 0 takes all.")] = 0,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of everything that is drawn.")
    ] = None,
    sort: Annotated[
        bool, typer.Option("--sort", help="Sort by time first; all events are held in memory.")
    ] = False,
    since: Annotated[
        datetime | None, typer.Option("--from", help="No events before this (UTC).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", help="No events from this on (UTC).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a replay that was cut off.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the replay in the directory.")
    ] = False,
) -> None:
    """Replay files of events through the whole pipeline, as a backtest."""
    from connectors.replay import Request
    from connectors.terminal import replay_with_progress

    request = Request(
        inputs=inputs,
        settings=_settings(settings, mapping, prior, window, seed, detector),
        since=_milliseconds(since),
        until=_milliseconds(until),
        kafka=load_live(settings)[1],
        learning=learning,
        limit=limit,
        sort=sort,
    )
    replay_with_progress(
        request,
        out,
        command=shlex.join(["driftline", *sys.argv[1:]]),
        resume=resume,
        overwrite=overwrite,
    )


@app.command(
    epilog="Examples:\n\n"
    "  driftline calibrate lastyear.parquet --to prior.json\n\n"
    "  driftline replay lastquarter.parquet --prior prior.json"
)
def calibrate(
    files: Annotated[list[Path], typer.Argument(help="CSV, CSV.gz, JSONL, JSONL.gz or Parquet.")],
    to: Annotated[Path, typer.Option("--to", help="The file to write.")] = Path("prior.json"),
    mapping: MapOption = [],  # noqa: B006  typer copies it
    settings: SettingsOption = None,
    until: Annotated[
        datetime | None, typer.Option(help="Leave out events from this day (UTC) on.")
    ] = None,
) -> None:
    """Estimate the population prior of drift detection from history."""
    from connectors.terminal import calibrate_files

    calibrate_files(files, _settings(settings, mapping), to, _milliseconds(until))


@app.command()
def demo(out: OutOption = Path("out/demo")) -> None:
    """Replay a year of real shopping: 84.51°'s Complete Journey."""
    from connectors.terminal import run_demo

    run_demo(out)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("driftline.toml"),
) -> None:
    """Write a settings file with every setting, its default and what it does."""
    if path.exists():
        raise SettingsError(f"{path} exists already: name another file")
    template = Path(__file__).with_name("driftline.toml")
    path.write_text(template.read_text("utf-8"), "utf-8")
    Console(markup=False).print(f"Wrote {path}. Use it with --settings {path}.")


@app.command(epilog="Example:\n\n  driftline inspect 1228 --out out/demo")
def inspect(user: str, out: OutOption = Path("out")) -> None:
    """Show a user's interests, recent items and drift history."""
    from connectors.terminal import show_user

    if not show_user(user, out):
        raise typer.Exit(Exit.NOT_FOUND)


@app.command(
    epilog="Examples:\n\n"
    "  driftline recommend --user 1228 --out out/demo\n\n"
    "  driftline recommend 1029743 1082185 --out out/demo\n\n"
    "  driftline recommend 1029743 --top 5 --json --out out/demo"
)
def recommend(
    items: Annotated[
        list[str] | None, typer.Argument(help="What the user met, the oldest first.")
    ] = None,
    out: OutOption = Path("out"),
    user: Annotated[str, typer.Option(help="Whose history comes before these items.")] = "",
    checkpoint: Annotated[
        str | None, typer.Option(help="Its id: that model alone is asked, not the blend.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many items to show.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="An item a line, as JSON.")] = False,
    settings: SettingsOption = None,
) -> None:
    """Say what to show next, to a user or after some items."""
    from connectors.recommendations import recommend

    if not items and not user:
        raise typer.BadParameter("name items, or whom they are for (--user)")
    if not recommend(
        items or [],
        out,
        _settings(settings, []),
        user=user,
        checkpoint=checkpoint,
        count=top,
        as_json=as_json,
    ):
        raise typer.Exit(Exit.NOT_FOUND)


@app.command(
    epilog="Examples:\n\n"
    "  driftline segments --out out/demo\n\n"
    "  driftline segments --out out/demo --moved-into baby --within 14d --to audience.parquet\n\n"
    "  driftline segments --bus --moved-into baby --to audience.parquet"
)
def segments(
    out: OutOption = Path("out"),
    moved_into: Annotated[
        str | None, typer.Option(help="Make an audience: categories whose names contain this.")
    ] = None,
    within: Annotated[str, typer.Option(help="How long ago they moved, at most.")] = "14d",
    at: Annotated[
        datetime | None, typer.Option(help="Up to when (UTC); else up to the newest event.")
    ] = None,
    to: Annotated[Path, typer.Option(help="The audience's file.")] = Path("audience.parquet"),
    bus: Annotated[
        bool, typer.Option("--bus", help="Of the profiles on the bus, not of a replay.")
    ] = False,
    settings: SettingsOption = None,
) -> None:
    """Show users grouped by interest and how they move, or write an audience of who moved."""
    from connectors.segment_files import read_flows, rows_of_flows
    from connectors.segments import history, show_flows, write_audience

    interests = None
    core, kafka, _ = load_live(settings)
    if bus:
        from connectors.kafka.profiles import bus_interests

        interests = bus_interests(kafka)
    elif moved_into is not None:
        interests = history(out)
    console = Console(markup=False, emoji=False)
    if interests is None:
        show_flows(console, read_flows(out))
    elif moved_into is None:
        show_flows(console, rows_of_flows(interests, int(core.trends.window)))
    elif not write_audience(
        console,
        interests,
        to,
        text=moved_into,
        within=Duration.parse(within),
        at=_milliseconds(at),
    ):
        raise typer.Exit(Exit.NOT_FOUND)


@checkpoints.command("list")
def list_checkpoints(out: OutOption = Path("out")) -> None:
    """List the checkpoints and the decisions of the gate; the champion is marked."""
    from connectors.checkpoints import show_checkpoints

    show_checkpoints(out / "checkpoints")


@checkpoints.command("verify")
def verify_checkpoints(out: OutOption = Path("out"), settings: SettingsOption = None) -> None:
    """Check that every checkpoint is what its id says, and signed by whom the settings trust."""
    from connectors.checkpoints import check_checkpoints

    if not check_checkpoints(out / "checkpoints", _settings(settings, [])):
        raise typer.Exit(Exit.CORRUPT)


@checkpoints.command("keygen")
def make_keys(
    path: Annotated[Path, typer.Argument(help="The private key's file.")] = Path("driftline.key"),
) -> None:
    """Make an Ed25519 key pair to sign checkpoints with."""
    from connectors.checkpoints import make_keys

    make_keys(path)


def _settings(
    path: Path | None,
    mapping: list[str],
    prior: Path | None = None,
    window: str | None = None,
    seed: int | None = None,
    detector: str | None = None,
) -> Settings:
    """Read the settings file and lay the options over it."""
    settings, _, _ = load_live(path)
    changes: dict[str, object] = {}
    if mapping:
        changes["source"] = replace_fields(
            settings.source, map=settings.source.map | dict(_pair(text) for text in mapping)
        )
    drift = {"prior": prior and str(prior), "detector": detector}
    drift = {name: value for name, value in drift.items() if value is not None}
    if drift:
        changes["drift"] = replace_fields(settings.drift, **drift)
    if window is not None:
        changes["windows"] = replace_fields(settings.windows, size=PositiveDuration.parse(window))
    if seed is not None:
        changes["seed"] = seed
    return replace_fields(settings, **changes)


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp() * 1000)


def _pair(text: str) -> tuple[str, str]:
    name, sign, column = text.partition("=")
    if not (name and sign and column):
        raise SettingsError(f"--map takes FIELD=COLUMN, such as user=customer_id, not {text!r}")
    return name, column


def main() -> None:
    """Run the command line; every foreseen error is one line and an exit code."""
    try:
        for word in sys.argv:
            word.encode()
    except UnicodeEncodeError:
        _fail(ValueError("a word of the command line is not UTF-8"), Exit.USAGE)
    try:
        app()
    except Exception as error:
        code = _code_of(error)
        if code is None:
            raise
        _fail(error, code)


def _code_of(error: Exception) -> Exit | None:
    """Return the exit code of a foreseen error; what raised it has imported its class already."""
    return next(
        (_CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _CODES), None
    )


def _fail(error: Exception, code: Exit) -> None:
    told = f"[bold red]error:[/] {escape(str(error))}"
    Console(stderr=True).print(told, highlight=False, soft_wrap=True)
    sys.exit(code)
