"""The same events give the same alerts, profiles and states, live and replayed."""

import msgspec
import pytest
from live import Live, Offline, anywhere, shopping

from connectors.backtest import Backtest
from connectors.files import read
from connectors.kafka.produce import click_records
from pipeline.events import DriftAlert
from pipeline.prior import UNIFORM


def backtest(live, batch, directory):
    """Replay the same events from a file; return user alerts and category alerts by id."""
    directory.mkdir()
    path = directory / "clicks.jsonl"
    path.write_bytes(b"".join(value + b"\n" for _, value in click_records(batch)))
    quiet = {"learning": False, "progress": lambda *_: None}
    with Backtest(directory, live.settings, UNIFORM, **quiet) as replay:
        replay.run(read([path], live.settings.source, batch_size=1000))
    lines = (directory / "alerts.jsonl").read_bytes().splitlines()
    alerts = [msgspec.json.decode(line, type=DriftAlert) for line in lines]
    of_users = {a.id: a for a in alerts if a.kind.startswith("user")}
    return of_users, {a.id: a for a in alerts if a.id not in of_users}


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
        assert anywhere(judged) == anywhere(live.alerts(of_users=False))
