"""What got slower: the figures of one run of the benchmarks beside those of an earlier one.

python -m bench.compare EARLIER [LATER]     (directories of JSON; LATER: build/bench)

A figure's name says which way is better: rates and ratios should rise, times and sizes fall.
Figures that say neither (counts, goals) are left out. Exits with 1 where something got worse by
more than the tolerance; where the machines differ, it says so first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.machine import RESULTS

RISING = ("per_second", "per_cpu_second", "ratio", "recall", "mrr", "f1", "precision")
FALLING = ("seconds", "_ms", "_ns", "_us", "_gib", "_mib", "bytes", "delay", "false_alarms")
TOLERANCE = 0.1


def figures(directory: Path) -> dict[str, float]:
    """Return the figures of every file by name; repeats become their median.

    Raises:
        FileNotFoundError: there are none.
    """
    found = {
        f"{path.stem}.{name}": value
        for path in sorted(directory.glob("*.json"))
        for name, value in _flat(json.loads(path.read_bytes()))
    }
    if not found:
        raise FileNotFoundError(f"{directory} holds no figures: `make bench` writes some")
    return found


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and all(_is_number(one) for one in value):
        yield name, statistics.median(value)
    elif _is_number(value):
        yield name, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def direction(name: str) -> int:
    """Return 1 where a figure should rise, -1 where it should fall, 0 where neither is known.

    >>> direction("interest.online_retail.events_per_second"), direction("live.p99_ms")
    (1, -1)
    """
    last = name.lower()
    if "goal" in last or "target" in last or last.startswith("machine"):
        return 0
    if any(word in last for word in RISING):
        return 1
    return -1 if any(word in last for word in FALLING) else 0


def change(name: str, before: float, after: float) -> float:
    """Return by which share a figure got better (above 0) or worse (below)."""
    if not before:
        return 0.0
    return direction(name) * (after - before) / abs(before)


def machines(directory: Path) -> set[str]:
    """Return the processors that figures were taken on."""
    read = (json.loads(path.read_bytes()) for path in directory.glob("*.json"))
    return {str(one.get("machine", {}).get("processor", "not told")) for one in read}


def main() -> None:
    """Print a line a figure, the worst first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("earlier", type=Path)
    parser.add_argument("later", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    given = parser.parse_args()
    before, after = figures(given.earlier), figures(given.later)
    if machines(given.earlier) != machines(given.later):
        print(f"taken on {machines(given.earlier)} and on {machines(given.later)}")
    shared = [name for name in before if name in after and direction(name)]
    changes = {name: change(name, before[name], after[name]) for name in shared}
    for name in sorted(shared, key=changes.__getitem__):
        flag = "WORSE" if changes[name] < -given.tolerance else ""
        print(f"{changes[name]:+8.1%}  {before[name]:>14,.4g} {after[name]:>14,.4g}  {name} {flag}")
    worse = sum(value < -given.tolerance for value in changes.values())
    print(f"{worse} of {len(shared)} figures got worse by more than {given.tolerance:.0%}")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
