"""The process that trains, apart from the one that consumes.

It is told what to do, and tells what it has done, in lines of text: its first line of input is a
`Task` in JSON, each further one the end of a window that lies in the spool, or `Work` in JSON, a
user to be erased; its output is the end of each window that is learnt for good. Everything else
that is printed goes to standard error.

A window is learnt in this order:

1. The learner evaluates, trains, writes the checkpoint and its own new state.
2. The new state is recorded as the one to start from, and with it what there is to publish.
3. Weights, alerts, manifest, champion are acknowledged by the brokers, in this order.
4. The former state and the window are deleted.

A crash before 2 repeats the window from the state before, with the same checkpoint id; one after
it repeats the publishing alone, before anything else, so that no window is learnt twice.

The process ends at once when its input does: when the consuming process has died.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from io import FileIO
from pathlib import Path
from queue import SimpleQueue

import msgspec
from aiokafka.errors import KafkaError

from connectors.kafka.checkpoints import publish
from connectors.kafka.erasures import LEARNER, Receipt, encode
from connectors.kafka.learner_files import LearnerFiles
from connectors.kafka.publisher import Publisher
from connectors.kafka.settings import BusError
from connectors.kafka.training import Task, Work, decode_task
from connectors.learning import LearningStage, Lesson
from learners import checkpoint

PATIENCE = 5.0
"""Seconds between two attempts to publish."""

NICENESS = 5
"""Training yields the processor to whoever consumes on the same machine."""

log = logging.getLogger(__name__)


def main() -> None:
    """Learn windows as they are named on standard input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the consuming process stops us
    told = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    os.nice(NICENESS)
    # Unbuffered: Python aborts where a thread still waits for a buffered input as it ends.
    given = os.fdopen(0, "rb", buffering=0, closefd=False)
    task = decode_task(given.readline())
    lines: SimpleQueue[int | Work] = SimpleQueue()
    threading.Thread(target=_listen, args=(given, lines), daemon=True).start()
    files = LearnerFiles(Path(task.directory))
    with checkpoint.locked(files.directory / "training.lock"):  # one may be left over, still ending
        learning = LearningStage(task.settings, files.directory, files.learnt())
        _publish(task, files)
        while True:
            work = lines.get()
            if isinstance(work, Work):
                _erase(task, files, learning, work)
            else:
                _learn(task, files, learning, work)
                told.write(b"%d\n" % work)


def _learn(task: Task, files: LearnerFiles, learning: LearningStage, end: int) -> None:
    lesson = learning.learn(files.spool.get(end))  # 1
    if lesson is not None:
        files.record(learning.state, msgspec.json.encode(lesson))  # 2
        _publish(task, files)  # 3
        report = lesson.report
        log.info(
            "window to %s: %s, %s; recall@20 before it %.4f",
            report.window_end,
            report.decision,
            report.reason,
            report.recall,
        )
        learning.forget_former()  # 4
    files.spool.remove(end)


def _erase(task: Task, files: LearnerFiles, learning: LearningStage, work: Work) -> None:
    """Erase a user. A crash anywhere repeats all of it, and gives the same receipt."""
    request = work.request
    seen = learning.seen_by(request.user)
    receipt = Receipt(user=request.user, asked=request.asked, by=LEARNER, checkpoints=seen)
    files.spool.forget(request.user)  # 1
    learning.erase(request.user)  # 2
    asyncio.run(_persist(task, lambda publisher: publisher.publish([encode(receipt)])))  # 3
    learning.erase_trace(request.user)  # 4
    files.record_erased(work.offset)  # 5
    log.info("a user was erased whom %d checkpoints have seen", len(seen))


def _publish(task: Task, files: LearnerFiles) -> None:
    """Publish what was learnt last, if that has yet to be done."""
    unpublished = files.unpublished()
    if unpublished is None:
        return
    lesson = msgspec.json.decode(unpublished, type=Lesson)
    name, home = lesson.report.checkpoint, files.directory / "checkpoints"
    packed = checkpoint.load(home / name) if name else None
    end = int(files.learnt())

    async def say(publisher: Publisher) -> None:
        await publish(publisher, lesson, packed, end=end, checkpoints=home, weights=task.weights)

    asyncio.run(_persist(task, say))
    files.record_published()


async def _persist(task: Task, say: Callable[[Publisher], Awaitable[None]]) -> None:
    """Publish, as often as it takes: what was done is not thrown away for a broker's sake."""
    while True:
        publisher = Publisher(task.kafka)
        try:
            await say(publisher)
        except (BusError, KafkaError, OSError) as error:
            log.warning("cannot publish what was done, trying again: %s", error)
            await asyncio.sleep(PATIENCE)
        else:
            return
        finally:
            await publisher.close()


def _listen(given: FileIO, lines: SimpleQueue[int | Work]) -> None:
    for line in given:
        lines.put(msgspec.json.decode(line, type=int | Work))
    os._exit(0)  # in the midst of training, too: the window is trained again


if __name__ == "__main__":
    main()
