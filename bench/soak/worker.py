"""`driftline worker`, or a build of it with a planted fault, which the oracle has to catch."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from connectors.cli import app
from connectors.kafka.changelog import Changelog
from connectors.kafka.interest_stage import InterestStage
from connectors.kafka.messages import ALERTS, Message
from connectors.kafka.publisher import Publisher
from pipeline.engine import Effects, Engine
from pipeline.events import Clicks


def committed_before_alerts() -> None:
    """Make states durable before their alerts are, and be killed once in between."""
    publish, handle = Publisher.publish, InterestStage.handle
    held: list[Message] = []

    async def hold(_: Publisher, messages: Iterable[Message]) -> None:
        held.extend(messages)

    async def handle_and_publish(stage: InterestStage, batch: Any) -> None:
        await handle(stage, batch)
        for partition in list(stage._partitions.values()):  # noqa: SLF001  the fault is inside
            async with partition.turn:
                await partition.flush()
                await partition.written()
        if any(message.topic == ALERTS for message in held):
            _fall_once(Path(stage._worker.data, "fallen"))  # noqa: SLF001
        await publish(stage._publisher, held)  # noqa: SLF001
        held.clear()

    Publisher.publish = hold
    InterestStage.handle = handle_and_publish


def _fall_once(mark: Path) -> None:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def applied_twice() -> None:
    """Apply one click of each tenth batch again, as if its stamp had been forgotten."""
    process = Engine.process
    seen = 0

    def twice(engine: Engine, clicks: Clicks) -> Effects:
        nonlocal seen
        seen += 1
        effects = process(engine, clicks)
        if seen % 10 == 0 and len(clicks):
            again = clicks.take(slice(len(clicks) - 1, len(clicks)))
            again.event_id[:] = 0
            engine.progress.position -= 1
            engine._hot.array["position"] -= 1  # noqa: SLF001  the fault is inside
            process(engine, again)
        return effects

    Engine.process = twice


def record_dropped() -> None:
    """Leave the first state of each flush out of the changelog."""
    write = Changelog.write

    async def incomplete(log: Changelog, items: Iterable[Any], messages: Any) -> int:
        return await write(log, list(items)[1:], messages)

    Changelog.write = incomplete


def user_kept() -> None:
    """Say of users that they are erased, and keep them."""

    def keep(_: Engine, __: str) -> None:
        pass

    Engine.erase = keep


FAULTS: dict[str, Callable[[], None]] = {
    "committed before alerts": committed_before_alerts,
    "applied twice": applied_twice,
    "record dropped": record_dropped,
    "user kept": user_kept,
    "": lambda: None,
}


def main() -> None:
    """Run a worker."""
    parser = argparse.ArgumentParser(prog="bench.soak.worker", description=__doc__)
    parser.add_argument("--fault", choices=list(FAULTS), default="")
    parser.add_argument("--settings", required=True)
    options = parser.parse_args()
    FAULTS[options.fault]()
    app(["worker", "--settings", options.settings])


if __name__ == "__main__":
    main()
