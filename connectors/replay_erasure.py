"""Takes a user out of what a replay has left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.backtest import Committed
from connectors.interest_history import FOLDER
from connectors.log import write_atomically
from connectors.mentions import mentions
from connectors.report import write_report
from connectors.run_error import RunError
from connectors.run_files import read_table
from connectors.store import Store, meta_key, state_key, unpack
from connectors.traces import learner_traces
from pipeline.events import USER_KINDS
from pipeline.symbols import symbol

if TYPE_CHECKING:
    from connectors.learning import LearningStage


def erase_replay(out: Path, user: str) -> list[str]:
    """Erase a user from a replay's directory; a second time where the first was cut off.

    Sums over all users stay as they are, the report's and the model's weights among them.

    Args:
        out: of a replay that has run to its end.
        user: who it is about.

    Returns:
        The ids of the checkpoints that were trained since the user was met.

    Raises:
        RunError: the directory holds no replay, or one that was cut off.
        StoreError: its store cannot be opened.
        StateError: the learner's state is damaged, or of another release.
    """
    if not (out / "run.json").exists():
        raise RunError(f"{out} holds no replay")
    with Store(out / "state") as store:
        committed = unpack(store.get("committed"), Committed, str(out))
        if not committed.drained:
            raise RunError(f"{out} holds a replay that was cut off: finish it first (--resume)")
        stage = _stage(out, committed.learner)
        seen = stage.seen_by(user) if stage else []
        if stage:
            stage.erase(user)
        for path in _tables(out):
            _rewrite_table(path, user)
        for name, keep in _LINES.items():
            _rewrite_lines(out / name, user, keep)
        committed.lengths = {name: (out / name).stat().st_size for name in committed.lengths}
        packed = msgspec.msgpack.encode(committed)
        store.write([(state_key(user), None), (meta_key("committed"), packed)])
        store.compact()
        if stage:
            stage.erase_trace(user)
    write_report(out)
    return seen


def replay_traces(out: Path, user: str) -> Iterator[tuple[str, int]]:
    """Yield every place of a replay where users stand, and how often this one does.

    Raises:
        RunError: the directory holds no replay.
    """
    if not (out / "run.json").exists():
        raise RunError(f"{out} holds no replay")
    with Store(out / "state", read_only=True) as store:
        yield str(out / "state"), sum(state is not None for state in store.load([user]))
    for path in _tables(out):
        column = read_table(path, columns=["user_id"])["user_id"]
        yield str(path), int(pc.sum(pc.equal(column, user)).as_py() or 0)
    for name, keep in _LINES.items():
        path = out / name
        if path.exists():
            lines = path.read_bytes().splitlines()
            yield str(path), sum(keep(line, user) != line for line in lines)
    yield from learner_traces(out, user)


def _tables(out: Path) -> list[Path]:
    parts = sorted((out / FOLDER).glob("*.parquet"))
    return [
        *parts,
        *(p for p in (out / "profiles.parquet", out / "segments.parquet") if p.exists()),
    ]


def _rewrite_table(path: Path, user: str) -> None:
    table = read_table(path)
    kept = table.filter(pc.not_equal(table["user_id"], user))
    if len(kept) != len(table):
        temporary = path.with_suffix(".tmp")
        pq.write_table(kept, temporary, compression="zstd")
        temporary.replace(path)


def _rewrite_lines(path: Path, user: str, keep: Callable[[bytes, str], bytes | None]) -> None:
    if path.exists():
        lines = [keep(line, user) for line in path.read_bytes().splitlines()]
        write_atomically(path, b"".join(line + b"\n" for line in lines if line is not None))


def _alert(line: bytes, user: str) -> bytes | None:
    """Keep an alert unless it is the user's; that of a category may bear the same name."""
    alert = msgspec.json.decode(line)
    return None if alert["kind"] in USER_KINDS and alert["subject"] == user else line


def _reject(line: bytes, user: str) -> bytes | None:
    """Keep a reject unless the record, as far as it is there, mentions the user."""
    reject = msgspec.json.decode(line)
    return None if mentions(reject["record"], user, source=reject["source"]) else line


def _rollup(line: bytes, user: str) -> bytes:
    """Take the user's hash out of a sample."""
    rollup: dict[str, Any] = msgspec.json.decode(line)
    if rollup.get("users", {}).pop(str(symbol(user)), None) is None:
        return line
    return msgspec.json.encode(rollup)


_LINES: dict[str, Callable[[bytes, str], bytes | None]] = {
    "alerts.jsonl": _alert,
    "rejects.jsonl": _reject,
    "rollups.jsonl": _rollup,
}


def _stage(out: Path, state: str) -> LearningStage | None:
    """Open what was learnt, if anything was."""
    if not state:
        return None
    from connectors.learning import LearningStage  # noqa: PLC0415  torch takes seconds

    return LearningStage(None, out, state)
