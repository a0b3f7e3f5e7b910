"""A click topic that is not keyed by user: noticed, and mended where the settings say so."""

import socket
import time
import urllib.request
from collections import Counter
from contextlib import suppress

import numpy as np
from live import CORE, Live, Offline, shopping
from test_worker import click, send

from connectors.kafka.produce import click_records


def scattered(live, batch):
    """Send clicks to the partitions in turn, without keys."""
    values = [value for _, value in click_records(batch)]
    send(live, [(n % 4, None, value, []) for n, value in enumerate(values)])


def test_a_user_in_two_partitions_is_told_once_and_counted(bootstrap, admin, tmp_path):
    """Of two workers one looks at all partitions: its log says it once, and its metrics count."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as b:
        ports = [server.getsockname()[1] for server in (one, b)]
    everyone = [(0, "a"), (1, "b"), (2, "c"), (3, "a"), (3, "d"), (1, "d")]
    rows = [(number, b"k", click(user_id=user), []) for number, user in everyone]

    def split():
        told = []
        for port in ports:
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer,
            ):
                lines = answer.read().decode().splitlines()
                told += [line for line in lines if line.startswith("driftline_split_users ")]
        return sorted(told)

    with Live(bootstrap, admin, tmp_path) as live:
        send(live, rows)
        for number, port in enumerate(ports):
            live.start(f"disk-{number}", metrics_port=port)
        live.wait(lambda: "is not keyed by user" in live.logs(), "noticed")
        live.wait(
            lambda: ["driftline_split_users 0.0", "driftline_split_users 2.0"] == split(), "counted"
        )
        time.sleep(2)
        told = [log.read_text().count("is not keyed by user") for log in tmp_path.glob("log-*")]
        assert 1 == max(told)


def test_a_topic_that_is_not_keyed_is_rekeyed_exactly_once(bootstrap, admin, tmp_path):
    """Killed amid its work, the worker still applies every click once, in its user's partition.

    The clicks have no event ids, so that nothing but the origin tells a repetition. The first
    worker commits nothing of what it sends on, so that the second sends all of it again.
    """
    batch = shopping(40, days=8, seed=5)
    batch.event_id[:] = 0
    core = CORE.replace('lateness = "1d"', 'lateness = "30d"')
    with Live(bootstrap, admin, tmp_path, core, rekey=True) as live:
        scattered(live, batch)
        poison = [(n, None, b"{", []) for n in range(4)]
        send(live, poison)

        def sent_on():
            return sum(live.ends("clicks-by-user").values())

        for before, interval in ((0, "1h"), (len(batch), "300ms")):
            worker = live.start(batch=100, commit_interval=interval)
            live.wait(lambda least=before: sent_on() > least, "some sent on")
            worker.kill()
            worker.wait()
            assert before > 0 or {} == live.committed("clicks")
        live.start()
        live.wait_read()
        live.stop()
        states = live.states()
        offline = Offline(live)
        assert offline.states == states
        assert offline.alerts == live.alerts(of_users=True)
        assert len(batch) == sum(known.counts.applied for _, known, _ in states.values())
        assert 4 == sum(stamp.dead_letters for stamp, _, _ in states.values())
        repeated = sum(stamp.origins.repeated for stamp, _, _ in states.values())
        assert 0 < repeated == sent_on() - len(batch) - len(poison)
        users = [batch.user.values[code] for code in np.asarray(batch.user.codes)]
        assert dict(Counter(users)) == {u: i.events for u, i in live.interests().items()}
        assert "is not keyed by user" not in live.logs()
