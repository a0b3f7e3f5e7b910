"""`driftline recommend`: what a checkpoint's model would show next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from connectors.run_error import RunError
from learners.checkpoint import champion, load
from learners.recommend import Recommender, UnknownItemsError
from learners.signing import trusted
from pipeline.settings import Settings

_out = Console()
_err = Console(stderr=True)


def recommend(
    items: Sequence[str],
    directory: Path,
    settings: Settings,
    *,
    checkpoint: str | None,
    count: int,
    as_json: bool,
) -> bool:
    """Print the items that follow best, and say whether any of the given ones is known."""
    named = checkpoint or champion(directory)
    if named is None:
        raise RunError(
            f"{directory} names no champion: name a replay's directory with --out, or a "
            "checkpoint with --checkpoint"
        )
    recommender = Recommender.of(load(directory / named, trusted(settings.signing.trusted)))
    try:
        best = recommender.top(items, count=count)
    except UnknownItemsError as error:
        _err.print(f"[red]{named}:[/] {error}", highlight=False, soft_wrap=True)
        return False
    for item in recommender.unknown(items):
        _err.print(f"[yellow]left out:[/] {named} does not know {item}", highlight=False)
    rows = [(item, recommender.category(item), round(score, 3)) for item, score in best]
    if as_json:
        fields = ("item_id", "category", "score")
        for row in rows:
            _out.out(msgspec.json.encode(dict(zip(fields, row, strict=True))).decode())
    else:
        table = Table("", "item", "category", "score", box=None)
        for place, (item, category, score) in enumerate(rows, 1):
            table.add_row(str(place), item, category, f"{score:.3f}")
        _out.print(table)
    return True
