"""The interest stage on the bus: clicks in, alerts, profiles, rollups and dead letters out."""

from __future__ import annotations

from pathlib import Path

from faust.types import TP

from connectors.kafka.metrics import Metrics
from connectors.kafka.partitions import Partition
from connectors.kafka.publisher import Publisher
from connectors.kafka.settings import Kafka
from connectors.kafka.transport import RecordBatch, Span
from connectors.prior_file import load_prior
from pipeline.river_drift import OURS
from pipeline.settings import Settings, SettingsError


class InterestStage:
    """The partitions of the click topic that are this worker's at present."""

    def __init__(self, settings: Settings, kafka: Kafka, data: Path, *, hot_users: int) -> None:
        if settings.drift.detector != OURS:
            raise SettingsError(
                f"drift.detector = {settings.drift.detector!r}: a worker has {OURS} alone; "
                "River's detectors are for `driftline replay`"
            )
        self._settings = settings
        self._data = data
        self._hot_users = hot_users
        self._prior = load_prior(settings.drift.prior)
        self._publisher = Publisher(kafka)
        self._partitions: dict[TP, Partition] = {}
        self.metrics = Metrics(lambda: list(self._partitions.values()))

    def begin(self, span: Span) -> int:
        """Open a partition's state where it is not open, and say where to read on.

        Raises:
            StoreError: the store cannot be opened.
            BusError: the store belongs to another topic of that name.
        """
        tp = TP(span.topic, span.partition)
        if tp not in self._partitions:
            self._partitions[tp] = Partition(
                self._data / f"{span.topic}-{span.partition}",
                f"{span.topic}/{span.partition}",
                self._settings,
                self._prior,
                capacity=self._hot_users,
            )
        return self._partitions[tp].begin(span)

    async def handle(self, batch: RecordBatch) -> None:
        """Deal with a batch. A crash anywhere repeats what follows, and loses nothing.

        1. Decode, and 2. apply to the states in memory.
        3. Publish, and wait until the brokers have it for good.
        4. Make the states durable, and with them the offset to go on at.
        5. Return: the offset may be committed.
        """
        partition = self._partitions[TP(batch.topic, batch.partition)]
        messages = await partition.apply(batch)
        await self._publisher.publish(messages)
        partition.commit()

    def release(self, revoked: set[TP]) -> None:
        """Close the states of partitions that go elsewhere."""
        for tp in revoked & self._partitions.keys():
            self._partitions.pop(tp).close()

    async def close(self) -> None:
        """Close all states, and disconnect."""
        self.release(set(self._partitions))
        await self._publisher.close()
