"""Users who leave, are erased while things go wrong, and in part come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from bench.soak.traffic import Traffic
from connectors.kafka.erasures import LEARNER, LOOK_SECONDS, Erasures, Request, ask
from connectors.kafka.messages import PROFILES
from connectors.kafka.settings import BusError, Kafka
from connectors.state_files import found
from connectors.store import Store, StoreError
from connectors.traces import learner_traces

_PATIENCE = 300.0
_CLEAN_SECONDS = 10 * LOOK_SECONDS
_POLL_SECONDS = 1.0


class Erasing:
    """Asks for users to be erased, and knows what has to be the case in the end.

    A worker erases whatever it has of a user, clicks from after the request, too. So that there is
    one right outcome whenever it does, a user leaves, is read to the end, asked for, and clicks
    again only when all partitions have answered.
    """

    def __init__(self, kafka: Kafka, traffic: Traffic, read: Callable[[], None]) -> None:
        """Know how to wait until the workers have `read` what is on the click topic by now."""
        self._kafka = kafka
        self._traffic = traffic
        self._read = read
        self._gone: dict[str, Request] = {}
        self.asked: list[Request] = []

    def erase(self, user: str) -> None:
        """Have a user leave and ask for them to be erased, unless they are gone already."""
        if user in self._gone:
            return
        self._traffic.leave(user)
        self._read()
        self._gone[user] = asyncio.run(ask(self._kafka, user))
        self.asked.append(self._gone[user])

    def welcome_back(self) -> None:
        """Let every other user whom the workers have erased click again."""
        for request in self.asked[1::2]:
            with suppress(BusError):
                if self._gone.get(request.user) is request and not self._lacking(request):
                    del self._gone[request.user]
                    self._traffic.come_back(request.user)

    def settle(self, disks: list[Path], *, learner: bool) -> None:
        """Wait, not for ever, until all have answered and workers have seen to their disks."""
        _wait(lambda: not any(self._lacking(r, learner=learner) for r in self._away), _PATIENCE)
        _wait(lambda: not any(self._stored(disks, read_only=True)), _CLEAN_SECONDS)

    def traces(
        self, disks: list[Path], profiles: Mapping[bytes, bytes | None], learner: Path | None
    ) -> list[str]:
        """Say where somebody is left who should not be, once nothing runs any more.

        Args:
            disks: of all workers.
            profiles: the newest by user, as the topic has them.
            learner: its directory, where there is one.
        """
        told = list(self._stored(disks))
        for request in self._away:
            user = request.user
            told += [f"{who} has not answered for {user}" for who in self._lacking(request)]
            if profiles.get(user.encode()) is not None:
                told.append(f"{PROFILES} has {user}")
            if learner is not None:
                found = learner_traces(learner, user)
                told += [f"{place} has {user}" for place, count in found if count]
        return told

    @property
    def _away(self) -> list[Request]:
        return list(self._gone.values())

    def _stored(self, disks: list[Path], *, read_only: bool = False) -> Iterator[str]:
        users = list(self._gone)
        for path in (store for disk in disks for store in found(disk)):
            with Store(path, read_only=read_only) as store:
                for user, state in zip(users, store.load(users), strict=True):
                    if state is not None:
                        yield f"{path} has {user}"

    def _lacking(self, request: Request, *, learner: bool = False) -> list[str]:
        """Return who has not answered yet."""
        return asyncio.run(_answers_lacking(self._kafka, request, learner=learner))


def _wait(done: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(BusError, StoreError):
            if done():
                return
        time.sleep(_POLL_SECONDS)


async def _answers_lacking(kafka: Kafka, request: Request, *, learner: bool) -> list[str]:
    """Return which partitions have not answered a request, and whether the learner has not."""
    erasures = Erasures(kafka)
    try:
        await erasures.refresh()
    finally:
        await erasures.close()
    answer = erasures.receipts.get((request.user, LEARNER))
    unlearnt = learner and (answer is None or answer.asked < request.asked)
    return erasures.missing(request) + [LEARNER] * unlearnt
