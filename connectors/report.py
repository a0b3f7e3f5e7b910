"""The backtest's page: one HTML file that opens anywhere, without a network."""

from __future__ import annotations

import re
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from connectors.report_page import figures
from connectors.run_files import read_lines
from connectors.segment_files import FLOWS_FILE, read_flows
from pipeline.events import AlertKind, CategoryForecast, DriftAlert

SCRIPTS = ("base.js", "charts.js", "alerts.js", "page.js")
READS = ("summary.json", "alerts.jsonl", "forecasts.jsonl", "metrics.jsonl", "rejects.jsonl")


def write_report(directory: Path) -> Path:
    """Write `report.html` beside the results of a backtest, and return its path.

    Whatever the backtest did not produce (no learning, no alerts) is said on the page.

    Raises:
        FileNotFoundError: none of a backtest's files is there.
        RunError: a line of one of them cannot be read; the message names it.
    """
    if not any((directory / name).exists() for name in READS):
        raise FileNotFoundError(
            f"{directory} holds none of {', '.join(READS)}: "
            f"run `driftline replay FILE... --out {directory}` first"
        )
    page = directory / "report.html"
    page.write_text(_page(report_data(directory)), encoding="utf-8")
    return page


def report_data(directory: Path) -> dict[str, Any]:
    """Return all that the page shows, as JSON-ready lists and dicts (`report_page.figures`)."""
    alerts = partial(read_lines, directory / "alerts.jsonl", DriftAlert)
    windows = list(read_lines(directory / "metrics.jsonl", dict[str, Any]))
    summary = next(read_lines(directory / "summary.json", dict[str, Any]), {})
    starts = figures.window_starts(summary, windows, alerts())
    shifts = [alert for alert in alerts() if alert.kind == AlertKind.POPULATION_SHIFT]
    return {
        "summary": {
            key: value for key, value in summary.items() if key not in {"trends", "forecasts"}
        },
        "starts": starts,
        "metrics": figures.metrics(windows),
        "retention": figures.retention(windows),
        "alerts_by_window": figures.alerts_by_window(alerts(), starts),
        "flows": figures.flows(alerts),
        "trends": figures.trends(
            summary,
            alerts(),
            starts,
            read_lines(directory / "forecasts.jsonl", CategoryForecast),
        ),
        "segments": figures.segments(read_flows(directory) if _has_flows(directory) else []),
        "hindsight": summary.get("forecasts", []),
        "alerts": figures.alert_list(alerts(), shifts),
        "rejects": figures.rejects(read_lines(directory / "rejects.jsonl", dict[str, Any])),
    }


def _has_flows(directory: Path) -> bool:
    return (directory / FLOWS_FILE).exists()


def _page(data: dict[str, Any]) -> str:
    files = resources.files("connectors.report_page")
    parts = {
        "style": files.joinpath("style.css").read_text("utf-8"),
        "script": "\n".join(files.joinpath(name).read_text("utf-8") for name in SCRIPTS),
        # A browser ends a script at `</script`, wherever it stands: no `<` may reach it.
        "data": msgspec.json.encode(data).decode().replace("<", "\\u003c"),
    }
    template = files.joinpath("page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda name: parts[name[1]], template)
