"""The learning stage on Kafka: `driftline learner`.

One learner reads all partitions of the click topic, in a consumer group of its own, and cuts them
into windows by event time (`pipeline.windows`). Training goes on in another process
(`training_process`), to which closed windows are handed through files (`spool`). When as many
windows wait as are allowed, the agent waits too, a member of its group with its heartbeats going;
nothing is dropped.

What survives a crash, and how: the clicks of windows that are still open are in memory only. When
windows close,

1. they are written to the spool,
2. then the state of the windows is written down: by partition, the position of the first click
   of the oldest window still open, and the newest event time before it.

A learner that starts sets the group's offsets to those positions before it joins, and so reads the
open windows again, just as before; a batch may therefore be acknowledged when the agent has taken
it into memory, and the group's lag shows how far the learner is behind. Every click is in one
window, once, or late. With an empty directory everything is read again from the beginning of the
topic. Which partition counts as idle (read to its end, and behind by more than a window) depends
on when its events arrive; all else does not depend on timing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faust
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError, UnknownMemberIdError
from msgspec.structs import replace

from connectors.kafka.consumer import Consumer
from connectors.kafka.decoding import decode_records
from connectors.kafka.erasures import Erasures, erase_when_asked
from connectors.kafka.learner_files import LearnerFiles
from connectors.kafka.learner_metrics import LearnerMetrics
from connectors.kafka.live_settings import Worker
from connectors.kafka.metadata import partitions
from connectors.kafka.metrics import Pulse, serve
from connectors.kafka.records import RecordBatch
from connectors.kafka.rekey import Origins
from connectors.kafka.security import client_config
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.training import Task, Training, check_address
from connectors.kafka.transport import batch_agent, batch_app
from connectors.summary import iso
from learners.signing import keys
from pipeline.settings import Settings
from pipeline.windows import Windows, WindowsState

WAITING = 4
"""Closed windows that wait for training, at most, the one that is being learnt included."""

_WEEK = 7 * 86_400.0
_RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


def run_learner(
    settings: Settings,
    kafka: Kafka,
    worker: Worker,
    directory: Path,
    *,
    weights: str = "",
    waiting: int = WAITING,
    metrics_port: int = 0,
) -> None:
    """Consume and learn until a signal stops the process; ends the process.

    Args:
        settings: of windows and learning.
        kafka: where the clicks are; the learner's group is named after `group`.
        worker: how to consume.
        directory: of the learner's state; the same one goes on.
        weights: an fsspec address for weights; empty sends them over the bus.
        waiting: closed windows that may wait for training.
        metrics_port: of /metrics, /healthz and /readyz on the loopback address; 0: nowhere.

    Raises:
        LearnerFilesError: the directory is of another learner, or one is at work in it, or a
            file in it is damaged.
        StateError: the learner's state is damaged.
        KeyFileError: a key file that the settings name is none.
        BusError: no broker answers, or the click topic is not what the directory was made from.
        SettingsError: see `security.client_config` and `training.check_address`.
    """
    check_address(weights)
    keys(settings.signing)  # which the training process is to read
    kafka = replace(kafka, group=f"{kafka.group}-learner")
    files = LearnerFiles(directory)
    with files.alone():
        topic = kafka.clicks
        files.check()
        state = files.progress(topic, settings.version)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        starts = loop.run_until_complete(rewind(kafka, topic, state))
        task = Task(settings=settings, kafka=kafka, directory=str(directory), weights=weights)
        training = Training(task, files.spool, limit=waiting)
        app = _app(kafka, worker, directory)
        gathering = Gathering(
            settings,
            topic=topic,
            files=files,
            windows=Windows(settings, state),
            training=training,
            starts=starts,
            erasures=Erasures(kafka),
        )
        loop.run_until_complete(gathering.erase())
        _attach(app, gathering, training)
        _tell(app, gathering, metrics_port)
        faust.Worker(
            app, loop=loop, loglevel="INFO", redirect_stdouts=False
        ).execute_from_commandline()


class Gathering:
    """Takes batches of records into windows, and hands over the windows that close."""

    def __init__(
        self,
        settings: Settings,
        *,
        topic: str,
        files: LearnerFiles,
        windows: Windows,
        training: Training,
        starts: dict[int, int],
        erasures: Erasures,
    ) -> None:
        """Go on with `windows`, each partition from its place in `starts`."""
        self.topic = topic
        self.windows = windows
        self.rejected = 0
        self._settings = settings
        self._files = files
        self._training = training
        self._ends = dict(starts)
        self._origins: dict[int, Origins] = {}
        self._erasures = erasures
        self._erased = files.erased()
        self._turn = asyncio.Lock()
        self._known: Mapping[int, int | None] = {}
        self.pulse = Pulse()
        self.metrics = LearnerMetrics(
            lag=self.lag,
            outcomes=lambda: {"late": self.windows.late, "unusable": self.rejected},
            waiting=lambda: training.waiting,
        )

    def lag(self) -> dict[str, int]:
        """Return how many records are to be read yet, by partition, as of the newest batch."""
        known = {at: end for at, end in self._known.items() if end is not None}
        return {
            f"{self.topic}/{at}": max(0, end - self._ends.get(at, 0)) for at, end in known.items()
        }

    def troubles(self) -> list[str]:
        """Say what does not go on, and why; empty where all goes on."""
        behind = ["training has fallen behind: clicks wait until a window is learnt"]
        return self.pulse.sickness() + behind * self._training.full

    async def take(self, batch: RecordBatch, ends: Mapping[int, int | None]) -> None:
        """Take a batch.

        Args:
            batch: of one partition.
            ends: of every partition the offset behind its last record, as far as is known.
        """
        self._known = ends
        async with self._turn:
            await self._take(batch, ends)

    async def erase(self) -> None:
        """Erase whoever was asked for since: from the open windows here, from all else elsewhere.

        Raises:
            BusError: no broker answers, or the topic of erasures is not there.
        """
        async with self._turn:
            await self._erasures.refresh()
            for at, request in self._erasures.since(self._erased):
                self.windows.forget(request.user)
                self._training.erase(request, at + 1)
            self._erased = self._erasures.next

    async def _take(self, batch: RecordBatch, ends: Mapping[int, int | None]) -> None:
        source = f"{batch.topic}/{batch.partition}"
        origins = self._origins.setdefault(batch.partition, Origins())
        records = origins.fresh(batch.topic, batch.records)
        clicks, rejects = decode_records(records, source, self._settings.source)
        self.rejected += len(rejects)
        self._ends[batch.partition] = max(batch.end, self._ends.get(batch.partition, 0))
        counting = self._erasures.counting(clicks, batch.partition)
        closed = self.windows.add(counting, self._read(ends))
        for window in closed:
            if self._training.full:
                log.warning("training has fallen behind: consuming waits for it")
            await self._training.hand_over(window)
            log.info(
                "window to %s closed: %d clicks; since the start %d late, %d unusable",
                iso(window.end),
                len(window.clicks),
                self.windows.late,
                self.rejected,
            )
        if closed:
            state = self.windows.state
            await asyncio.to_thread(self._files.save, self.topic, self._settings.version, state)

    def _read(self, ends: Mapping[int, int | None]) -> dict[str, bool]:
        """Tell of every partition whether it has been read to its end."""
        return {
            f"{self.topic}/{partition}": end is not None and self._ends.get(partition, 0) >= end
            for partition, end in ends.items()
        }


async def rewind(kafka: Kafka, topic: str, state: WindowsState) -> dict[int, int]:
    """Set the group's offsets to where the open windows begin; return them by partition.

    Waits until the group has no member: a learner that was killed counts as one for as long as
    its session lasts.

    Raises:
        BusError: no broker answers, the topic is not there, or it ends before the state.
    """
    consumer = Consumer(group_id=kafka.group, enable_auto_commit=False, **client_config(kafka))
    try:
        await consumer.start()
        everywhere = await partitions(kafka, topic)
        consumer.assign(everywhere)
        first = await consumer.beginning_offsets(everywhere)
        last = await consumer.end_offsets(everywhere)
        starts = {at: _start(state, at, first[at], last[at]) for at in everywhere}
        await _commit(consumer, starts)
    except KafkaError as error:
        raise kafka.failure(f"set offsets of {topic}", error) from error
    finally:
        await consumer.stop()
    return {at.partition: start for at, start in starts.items()}


def _start(state: WindowsState, at: TopicPartition, first: int, last: int) -> int:
    name = f"{at.topic}/{at.partition}"
    start = state.logs[name].position if name in state.logs else first
    if start > last:
        raise BusError(
            f"{name} ends at {last}, before {start}, where the learner was: the topic was made "
            "anew; name another directory to start anew"
        )
    if start < first:
        log.error("%s begins at %d: clicks from %d on were deleted unread", name, first, start)
    return max(start, first)


async def _commit(consumer: Any, starts: dict[TopicPartition, int]) -> None:
    told = False
    while True:
        try:
            await consumer.commit(starts)
        except (CommitFailedError, UnknownMemberIdError):
            if not told:
                log.warning("waiting for the former learner of this group to end")
            told = True
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


def _app(kafka: Kafka, worker: Worker, directory: Path) -> faust.App:
    return batch_app(
        kafka,
        datadir=directory / "faust",
        broker_commit_interval=worker.commit_interval / 1000,
        broker_session_timeout=worker.session_timeout / 1000,
        broker_heartbeat_interval=worker.session_timeout / 5000,
        broker_max_poll_records=worker.batch,
        broker_max_poll_interval=_WEEK,  # the agent may wait for training without being expelled
        stream_wait_empty=False,  # nor does a stop wait for that: what is not taken is read again
    )


def _attach(app: faust.App, gathering: Gathering, training: Training) -> None:
    @batch_agent(app, gathering.topic)
    async def gather(batch: RecordBatch) -> None:
        ours = [at for at in app.consumer.assignment() if at.topic == gathering.topic]
        client: Any = app.consumer  # that of `transport`
        await gathering.take(batch, {at.partition: client.end_of(at) for at in ours})

    @app.task  # type: ignore[untyped-decorator]  # Faust ships no types
    async def train() -> None:
        await training.run()

    @app.task  # type: ignore[untyped-decorator]
    async def erase() -> None:
        await erase_when_asked(app, gathering.erase)


def _tell(app: faust.App, gathering: Gathering, port: int) -> None:
    @app.task  # type: ignore[untyped-decorator]  # Faust ships no types
    async def tell() -> None:
        if port:
            told = {"/healthz": gathering.pulse.sickness, "/readyz": gathering.troubles}
            serve(port, gathering.metrics, told)
        while not app.should_stop:
            gathering.pulse.beat()
            await app.sleep(1.0)
