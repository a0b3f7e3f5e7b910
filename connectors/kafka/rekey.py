"""A click topic that is not keyed by user, sent on keyed by user.

Records travel as they are, but for their key and a header that says where they came from. A crash
sends some of them again: from each partition they were sent in order, so one whose place is not
beyond the furthest seen of its partition was sent before, and whoever reads passes over it
(`Origins`). So a click counts once, however often it was sent.
"""

from __future__ import annotations

import re

import msgspec
import numpy as np
from aiokafka.errors import KafkaError

from connectors.kafka.decoding import decode_records
from connectors.kafka.messages import fitting
from connectors.kafka.records import Headers, RecordBatch, Records
from connectors.kafka.sender import Sender, connect
from connectors.kafka.settings import BY_USER, BusError, Kafka
from pipeline.settings import Source

ORIGIN = "driftline-origin"
"""The header that says whence a record came: partition:offset."""
_ORIGIN = re.compile(rb"(\d{1,19}):(\d{1,19})")


class Rekeying:
    """Reads the click topic as received, and writes the one by user."""

    def __init__(self, source: Source, kafka: Kafka) -> None:
        self._source = source
        self._kafka = kafka
        self._sender: Sender | None = None

    async def handle(self, batch: RecordBatch) -> None:
        """Send a batch on; when this returns, the brokers have all of it.

        A record whose user cannot be told keeps its key: it becomes a dead letter where it is read.

        Raises:
            BusError: the topic by user is not there, or does not take a record.
        """
        sender = self._sender = self._sender or await connect(self._kafka, self._kafka.clicks)
        records = batch.records
        clicks, _ = decode_records(records, batch.topic, self._source)
        rows = np.searchsorted(records.offsets, clicks.position).tolist()
        users = [clicks.user.values[code].encode() for code in clicks.user.codes.tolist()]
        keys = dict(zip(rows, users, strict=True))
        try:
            told = zip(records.offsets.tolist(), records.keys, records.values, strict=True)
            for row, (offset, key, value) in enumerate(told):
                fitted, further = fitting(key, value)
                origin = (ORIGIN, b"%d:%d" % (batch.partition, offset))
                own = [header for header in records.headers.get(row, ()) if header[0] != ORIGIN]
                headers = [*own, *further, origin]
                await sender.send(keys.get(row, key), fitted, headers)
            await sender.finish()
        except KafkaError as error:
            raise BusError(f"{self._kafka.clicks} did not take what was sent: {error}") from error

    async def close(self) -> None:
        """Disconnect."""
        if self._sender:
            await self._sender.close()


class Origins(msgspec.Struct, kw_only=True):
    """How far a reader of one partition by user has seen each partition behind it."""

    newest: dict[int, int] = {}
    """The offset of the newest record seen, by the partition that it came from."""
    repeated: int = 0
    """Records passed over."""

    def fresh(self, topic: str, records: Records) -> Records:
        """Leave out records that were sent before; those of other topics are all fresh."""
        if not topic.endswith(BY_USER):
            return records
        told = ((row, records.headers.get(row, ())) for row in range(len(records)))
        return records.take([row for row, headers in told if self._is_fresh(headers)])

    def _is_fresh(self, headers: Headers) -> bool:
        told = next((value or b"" for name, value in headers if name == ORIGIN), b"")
        place = _ORIGIN.fullmatch(told)
        if place is None:
            return True
        partition, offset = map(int, place.groups())
        if offset <= self.newest.get(partition, -1):
            self.repeated += 1
            return False
        self.newest[partition] = offset
        return True
