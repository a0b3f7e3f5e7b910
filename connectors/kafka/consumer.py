"""A consumer that can be stopped while brokers are away."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer


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
