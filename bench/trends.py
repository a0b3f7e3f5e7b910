"""How well category forecasts cover, and how far off they are beside naive ones.

    python -m bench.trends [--events FILE]

Every window is forecast from the windows before it alone, as `driftline replay` does it. "Naive"
repeats the newest window, "seasonal naive" that of a week ago for windows of a day and that of a
year ago for windows of a week; errors are summed over categories and windows and divided.
online_retail has no categories: it is taken by item, and by the first three characters of the
item's code, which name a range of products.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from msgspec import to_builtins
from msgspec.structs import replace as with_fields

from bench.machine import inputs, save
from connectors.files import read
from pipeline.engine import Engine
from pipeline.events import Clicks, Column
from pipeline.hindsight import Hindsight, hindsight
from pipeline.rollups import Rollup
from pipeline.settings import Duration, Settings, Source
from pipeline.trends import Trends

RANGE = 3
"""Characters of an item's code that name a range of products."""
FEW = 10
"""Events of a category in a window from which it is forecast, for items and for days."""


def batches(path: Path, *, by_range: bool) -> Iterator[Clicks]:
    """Read a file's events, where asked with a category made of the item's code."""
    for batch, _ in read([path], Source()):
        if by_range:
            ranges = Column([name[:RANGE] for name in batch.item.values], batch.item.codes)
            yield replace(batch, category=ranges)
        else:
            yield batch


def rollups(clicks: Iterator[Clicks], settings: Settings) -> list[Rollup]:
    """Return all windows of a log."""
    engine = Engine(settings)
    closed = [rollup for batch in clicks for rollup in engine.process(batch).rollups]
    return closed + engine.drain()


def measure(windows: list[Rollup], settings: Settings) -> list[Hindsight]:
    """Forecast window after window, and hold that against what came."""
    trends = Trends(settings)
    forecasts = [forecast for window in windows for forecast in trends.add(window).forecasts]
    return hindsight(forecasts, windows)


def settings_of(window: str, *, by_item: bool) -> Settings:
    """Return settings for windows of a length."""
    settings = Settings()
    least = FEW if by_item or window == "1d" else settings.trends.minimum_events
    trends = with_fields(settings.trends, window=Duration.parse(window), minimum_events=least)
    return with_fields(settings, trends=trends)


def _cell(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:9.6g}"


def main() -> None:
    """Print a table a data set and window."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path, help="a file that `driftline replay` reads")
    arguments = parser.parse_args()
    chosen = {arguments.events.name: arguments.events} if arguments.events else inputs()
    figures = {}
    for name, path in chosen.items():
        uncategorised = name == "online_retail"
        for by_range in (True, False) if uncategorised else (False,):
            for window in ("7d", "1d"):
                label = f"{name}{', ranges' if by_range else ''}, {window}"
                settings = settings_of(window, by_item=uncategorised and not by_range)
                found = measure(rollups(batches(path, by_range=by_range), settings), settings)
                figures[label] = to_builtins(found)
                print(f"{label}: ahead, intervals, coverage, width, to naive, to seasonal naive")
                for row in found:
                    print(" ", *(_cell(value) for value in to_builtins(row).values()))
    print(f"written to {save('trends', figures)}")


if __name__ == "__main__":
    main()
