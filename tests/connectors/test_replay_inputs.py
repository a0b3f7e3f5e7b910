"""What a replay does with the directory of a former one, by what its inputs are."""

import json
import os

import pyarrow.parquet as pq
import pytest

from connectors.backtest import Backtest
from connectors.kafka.settings import BusError
from connectors.readers.base import FileError
from connectors.replay import ENDS, Request, replay
from connectors.run_error import RunError
from pipeline.settings import Interests, Settings

HEADER = "user_id,item_id,timestamp"


def clicks(path, *, item, rows=20):
    lines = [HEADER, *(f"u{i % 3},{item},{1_600_000_000 + i}" for i in range(rows))]
    path.write_text("\n".join(lines) + "\n")
    return path


def replayed(path, out, **options):
    request = Request(inputs=[str(path)], settings=Settings(), learning=False)
    return replay(request, out, command="test", **options)


@pytest.fixture
def cut_off(monkeypatch):
    """Let a replay break off at its first commit."""

    def replay_in_part(path, out):
        with monkeypatch.context() as patch:
            patch.setattr(Backtest, "_commit", broken)
            with pytest.raises(KeyboardInterrupt):
                replayed(path, out)

    def broken(*_):
        raise KeyboardInterrupt

    return replay_in_part


@pytest.mark.parametrize("changed", ["first", "last"])
def test_a_changed_file_of_the_same_size_is_not_gone_on_with(tmp_path, cut_off, changed):
    """Half of one input and half of another are the results of neither."""
    path, out = clicks(tmp_path / "clicks.csv", item="a" * 100, rows=30_000), tmp_path / "out"
    size = path.stat().st_size
    assert size > 2 * ENDS
    cut_off(path, out)
    with path.open("r+b") as file:
        file.seek(len(HEADER) + 5 if changed == "first" else size - 20)
        file.write(b"b")
    with pytest.raises(RunError, match=r"holds another run \(contents:"):
        replayed(path, out, resume=True)


def test_a_file_that_was_moved_and_touched_is_gone_on_with(tmp_path, cut_off):
    """A file is known by what it holds: neither by its folder nor by its time."""
    path, out = clicks(tmp_path / "clicks.csv", item="a"), tmp_path / "out"
    cut_off(path, out)
    (tmp_path / "new").mkdir()
    path = path.rename(tmp_path / "new" / "clicks.csv")
    os.utime(path, (0, 0))
    assert 20 == replayed(path, out, resume=True).applied


def test_a_run_that_noted_no_contents_is_refused(tmp_path, cut_off):
    """A former release's run may be of other files: that is said, not guessed."""
    path, out = clicks(tmp_path / "clicks.csv", item="a"), tmp_path / "out"
    cut_off(path, out)
    marker = json.loads((out / "run.json").read_text())
    del marker["contents"]
    (out / "run.json").write_text(json.dumps(marker))
    with pytest.raises(RunError, match=r"holds another run \(contents: \[\] there"):
        replayed(path, out, resume=True)


@pytest.mark.parametrize(
    ("name", "error"), [("bad.csv", FileError), ("kafka://localhost:1/clicks", BusError)]
)
def test_an_input_that_cannot_be_read_takes_nothing_away(tmp_path, monkeypatch, name, error):
    """The replay that is to be replaced is deleted when there is something in its place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("colour,shape\nred,round\n")
    path, out = clicks(tmp_path / "clicks.csv", item="a"), tmp_path / "out"
    replayed(path, out)
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
    with pytest.raises(error):
        replayed(name, out, overwrite=True)
    assert before == {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}


def test_what_replaces_a_replay_is_read_whole(tmp_path):
    """The batches looked at beforehand are replayed, too."""
    path, out = clicks(tmp_path / "clicks.csv", item="a", rows=20_000), tmp_path / "out"
    replayed(clicks(tmp_path / "old.csv", item="b"), out)
    assert 20_000 == replayed(path, out, overwrite=True).applied


def test_whoever_resumes_loses_nothing_to_overwriting(tmp_path, cut_off):
    """The same command with --resume is what an interrupted replay asks for."""
    path, out = clicks(tmp_path / "clicks.csv", item="a"), tmp_path / "out"
    cut_off(path, out)
    (out / "mark").touch()
    assert 20 == replayed(path, out, resume=True, overwrite=True).applied
    assert (out / "mark").exists()


def test_events_outside_the_times_asked_for_are_left_out(tmp_path):
    """Of files as of a topic: from one moment on, and before another."""
    path, begin = clicks(tmp_path / "clicks.csv", item="a"), 1_600_000_000_000
    request = Request(
        inputs=[str(path)],
        settings=Settings(),
        learning=False,
        since=begin + 5000,
        until=begin + 12_000,
    )
    summary = replay(request, tmp_path / "out", command="test")
    assert (7, 0) == (summary.applied, summary.rejected)


def test_users_without_an_interest_are_in_no_segment(tmp_path):
    """Events that weigh nothing are none; a replay of such alone has no segments."""
    path, weights = tmp_path / "clicks.csv", {"impression": 0.0}
    lines = [f"u,item,{1_600_000_000 + n},c,impression" for n in range(5)]
    path.write_text("\n".join([f"{HEADER},category,type", *lines]) + "\n")
    settings = Settings(interests=Interests(type_weights=weights))
    request = Request(inputs=[str(path)], settings=settings, learning=False)
    assert 5 == replay(request, tmp_path / "out", command="test").applied
    assert 0 == pq.read_metadata(tmp_path / "out" / "segments.parquet").num_rows
