"""A consumer that can be stopped while brokers are away."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

_LOOKS = 5
_WAIT_MS = 500


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """aiokafka's, but for how it stops."""

    async def stop(self) -> None:
        """Disconnect.

        Where a fetch waits for its next attempt, aiokafka cancels it, and lets that out as the
        cancellation of whoever stops the consumer, which stays connected.
        """
        fetcher = self._fetcher
        if fetcher:
            fetcher._fetch_task.cancel()  # noqa: SLF001  or it would begin others
            await asyncio.wait([fetcher._fetch_task])  # noqa: SLF001
            fetching = fetcher._pending_tasks  # noqa: SLF001
            for task in fetching:
                task.cancel()
            if fetching:
                await asyncio.wait(fetching)
            fetching.clear()
        await super().stop()

    async def is_at_end(self, at: TopicPartition, offset: int, end: int) -> bool:
        """Tell whether no record lies from an offset to an end, but marks of transactions may.

        It takes the consumer to that partition, and is for one that commits nothing.
        """
        if offset < end:
            self.assign([at])
            self.seek(at, offset)
            for _ in range(_LOOKS):
                if (await self.getmany(at, timeout_ms=_WAIT_MS)).get(at):
                    return False
                if await self.position(at) >= end:
                    return True
        return offset >= end
