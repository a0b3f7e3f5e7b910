"""Speed and memory of the interest stage in replay: decoding, states in RocksDB, alerts.

python -m bench.interest [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.machine import inputs, save

TARGET = 60_000
MOST_MEMORY = 1.0


def measure(events: Path, prior: Path) -> tuple[float, float, float]:
    """Replay once in a process of its own.

    Returns:
        Events a second of the stage, events a CPU second of the whole process, peak GiB.
    """
    out = Path(tempfile.mkdtemp(prefix="driftline-bench-"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [Path(sys.executable).with_name("driftline"), "replay", events, "--no-learning"]
    command += ["--prior", prior, "--out", out / "run"]
    code = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL,"
        " stderr=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(  # noqa: S603  our own command
        [sys.executable, "-c", code, *map(str, command)],
        check=True,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    summary = json.loads((out / "run" / "summary.json").read_text())
    shutil.rmtree(out)
    return (
        summary["interest_events_per_second"],
        summary["events"] / seconds,
        int(done.stdout) / 2**20,
    )


def calibrated(events: Path) -> Path:
    """Make the prior that a user would take, from the same events."""
    prior = Path(f"build/bench/{events.name}.prior.json")
    if not prior.exists():
        driftline = Path(sys.executable).with_name("driftline")
        subprocess.run(  # noqa: S603  our own command
            [driftline, "calibrate", events, "--to", prior], check=True, capture_output=True
        )
    return prior


def main() -> None:
    """Print a line a data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    figures = {}
    print(f"interest stage in replay, learning off; {repeats} repeats: min, median, max")
    for name, events in inputs().items():
        prior = calibrated(events)
        runs = [measure(events, prior) for _ in range(repeats)]
        speed, core, memory = ([run[i] for run in runs] for i in range(3))
        figures[name] = {"events_per_second": speed, "per_cpu_second": core, "peak_gib": memory}
        print(
            f"  {name:18} {min(speed):>9,.0f} {statistics.median(speed):>9,.0f} "
            f"{max(speed):>9,.0f} events/s of the stage (target {TARGET:,}); "
            f"{statistics.median(core):,.0f} per CPU second of the whole process, start-up and "
            f"report included; peak {max(memory):.2f} GiB (target < {MOST_MEMORY} GiB)"
        )
    print(f"  written to {save('interest', figures)}")


if __name__ == "__main__":
    main()
