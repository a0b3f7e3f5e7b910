"""`driftline recommend`: what a learner's blend, or a checkpoint's model, would show next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from connectors.learning import newest_state
from connectors.run_error import RunError
from learners.checkpoint import champion, load
from learners.recommend import Blended, Recommender, UnknownItemsError
from learners.signing import trusted
from pipeline.settings import Settings

_out = Console(markup=False, emoji=False)
_err = Console(stderr=True, emoji=False)


def recommend(
    items: Sequence[str],
    directory: Path,
    settings: Settings,
    *,
    user: str,
    checkpoint: str | None,
    count: int,
    as_json: bool,
) -> bool:
    """Print the items that follow best, and say whether anything was known of what is given.

    Where the directory has a learner's state its blend is asked, else the champion; a `checkpoint`
    that is named is asked alone.

    Raises:
        RunError: there is nobody to ask, or nobody who knows users.
        StateError: the learner's state cannot be read.
        CheckpointError: the checkpoint cannot.
    """
    checkpoints = directory / "checkpoints"
    state = None if checkpoint else newest_state(directory)
    named = checkpoint or champion(checkpoints)
    if named is None:
        raise RunError(
            f"{checkpoints} names no champion: name a replay's directory with --out, or a "
            "checkpoint with --checkpoint"
        )
    if user and state is None:
        raise RunError(
            f"--user: a checkpoint knows no users, and {directory} has no learner's state that does"
        )
    recommender: Blended | Recommender
    top: Callable[..., list[tuple[str, float]]]
    if state:
        recommender = Blended.of(state, checkpoints)
        top = partial(recommender.top, user=user)
        asked = f"the blend around {named}"
    else:
        recommender = Recommender.of(load(checkpoints / named, trusted(settings.signing.trusted)))
        top = recommender.top
        asked = named
    try:
        best = top(items, count=count)
    except UnknownItemsError as error:
        _tell(f"[red]{escape(asked)}:[/] {escape(str(error))}")
        return False
    for item in recommender.unknown(items):
        _tell(f"[yellow]left out:[/] {escape(f'{asked} does not know {item}')}")
    rows = [(item, recommender.category(item), round(score, 3)) for item, score in best]
    if as_json:
        fields = ("item_id", "category", "score")
        for row in rows:
            _out.out(msgspec.json.encode(dict(zip(fields, row, strict=True))).decode())
    else:
        table = Table("", "item", "category", "score", box=None, caption=f"by {asked}")
        for place, (item, category, score) in enumerate(rows, 1):
            table.add_row(str(place), item, category, f"{score:.3f}")
        _out.print(table)
    return True


def _tell(text: str) -> None:
    _err.print(text, highlight=False, soft_wrap=True)
