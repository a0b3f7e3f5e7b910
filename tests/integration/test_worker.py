"""What a worker promises when things go wrong, on a real broker and with real processes."""

import asyncio
import json
import signal
import socket
import urllib.request

from aiokafka import AIOKafkaProducer
from live import Live, Offline, shopping

from connectors.kafka.partitions import Stamp


def send(live, rows):
    """Send records of a partition, key, value and headers."""

    async def run():
        servers = live.kafka.bootstrap_servers
        client = AIOKafkaProducer(bootstrap_servers=servers, max_request_size=8 << 20)
        async with client as producer:
            for partition, key, value, headers in rows:
                batch = producer.create_batch()  # takes a record without key and value, too
                batch.append(timestamp=None, key=key, value=value, headers=headers)
                await (await producer.send_batch(batch, live.topic("clicks"), partition=partition))

    asyncio.run(run())


def progress_of(live):
    return sum(live.committed("clicks").values())


def test_kill_9_loses_nothing_and_repeats_only_twins(bootstrap, admin, tmp_path):
    """Killed twice amid its work, a worker ends where one ends that ran through."""
    batch = shopping(60, seed=2)
    with Live(bootstrap, admin, tmp_path) as live:
        live.produce(batch)
        amid = 0
        for share in (0.1, 0.4):
            worker = live.start(batch=20, commit_interval="50ms", flush_interval="50ms")
            live.wait(lambda share=share: progress_of(live) > share * len(batch), "some read")
            amid += progress_of(live) < len(batch)
            worker.kill()
            worker.wait()
        assert amid > 0
        live.start()
        live.wait_read()
        live.stop()
        offline = Offline(live)
        assert len(offline.alerts) > 20
        assert offline.alerts == live.alerts(of_users=True)
        assert offline.category_alerts == live.alerts(of_users=False)
        assert offline.profiles == live.profiles()
        assert offline.states == live.states()


def click(**changes):
    row = {"user_id": "u", "item_id": "i", "timestamp": 1_600_000_000, "category": "a"}
    return json.dumps(row | changes).encode()


POISON = {
    "no JSON": b"\xff\xfe{",
    "another type": click(user_id=["u"]),
    "year 9999": click(timestamp="9999-12-31T23:59:59Z"),
    "no item": b'{"user_id":"u","timestamp":1600000000}',
    "a huge field": click(item_id="x" * 5000),
    "a tombstone": None,
    "empty": b"",
    "deep": b"[" * 100_000,
    "huge": click(item_id="y" * 3_000_000),
    "infinite": click(price=1e308).replace(b"1e+308", b"1e999"),
    "of another schema": click(schema=2),
    "Avro": b"\0\0\0\0\x01" + click(),
    "a clock far ahead": click(timestamp="2090-01-01T00:00:00Z"),
    "a CloudEvent of another version": b'{"specversion":"0.3","data":%b}' % click(),
}


def test_poison_goes_to_the_dead_letters_and_the_stream_goes_on(bootstrap, admin, tmp_path):
    """Every record is applied, late, a duplicate or a dead letter, which is as it was received."""
    good = [click(event_id=f"e{n}", timestamp=1_600_000_000 + n) for n in range(20)]
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "s",
        "type": "t",
        "data": json.loads(good[0]),
    }
    good[3] = json.dumps(event).encode()  # its own event_id is that of a duplicate
    late = click(event_id="late", timestamp=1_600_000_000 - 10 * 86_400)
    rows = [(0, b"u", value, []) for value in [*good[:10], *POISON.values(), *good[5:], late]]
    rows += [(1, None, None, []), (1, None, b"{", [("traced", b"1")])]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    topic = {"max.message.bytes": str(8 << 20)}
    with Live(bootstrap, admin, tmp_path) as live:
        live.configure("clicks", topic)
        live.start(batch=7, metrics_port=port)
        send(live, rows)
        live.wait_read()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            told = answer.read().decode()
        for path in ("healthz", "readyz"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                assert (200, b"ok\n") == (answer.status, answer.read())
        live.stop()
        letters = [(r, dict(r.headers)) for r in live.records("clicks-dlq")]
        mine, other = (
            [x for x in letters if n == x[1]["driftline-partition"]] for n in (b"0", b"1")
        )
        assert [(b"u", value) for value in POISON.values()] == [(r.key, r.value) for r, _ in mine]
        assert [b"", b"{"] == [record.value for record, _ in other]
        places = [int(headers["driftline-offset"]) for _, headers in mine]
        assert list(range(10, 10 + len(POISON))) == places
        assert {live.topic("clicks").encode()} == {h["driftline-topic"] for _, h in letters}
        assert all(headers["driftline-reason"] for _, headers in letters)
        assert b"1" == other[-1][1]["traced"]
        states = live.states()
        counts = states[0][1].counts
        assert (19, 1, 6) == (counts.applied, counts.late, counts.duplicates)
        assert len(rows) - 2 == sum((19, 1, 6, len(POISON)))
        [set_aside] = live.records("clicks-late")
        assert (b"u", late) == (set_aside.key, set_aside.value)
        headers = dict(set_aside.headers)
        assert str(len(rows) - 3).encode() == headers["driftline-offset"]
        assert b"interests.lateness" in headers["driftline-reason"]
        assert Stamp(next=len(rows) - 2, dead_letters=len(POISON)) == states[0][0]
        assert Stamp(next=2, dead_letters=2) == states[1][0]
        name = live.topic("clicks")
        expected = {"applied": 19, "late": 1, "duplicate": 6, "dead_letter": len(POISON)}
        for outcome, count in expected.items():
            line = f'driftline_events_total{{outcome="{outcome}",source="{name}/0"}} {count}.0'
            assert line in told


def test_deleted_records_are_told_and_the_rest_is_read(bootstrap, admin, tmp_path):
    """Where retention was faster than the worker, it says so and goes on with what is there."""
    with Live(bootstrap, admin, tmp_path) as live:
        send(live, [(0, b"u", click(event_id=str(n)), []) for n in range(30)])
        live.truncate("clicks", {0: 20})
        live.start()
        live.wait_read()
        live.stop()
        assert 10 == live.states()[0][1].counts.applied
        assert "offsets 0 to 19 are gone" in live.logs()


def test_a_topic_made_anew_stops_the_worker(bootstrap, admin, tmp_path):
    """A state that is ahead of its topic is not mixed up with other events."""
    with Live(bootstrap, admin, tmp_path) as live:
        send(live, [(0, b"u", click(event_id=str(n)), []) for n in range(30)])
        live.start()
        live.wait_read()
        live.stop()
        live.remake("clicks")
        send(live, [(0, b"u", click(event_id=str(n)), []) for n in range(3)])
        worker = live.start()
        assert worker.wait(40) != 0
        assert "the topic was made anew" in live.logs()


def test_a_named_worker_keeps_its_partitions_over_a_restart(bootstrap, admin, tmp_path):
    """Killed and stopped, it is back within its session: the other one is assigned nothing anew."""
    batch = shopping(20, days=8, seed=6)
    with Live(bootstrap, admin, tmp_path) as live:
        live.produce(batch.take(slice(500)))
        slow = {"session_timeout": "60s"}
        live.start("other", instance="other", **slow)
        named = live.start("named", instance="named", **slow)
        log = tmp_path / "log-0"

        def assigned():
            return log.read_text().count("Executing _on_partitions_assigned")

        def has_some(name):
            return any((tmp_path / name).glob("*clicks-*"))

        live.wait(lambda: has_some("named") and has_some("other"), "shared out")
        live.wait_read()
        before = assigned()
        for end in (signal.SIGKILL, signal.SIGTERM):
            named.send_signal(end)
            named.wait(30)
            named = live.start("named", instance="named", **slow)
        live.produce(batch.take(slice(500, None)))
        live.wait_read()
        assert before == assigned()
        live.stop()
        offline = Offline(live)
        assert offline.alerts == live.alerts(of_users=True)
        assert offline.states == live.states()
