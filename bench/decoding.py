"""Events a second from bytes to validated clicks: python bench/decoding.py [FILE...].

Figures are of CPU time, so that a busy machine tells on them less; they are the best of three.
"""

from __future__ import annotations

import gzip
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from connectors.files import read
from connectors.wire import decode_clicks
from pipeline.settings import Source

EVENTS = 500_000
BATCH = 8192
SETTINGS = Source()


def synthetic(count: int) -> list[dict[str, object]]:
    """Make clicks of about 110 bytes each in JSON."""
    draw = random.Random(7)  # noqa: S311  no secret
    return [
        {
            "user_id": f"user-{draw.randrange(50_000)}",
            "item_id": f"item-{draw.randrange(20_000)}",
            "event_type": "view",
            "timestamp": 1_700_000_000_000 + 40 * index,
            "category": f"home/light-{draw.randrange(300)}",
            "session_id": f"session-{index // 9}",
        }
        for index in range(count)
    ]


def best(name: str, work: Callable[[], int]) -> None:
    """Time the work, which returns its number of events, and print the rate."""
    rates = []
    for _ in range(3):
        start = time.process_time()
        count = work()
        rates.append(count / (time.process_time() - start))
    print(f"{name:32} {count:>10,} events {max(rates):>12,.0f}/s")


def from_file(path: Path) -> int:
    """Read a file; return the events, the rejects among them."""
    return sum(len(clicks) + len(rejects) for clicks, rejects in read([path], SETTINGS))


def from_bytes(records: list[bytes]) -> int:
    """Decode JSON in batches; return the events."""
    count = 0
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        clicks, _ = decode_clicks(batch, np.arange(start, start + len(batch)), "b-0", SETTINGS)
        count += len(clicks)
    return count


def main(paths: list[str]) -> None:
    """Measure synthetic clicks in every form, then the files named."""
    events = synthetic(EVENTS)
    records = [msgspec.json.encode(event) for event in events]
    table = "\n".join([",".join(events[0]), *(",".join(map(str, e.values())) for e in events)])
    del events  # half a million objects would slow down every run of the garbage collector
    print(
        f"bytes an event: JSON {sum(map(len, records)) / EVENTS:.0f}, CSV {len(table) / EVENTS:.0f}"
    )
    best("JSON bytes", lambda: from_bytes(records))
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (
            ("clicks.csv", table.encode()),
            ("clicks.csv.gz", gzip.compress(table.encode(), 6)),
            ("quoted.csv", table.replace(",", '","').replace("\n", '"\n"').join('""').encode()),
            ("clicks.jsonl", b"\n".join(records)),
        ):
            path = Path(folder, name)
            path.write_bytes(data)
            best(name, lambda path=path: from_file(path))
    for name in paths:
        best(name[-32:], lambda path=Path(name): from_file(path))


if __name__ == "__main__":
    main(sys.argv[1:])
