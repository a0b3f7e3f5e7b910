"""The live learner: the same windows as offline, whatever is killed; checkpoints over the bus."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from msgspec.structs import replace

from connectors.kafka.checkpoints import CHUNK, publish, published, pull, tell_rollback, topic
from connectors.kafka.erasures import LEARNER, Erasures, ask
from connectors.kafka.live_settings import load_live
from connectors.kafka.messages import Message
from connectors.kafka.produce import produce, timed_records
from connectors.kafka.publisher import Publisher
from connectors.kafka.topics import create
from connectors.kafka.transport import STOP_SECONDS
from connectors.learning import LearningStage, Lesson
from connectors.traces import learner_traces
from connectors.wire import decode_clicks
from learners import checkpoint
from learners.checkpoint import CheckpointError
from pipeline.events import concatenate
from pipeline.windows import Windows

sys.path.insert(0, str(Path(__file__).parents[1] / "learners"))
from weeks import week

SCRIPT = Path(__file__).with_name("learner_process.py")
FIRST = 2800  # in 2023
WEEKS = 5
"""Of clicks; the last one stays open."""

TOML = """
[learning]
batch = 16
learning_rate = 1e-2
first_epochs = 8
epochs = 3
replay_capacity = 60
model = {{ dim = 16, blocks = 1, heads = 2, max_length = 12, dropout = 0.1 }}

[kafka]
bootstrap_servers = ["{bootstrap}"]
topic_prefix = "{prefix}"
group = "{prefix}group"
partitions = 4
replication = 1

[worker]
session_timeout = "3s"
commit_interval = "300ms"
batch = 100
"""


class Learners:
    """A settings file, topics with weeks of clicks, and learner processes one after another."""

    def __init__(self, bootstrap: str, home: Path) -> None:
        prefix = f"{home.name}-{os.getpid()}-{time.time_ns() % 10**6}."
        self.toml = home / "driftline.toml"
        self.toml.write_text(TOML.format(bootstrap=bootstrap, prefix=prefix))
        self.settings, self.kafka, _ = load_live(self.toml)
        self.home = home
        self.directory = home / "learner"
        self.process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        create(self.kafka)
        weeks = [week(FIRST + number).clicks for number in range(WEEKS)]
        produce(self.kafka, timed_records(weeks))
        self.clicks = concatenate(weeks)

    def start(self, **options: object) -> None:
        flags = [f"--{key}={value}" for key, value in options.items()]
        command = [sys.executable, SCRIPT, "--settings", self.toml, *flags]
        command += ["--directory", self.directory]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def training(self) -> list[int]:
        """Return the process ids of those of the learner's children that train."""
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return [int(n) for n in children if trains(n)]
        except OSError:
            return []

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, path: str) -> tuple[int, str]:
        """Return what the learner answers over HTTP."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def learned(self) -> list:
        return asyncio.run(published(self.kafka))[0]

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 240) -> None:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until or self.process.poll() is not None:
                log = (self.home / "log").read_text()[-8000:]
                pytest.fail(f"{what}: not within {seconds} s\n{log}")
            time.sleep(0.1)

    def wait_for_windows(self, count: int) -> None:
        self.wait(lambda: len(self.learned()) >= count, f"{count} windows learnt")

    def outlived(self, child: int) -> None:
        """Wait until the training process has followed its parent."""
        until = time.monotonic() + 10
        while Path(f"/proc/{child}/cmdline").exists():
            assert time.monotonic() < until
            time.sleep(0.05)

    def joined(self) -> int:
        """Return how often a learner joined the group, by its log."""
        return (self.home / "log").read_text().count("Joined group")

    def lag(self) -> int:
        with_group = KafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap_servers,
            group_id=f"{self.kafka.group}-learner",
            enable_auto_commit=False,
        )
        name = self.kafka.topic_prefix + self.kafka.clicks_topic
        partitions = [TopicPartition(name, number) for number in range(4)]
        ends = with_group.end_offsets(partitions)
        lag = sum(ends[at] - (with_group.committed(at) or 0) for at in partitions)
        with_group.close()
        return lag


def trains(pid: str) -> bool:
    """Tell a training process from what libraries start for a moment."""
    return b"training_process" in Path(f"/proc/{pid}/cmdline").read_bytes()


@contextmanager
def running(bootstrap: str, home: Path) -> Iterator[Learners]:
    learners = Learners(bootstrap, home)
    try:
        yield learners
    finally:
        if learners.process:
            children = learners.training()
            learners.kill()
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


@pytest.fixture
def learners(bootstrap, tmp_path):
    with running(bootstrap, tmp_path) as learners:
        yield learners


@pytest.fixture(scope="module")
def finished(bootstrap, tmp_path_factory):
    """Hold a learner that has learnt all windows, and still runs."""
    with running(bootstrap, tmp_path_factory.mktemp("finished")) as learners:
        learners.start()
        learners.wait_for_windows(WEEKS - 1)
        yield learners


def offline(learners: Learners, home: Path, *, partitions: bool) -> list:
    """Learn the same clicks without Kafka: as one log, or as the partitions that they lie in."""
    windows = Windows(learners.settings)
    if not partitions:
        closed = windows.add(learners.clicks)
    else:
        logs = list(stored(learners))
        names = dict.fromkeys((clicks.source for clicks in logs), False)
        closed = [window for clicks in logs for window in windows.add(clicks, names)]
    home.mkdir()
    stage = LearningStage(learners.settings, home, "")
    return [stage.learn(window).report for window in closed]


def stored(learners: Learners):
    """Read the click topic, a partition at a time."""
    name = learners.kafka.topic_prefix + learners.kafka.clicks_topic
    consumer = KafkaConsumer(bootstrap_servers=learners.kafka.bootstrap_servers)
    for number in range(4):
        at = TopicPartition(name, number)
        consumer.assign([at])
        consumer.seek_to_beginning(at)
        end = consumer.end_offsets([at])[at]
        records = []
        while len(records) < end:
            for some in consumer.poll(timeout_ms=1000).values():
                records += some
        values, offsets = zip(*((r.value, r.offset) for r in records), strict=True)
        source = f"{name}/{number}"
        yield decode_clicks(values, np.array(offsets), source, learners.settings.source)[0]
    consumer.close()


def told(reports, *without: str) -> list[dict]:
    """Return reports without what a clock decides, and other fields by name."""
    left_out = ("training_seconds", *without)
    rows = [msgspec.to_builtins(report) for report in reports]
    return [{k: v for k, v in row.items() if k not in left_out} for row in rows]


def send(learners: Learners, key: bytes, value: bytes | None) -> None:
    async def once() -> None:
        servers = learners.kafka.bootstrap_servers
        async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
            await producer.send_and_wait(topic(learners.kafka), value, key)

    asyncio.run(once())


def test_learning_live_equals_learning_offline(finished, tmp_path):
    """Metrics, decisions and checkpoint ids by window are those of the same clicks offline."""
    reports = [learned.report for learned in finished.learned()]
    one_log = offline(finished, tmp_path / "one", partitions=False)
    as_read = offline(finished, tmp_path / "partitions", partitions=True)
    assert WEEKS - 1 == len(as_read)
    assert told(as_read) == told(reports)
    ids = ("checkpoint", "champion")
    assert told(one_log, *ids) == told(reports, *ids)
    finished.wait(lambda: 0 == finished.lag(), "all clicks consumed")


def test_a_pulled_checkpoint_is_the_one_that_was_written(finished, tmp_path):
    """The champion comes over the bus whole, and is named."""
    home, champion = asyncio.run(pull(finished.kafka, tmp_path))
    local = finished.directory / "checkpoints"
    assert (True, (local / "champion").read_text()) == (champion, home.name)
    assert home.name == (tmp_path / "champion").read_text()
    assert checkpoint.load(local / home.name) == checkpoint.load(home)


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_chunk_is_refused(finished, tmp_path, damage):
    """One flipped bit, or a chunk that is not there, and nothing is written."""
    number = finished.learned()[0].manifest.id
    packed = checkpoint.load(finished.directory / "checkpoints" / number)
    chunk = (packed.weights + packed.vocabulary)[:CHUNK]
    broken = {"flipped": bytes([chunk[0] ^ 1]) + chunk[1:], "missing": None}[damage]
    key = f"{number}/chunk/0".encode()
    send(finished, key, broken)
    with pytest.raises(CheckpointError, match="damaged" if broken else "missing"):
        asyncio.run(pull(finished.kafka, tmp_path, number))
    assert [] == list(tmp_path.iterdir())
    send(finished, key, chunk)
    assert number == asyncio.run(pull(finished.kafka, tmp_path, number))[0].name


def test_weights_may_travel_by_address(finished, tmp_path):
    """Weights in a store come back the same, and are refused where they were changed there."""
    kafka = replace(finished.kafka, topic_prefix=f"{finished.kafka.topic_prefix}stored.")
    create(kafka)
    learned = finished.learned()[0]
    packed = checkpoint.load(finished.directory / "checkpoints" / learned.manifest.id)
    checkpoint.point(tmp_path, packed.manifest.id)

    async def send_all() -> None:
        publisher = Publisher(kafka)
        lesson, end = Lesson(report=learned.report, alerts=[]), learned.manifest.window_end
        await publish(
            publisher,
            lesson,
            packed,
            end=end,
            checkpoints=tmp_path,
            weights=f"file://{tmp_path}/store",
        )
        await publisher.close()

    asyncio.run(send_all())
    home, champion = asyncio.run(pull(kafka, tmp_path / "pulled"))
    assert (packed, True) == (checkpoint.load(home), champion)
    [stored] = (tmp_path / "store").iterdir()
    stored.write_bytes(b"x" + stored.read_bytes()[1:])
    with pytest.raises(CheckpointError, match="damaged"):
        asyncio.run(pull(kafka, tmp_path / "again"))


def test_chunks_without_a_manifest_are_not_seen(finished, tmp_path):
    """What a learner that was killed while it published has left behind is no checkpoint."""
    kafka = replace(finished.kafka, topic_prefix=f"{finished.kafka.topic_prefix}half.")
    create(kafka)

    async def send_chunk() -> None:
        publisher = Publisher(kafka)
        await publisher.publish([Message("model-checkpoints", b"abc/chunk/0", b"half", [])])
        await publisher.close()

    asyncio.run(send_chunk())
    assert ([], None) == asyncio.run(published(kafka))
    with pytest.raises(CheckpointError, match="names no champion"):
        asyncio.run(pull(kafka, tmp_path))


def test_a_rollback_is_told_on_the_topic(finished):
    """Who reads the topic finds the former champion named, and what it stands in for."""
    kafka = replace(finished.kafka, topic_prefix=f"{finished.kafka.topic_prefix}back.")
    create(kafka)
    tell_rollback(kafka, "bad", "good")
    consumer = KafkaConsumer(
        topic(kafka),
        bootstrap_servers=kafka.bootstrap_servers,
        auto_offset_reset="earliest",
        consumer_timeout_ms=10_000,
    )
    message = msgspec.json.decode(next(consumer).value)
    consumer.close()

    assert ("good", "bad") == (message["id"], message["instead_of"])
    assert ([], "good") == asyncio.run(published(kafka))


def test_what_was_rolled_back_before_it_was_sent_is_sent_as_no_champion(finished, tmp_path):
    """While brokers are away, as long as that takes, a rollback holds; the report is sent."""
    kafka = replace(finished.kafka, topic_prefix=f"{finished.kafka.topic_prefix}late.")
    create(kafka)
    learned = next(one for one in finished.learned() if "promoted" == one.report.decision)
    packed = checkpoint.load(finished.directory / "checkpoints" / learned.manifest.id)
    checkpoint.point(tmp_path, "parent")

    async def send_all() -> None:
        publisher = Publisher(kafka)
        lesson, end = Lesson(report=learned.report, alerts=[]), learned.manifest.window_end
        await publish(publisher, lesson, packed, end=end, checkpoints=tmp_path)
        await publisher.close()

    asyncio.run(send_all())
    everything, champion = asyncio.run(published(kafka))
    assert ([packed.manifest], None) == ([one.manifest for one in everything], champion)


def test_an_unknown_checkpoint_is_told(finished, tmp_path):
    """Who asks for what is not there learns what is."""
    known = finished.learned()[0].manifest.id
    with pytest.raises(CheckpointError, match=rf"no checkpoint abc; it holds {known}"):
        asyncio.run(pull(finished.kafka, tmp_path, "abc"))


def test_kill_9_changes_nothing(learners, tmp_path):
    """A learner killed in the midst of trainings learns the same, and publishes it whole."""
    for windows in range(WEEKS - 2):
        learners.start()
        learners.wait_for_windows(windows + 1)
        [child] = learners.training()
        learners.kill()
        learners.outlived(child)
        if asyncio.run(published(learners.kafka))[1]:  # it may die before the first one is named
            champion, _ = asyncio.run(pull(learners.kafka, tmp_path / f"pulled-{windows}"))
            assert champion.name == checkpoint.load(champion).manifest.id
    learners.start()
    learners.wait_for_windows(WEEKS - 1)
    reports = [learned.report for learned in learners.learned()]
    assert told(offline(learners, tmp_path / "offline", partitions=True)) == told(reports)


def test_an_erased_user_is_in_no_file_of_the_learner(learners):
    """Killed while it was asked for, too; the receipt names the checkpoints that saw the user."""
    values = np.array(learners.clicks.user.values)[learners.clicks.user.codes]
    users, times = np.unique(values, return_counts=True)
    gone = str(users[times.argmax()])
    learners.start()
    learners.wait_for_windows(2)
    [child] = learners.training()
    assert any(count for _, count in learner_traces(learners.directory, gone))
    asyncio.run(ask(learners.kafka, gone))
    learners.kill()
    learners.outlived(child)
    learners.start()

    async def answered() -> list[str] | None:
        erasures = Erasures(learners.kafka)
        await erasures.refresh()
        await erasures.close()
        receipt = erasures.receipts.get((gone, LEARNER))
        return None if receipt is None else receipt.checkpoints

    learners.wait(lambda: asyncio.run(answered()) is not None, "the learner's receipt")
    learners.wait_for_windows(WEEKS - 1)
    learners.wait(
        lambda: not any(count for _, count in learner_traces(learners.directory, gone)),
        "no trace is left",
    )
    made = [learned.manifest.id for learned in learners.learned() if learned.manifest]
    seen = asyncio.run(answered())
    assert made[:2] == seen[:2]  # a third may have been made that the kill kept from the bus


def test_what_was_learnt_is_not_learnt_again_because_it_could_not_be_published(learners):
    """Nor without a user who is to be erased meanwhile: the checkpoint that saw them comes out."""
    admin = KafkaAdminClient(bootstrap_servers=learners.kafka.bootstrap_servers)
    admin.delete_topics([topic(learners.kafka)])
    admin.close()
    gone = learners.clicks.user.values[0]
    learners.start()
    learners.wait(lambda: lessons(learners), "a lesson that cannot be published")
    [lesson] = lessons(learners)
    asyncio.run(ask(learners.kafka, gone))
    [child] = learners.training()
    learners.kill()
    learners.outlived(child)
    create(learners.kafka)
    learners.start()
    learners.wait_for_windows(WEEKS - 1)
    learned = learners.learned()
    assert WEEKS - 1 == len({one.report.window_end for one in learned}) == len(learned)
    assert lesson["report"]["checkpoint"] == learned[0].manifest.id
    learners.wait(lambda: not lessons(learners), "all lessons published")


def lessons(learners: Learners) -> list[dict]:
    """Return what the learner has yet to publish."""
    return [json.loads(path.read_text()) for path in learners.directory.glob("lesson-*.json")]


def test_consuming_goes_on_while_training_stands_still(learners):
    """With training frozen all clicks are consumed; the group has one member all the while."""
    learners.start()
    learners.wait(learners.training, "training process")
    [child] = learners.training()
    os.kill(child, signal.SIGSTOP)
    learners.wait(lambda: 0 == learners.lag(), "all clicks consumed")
    assert [] == learners.learned()
    os.kill(child, signal.SIGCONT)
    learners.wait_for_windows(WEEKS - 1)
    assert 1 == learners.joined()


def test_a_full_spool_holds_consuming_up(learners):
    """With one window allowed to wait, the agent waits too, stays in its group, and says why."""
    learners.start(**{"waiting": 1, "metrics-port": learners.port})
    learners.wait(learners.training, "training process")
    [child] = learners.training()
    os.kill(child, signal.SIGSTOP)
    spool = learners.directory / "windows"
    learners.wait(lambda: spool.exists() and list(spool.iterdir()), "a window waits")
    time.sleep(8)  # longer than a session lasts
    assert 1 == len(list(spool.iterdir()))
    assert 0 < learners.lag()
    status, why = learners.ask("readyz")
    assert (503, True) == (status, "training has fallen behind: clicks wait" in why)
    assert (200, "ok\n") == learners.ask("healthz")
    assert "driftline_learner_waiting 1.0" in learners.ask("metrics")[1]
    os.kill(child, signal.SIGCONT)
    learners.wait_for_windows(WEEKS - 1)
    learners.wait(lambda: 0 == learners.lag(), "all clicks consumed")
    assert 1 == learners.joined()
    learners.wait(lambda: (200, "ok\n") == learners.ask("readyz"), "nothing waits")
    assert 'driftline_learner_left_out_total{why="unusable"} 0.0' in learners.ask("metrics")[1]


def test_a_learner_that_waits_for_training_can_be_stopped(learners):
    """Told to stop while consuming waits for training, it ends in good order, and soon."""
    learners.start(waiting=1)
    learners.wait(learners.training, "training process")
    os.kill(learners.training()[0], signal.SIGSTOP)
    log = learners.home / "log"
    learners.wait(lambda: "consuming waits for it" in log.read_text(), "a second window waits")
    learners.process.terminate()
    assert 0 == learners.process.wait(STOP_SECONDS - 5)


def test_a_dead_training_process_stops_the_learner(learners):
    """A learner that cannot train any more ends, and says so; one that is stopped ends well."""
    learners.start()
    learners.wait(learners.training, "training process")
    os.kill(learners.training()[0], signal.SIGKILL)
    assert 0 != learners.process.wait(30)
    assert "the training process ended with exit code -9" in (learners.home / "log").read_text()
    learners.start()
    learners.wait(learners.training, "training process")
    [child] = learners.training()
    learners.process.terminate()
    assert 0 == learners.process.wait(30)
    learners.outlived(child)


def test_two_learners_do_not_share_a_directory(learners):
    """The second learner is refused, and told why."""
    learners.start()
    learners.wait(learners.training, "training process")
    first = learners.process
    learners.start()
    assert 0 != learners.process.wait(30)
    assert "another learner is at work" in (learners.home / "log").read_text()
    learners.process = first
