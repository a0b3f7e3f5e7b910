"""`driftline segments`: who is where, who went where, and audiences of those who moved."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from connectors.interest_history import read_history
from connectors.run_error import RunError
from connectors.segment_files import PLACES, RECENT, Flow, write_table
from connectors.summary import iso
from pipeline.segments import Interests, moved_into

AUDIENCE = pa.schema(
    [
        ("user_id", pa.string()),
        ("since", pa.timestamp("ms", tz="UTC")),
        ("share_before", pa.float64()),
        ("share_after", pa.float64()),
        ("category", pa.string()),
    ]
)
"""The columns of an audience, the largest gain first."""
SHOWN = 15


def show_flows(console: Console, flows: list[Flow]) -> None:
    """Show the largest segments with their recent movement, and the largest flows."""
    starts = sorted({start for start, *_ in flows})
    recent = [flow for flow in flows if flow[0] in starts[-RECENT:]]
    sizes, arrived, left = Counter[str](), Counter[str](), Counter[str]()
    moves = Counter[tuple[str, str]]()
    for start, before, after, users in recent:
        if start == starts[-1]:
            sizes[after] += users
        if before != after:
            arrived[after] += users
            left[before] += users
            moves[before, after] += users
    if not starts:
        console.print("No user has been seen for long enough to be in a segment.")
        return
    console.print(f"segments in the window from {iso(starts[-1])[:10]}")
    table = Table(box=None)
    table.add_column("segment")
    for column in ("users", f"came in {RECENT} windows", "left"):
        table.add_column(column, justify="right")
    for name, users in sizes.most_common(SHOWN):
        table.add_row(name, f"{users:,}", f"{arrived[name]:,}", f"{left[name]:,}")
    console.print(table)
    within = Counter({pair: n for pair, n in moves.items() if not {*pair} & {*PLACES.values()}})
    console.print(f"largest flows in {RECENT} windows")
    table = Table(box=None)
    for column in ("from", "to"):
        table.add_column(column)
    table.add_column("users", justify="right")
    for (before, after), users in within.most_common(SHOWN):
        table.add_row(before, after, f"{users:,}")
    console.print(table)


def write_audience(
    console: Console, interests: Interests, to: Path, *, text: str, within: int, at: int | None
) -> bool:
    """Write the users whose interest moved into categories whose names contain a text.

    Args:
        console: Where it is told how many they are.
        interests: Of all users.
        to: The file.
        text: See `moved_into`.
        within: The span, in milliseconds.
        at: Its end; None: the newest event.

    Returns:
        False where no category is meant; then nothing is written.
    """
    newest = int(interests.time[-1]) if len(interests.time) else 0
    end = newest if at is None else at
    meant, moved = moved_into(interests, text, within, end)
    if not meant:
        console.print(f"no category's name contains {text!r}")
        return False
    columns = {
        "user_id": [user.user for user in moved],
        "since": [user.since for user in moved],
        "share_before": [user.before for user in moved],
        "share_after": [user.after for user in moved],
        "category": [user.category for user in moved],
    }
    write_table(to, pa.table(columns, schema=AUDIENCE))
    console.print(
        f"Wrote {to}: {len(moved):,} users moved into {', '.join(meant)} between "
        f"{iso(end - within)[:16]} and {iso(end)[:16]}.",
        highlight=False,
    )
    return True


def history(directory: Path) -> Interests:
    """Read the interests over time that a replay left.

    Raises:
        RunError: The directory holds no replay.
    """
    if not (directory / "run.json").exists():
        raise RunError(f"{directory} holds no replay: name its directory with --out")
    return read_history(directory)
