"""A worker that writes down what it reads: one line a batch, with every record's value."""

import argparse
import asyncio
import json
import os
import time
from pathlib import Path

import faust
import msgspec

from connectors.kafka.records import RecordBatch
from connectors.kafka.settings import Kafka
from connectors.kafka.transport import batch_agent, batch_app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kafka", help="settings as JSON")
    parser.add_argument("ledger", type=Path)
    parser.add_argument("topics", nargs="+")
    parser.add_argument("--seconds-per-batch", type=float, default=0.0)
    parser.add_argument("--commit-interval", type=float, default=0.5)
    parser.add_argument("--fail-at", default="")
    parser.add_argument("--records", type=int, default=500)
    options = parser.parse_args()
    kafka = msgspec.json.decode(options.kafka, type=Kafka)
    app = batch_app(
        kafka,
        datadir=options.ledger.parent / "faust",
        broker_commit_interval=options.commit_interval,
        broker_max_poll_records=options.records,
        broker_session_timeout=3.0,
        broker_heartbeat_interval=0.5,
    )
    ledger = os.open(options.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def note(batch: RecordBatch) -> None:
        began = time.monotonic()
        await asyncio.sleep(options.seconds_per_batch)
        values = [value.decode() for value in batch.records.values]
        if options.fail_at in values:
            raise RuntimeError(options.fail_at)
        line = {"topic": batch.topic, "partition": batch.partition, "values": values}
        line |= {"offsets": batch.records.offsets.tolist(), "lag": batch.lag}
        line |= {"began": began, "ended": time.monotonic()}
        os.write(ledger, json.dumps(line).encode() + b"\n")

    for topic in options.topics:
        batch_agent(app, topic)(note)
    faust.Worker(app, loglevel="INFO", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
