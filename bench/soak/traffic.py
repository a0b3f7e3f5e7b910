"""Clicks of known content, sent at an even pace while things go wrong."""

from __future__ import annotations

import asyncio
import json
import queue
import random
import threading
from collections.abc import Iterator

from aiokafka import AIOKafkaProducer

from connectors.kafka.security import client_config
from connectors.kafka.settings import Kafka

HOUR = 3_600_000
_START = 1_000_000_000_000
"""Early enough for clicks of days to stay in the past: those of the future would be rejected."""
_PACE = 0.05
_POISON, _TWICE, _LATE = 0.002, 0.02, 0.01
"""Shares of clicks that are no clicks, come twice, or come days too late."""
_INTERESTS = (("cat/toy", "cat/food"), ("dog/toy", "fish"), ("book/novel", "book/comic"))


def clicks(seed: int, users: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values without end: users who drift, late events, duplicates, poison.

    Every fifth user is away for ten days out of twenty, and others forget who that was.
    """
    chance = random.Random(seed)  # noqa: S311  no secret
    step = 0
    while True:
        for number in range(users):
            if number % 5 == 0 and step // 80 % 2:
                continue
            interest = _INTERESTS[(number + step // 40 * (number % 2)) % len(_INTERESTS)]
            category = chance.choice(interest)
            time = _START + step * 3 * HOUR + chance.randrange(HOUR)
            user = f"user-{number}"
            row = {
                "user_id": user,
                "item_id": f"{category}-{chance.randrange(9)}",
                "category": category,
                "timestamp": time,
                "event_id": f"{number}/{step}",
            }
            poison, twice, late = (chance.random() < p for p in (_POISON, _TWICE, _LATE))
            value = b"{" if poison else json.dumps(row).encode()
            yield user.encode(), value
            if twice:
                yield user.encode(), value
            if late:
                old = {"timestamp": time - 96 * HOUR, "event_id": f"late {number}/{step}"}
                yield user.encode(), json.dumps(row | old).encode()
        step += 1


class Traffic:
    """Sends clicks from a thread of its own, each acknowledged by all replicas in sync."""

    def __init__(self, kafka: Kafka, *, seed: int, users: int, rate: int, until: int) -> None:
        """Send at `rate` a second until told to stop, but `until` clicks at least."""
        self._kafka = kafka
        self._source = clicks(seed, users)
        self._rate = rate
        self._until = until
        self._stopping = threading.Event()
        self._leaving: queue.SimpleQueue[tuple[str, threading.Event]] = queue.SimpleQueue()
        self._away: set[str] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)
        self.sent = 0
        self.failed: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def leave(self, user: str) -> None:
        """Have a user click no more; what they clicked is on the bus when this returns."""
        left = threading.Event()
        self._leaving.put((user, left))
        while not left.wait(_PACE) and not self.failed:
            pass

    def come_back(self, user: str) -> None:
        """Have a user click again."""
        self._away.discard(user)

    def stop(self) -> None:
        """Finish: all that was sent is on the bus.

        Raises:
            RuntimeError: the brokers did not take everything.
        """
        self._stopping.set()
        self._thread.join()
        if self.failed:
            raise RuntimeError("the clicks could not be sent") from self.failed

    async def _send(self) -> None:
        config = client_config(self._kafka) | {"request_timeout_ms": 120_000}
        topic = self._kafka.topic_prefix + self._kafka.clicks_topic
        try:
            async with AIOKafkaProducer(acks="all", enable_idempotence=True, **config) as producer:
                waiting: set[asyncio.Future[object]] = set()
                while not self._stopping.is_set() or self.sent < self._until:
                    for _ in range(max(1, round(self._rate * _PACE))):
                        key, value = next(self._source)
                        if key.decode() not in self._away:
                            waiting.add(await producer.send(topic, value, key))
                            self.sent += 1
                    while not self._leaving.empty():
                        user, left = self._leaving.get()
                        self._away.add(user)
                        await asyncio.gather(*waiting)
                        left.set()
                    await asyncio.sleep(_PACE if not self._stopping.is_set() else 0)
                    for done in [future for future in waiting if future.done()]:
                        done.result()
                        waiting.discard(done)
                await asyncio.gather(*waiting)
        except BaseException as error:  # noqa: BLE001  told by `stop`
            self.failed = error
