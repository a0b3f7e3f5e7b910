"""A user is erased: everywhere, once, whatever is killed meanwhile, and proved by looking."""

import asyncio
import subprocess
import sys
import time

import numpy as np
from aiokafka import AIOKafkaProducer
from live import ROOT, Live, shopping

from connectors.kafka.erase_commands import REMAINS
from connectors.kafka.erasures import Erasures, ask
from connectors.kafka.topics import ERASURES

GONE = "user-3"


def erase(live, *options):
    """Run `driftline erase` as a process; return its exit code and what it said."""
    command = [sys.executable, "-c", "from connectors.cli import main; main()", "erase", GONE]
    command += [*options, "--settings", live.home / "worker-0.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def receipts(live):
    async def read():
        erasures = Erasures(live.kafka)
        await erasures.refresh()
        await erasures.close()
        return {by for user, by in erasures.receipts if user == GONE}

    return asyncio.run(read())


def of(user, batch):
    users = np.array(batch.user.values)[batch.user.codes]
    return batch.take(np.flatnonzero(users == user))


def test_a_user_is_erased_and_begins_anew(bootstrap, admin, tmp_path):
    """Killed in the middle and on a new disk, too; who comes back has a history of what is new."""
    batch = shopping(8, days=10, seed=4)
    with Live(bootstrap, admin, tmp_path) as live:
        live.produce(batch)
        worker = live.start()
        live.wait_read()
        code, told = erase(live, "--verify")
        assert REMAINS == code
        assert "Nobody has asked" in told
        worker.kill()
        worker.wait()
        asyncio.run(ask(live.kafka, GONE))
        code, told = erase(live, "--verify")
        assert REMAINS == code
        assert "has not answered yet" in told
        for seconds in (3.0, 5.0):  # amid opening, or erasing
            worker = live.start()
            time.sleep(seconds)
            worker.kill()
            worker.wait()
        worker = live.start()
        live.wait(lambda: 4 == len(receipts(live)), "receipts of all partitions")
        code, told = erase(live, "--verify")
        assert 0 == code, told
        assert "REMAINS" not in told
        assert "clicks, until the topic's retention ends" in told
        again = of(GONE, batch.take(slice(0, 400)))
        live.produce(again)
        live.wait_read()
        live.stop()
        state = next(s[2][GONE] for s in live.states().values() if GONE in s[2])
        assert len(of(GONE, batch)) > len(again) > 10
        assert len(again) == live.interests()[GONE].events
        assert state
        live.start("other")  # recovers from the changelog
        live.produce(of(GONE, batch.take(slice(400, 500))))
        live.wait_read()
        live.stop()
        more = len(of(GONE, batch.take(slice(400, 500))))
        assert len(again) + more == live.interests()[GONE].events
        assert {f"user-{n}" for n in range(8)} == set(live.interests())


def test_a_worker_that_lags_behind_passes_over_what_was_to_be_erased(bootstrap, admin, tmp_path):
    """Asked for before any worker has read a click: none of the user's counts, and none is lost."""
    batch = shopping(8, days=6, seed=5)
    with Live(bootstrap, admin, tmp_path) as live:
        live.produce(batch)
        asyncio.run(ask(live.kafka, GONE))
        live.start()
        live.wait_read()
        live.wait(lambda: 4 == len(receipts(live)), "receipts of all partitions")
        live.stop()
        states = live.states()
        assert not any(GONE in state[2] for state in states.values())
        assert 7 == sum(len(state[2]) for state in states.values())
        stamps = [stamp for stamp, _, _ in states.values()]
        assert len(of(GONE, batch)) == sum(stamp.passed_over for stamp in stamps)
        counts = [known.counts for _, known, _ in states.values()]
        accounted = sum(c.applied + c.late + c.duplicates for c in counts)
        assert len(batch) == accounted + sum(stamp.passed_over for stamp in stamps)


def test_a_store_whose_partition_went_elsewhere_forgets_the_user(bootstrap, admin, tmp_path):
    """Nobody follows it any more, and it may be years before the partition comes back."""
    batch = shopping(8, days=6, seed=6)
    with Live(bootstrap, admin, tmp_path) as live:
        live.produce(batch)
        live.start("former")
        live.wait_read()
        live.stop()
        live.start("present")
        live.wait_read()
        asyncio.run(ask(live.kafka, GONE))
        live.wait(lambda: 4 == len(receipts(live)), "receipts of all partitions")
        code, told = erase(live, "--verify")
        assert REMAINS == code
        assert str(tmp_path / "former") in told
        live.start("former")
        live.wait(lambda: 0 == erase(live, "--verify")[0], "a clean disk")


def test_what_is_no_request_stops_nobody(kafka, caplog):
    """A tombstone, which the topic's owner may write, and bytes of others are passed over."""

    async def story():
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
            for value in (None, b"nonsense"):
                await producer.send_and_wait(kafka.topic_prefix + ERASURES, value, b"user-9")
        await ask(kafka, GONE)
        erasures = Erasures(kafka)
        await erasures.refresh()
        await erasures.close()
        return [request.user for _, request in erasures.since(0)]

    assert [GONE] == asyncio.run(story())
    [told] = [record.message for record in caplog.records if "passed over" in record.message]
    assert f"{ERASURES}, offset 1: neither a request to erase a user nor a receipt" in told
