"""What a benchmark ran on, and where its figures go."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path("build/bench")
ONLINE_RETAIL = Path("../shared/data/online_retail/events.csv.gz")
DEMO = Path("build/bench/complete_journey.parquet")


def save(name: str, figures: dict[str, Any]) -> Path:
    """Write figures with the machine they were taken on, as JSON."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    path.write_text(json.dumps({"machine": machine, **figures}, indent=2) + "\n")
    return path


def inputs() -> dict[str, Path]:
    """Return the real events at hand, by name; Complete Journey is written where it is not yet."""
    from connectors.demo import demo_events  # noqa: PLC0415  only where it is needed

    if not DEMO.exists():
        DEMO.parent.mkdir(parents=True, exist_ok=True)
        demo_events(DEMO)
    found = {"complete_journey": DEMO}
    if ONLINE_RETAIL.exists():
        found["online_retail"] = ONLINE_RETAIL
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
