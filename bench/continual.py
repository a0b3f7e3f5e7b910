"""The continual learner over real weeks, beside the recommenders that never train.

    python -m bench.continual [--events FILE] [--periods 16] [--strategy NAME ...] [--seeds 5]
                              [--first 0] [--thin 1] [--device cpu]
    python -m bench.continual --contributions

Each window is evaluated with the learner as it stood before, then learnt from, by the code that
`replay` and the live learner run. A file in ADER's layout (`period,session_id,item_id`) is taken
by its periods: every session prefix asked, full ranking over the items seen so far, new items
dropped from the test sessions, sequences cut at 50, ties against the target.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from bench.chart import chart, page
from bench.machine import RESULTS, save
from bench.weekly import is_periods, windows
from learners import strategies
from learners.continual import Learner
from pipeline.settings import Learning, Settings, load
from pipeline.windows import Window

ADER = Path("../shared/data/ader_diginetica/periods.csv.gz")
ADER_SETTINGS = Path(__file__).with_name("ader.toml")
PUBLISHED = {
    "finetune": (47.28, 16.01),
    "dropout": (49.07, 16.86),
    "EWC": (47.66, 16.28),
    "joint": (50.03, 17.31),
    "ADER": (50.21, 17.32),
}
"""Of ADER's table: Recall@20 and MRR@20 in per cent, mean of the 16 updates."""

EVERYTHING, NOTHING = "replay+ewc+distill", "finetune"
WITH_ONE = {"replay": "replay", "ewc": "ewc", "distill": "distill"}
WITHOUT_ONE = {"replay": "ewc", "ewc": "distill", "distill": "replay+ewc"}
"""By part of the recipe: strategies. Distillation has something to replay, or does nothing."""
CONTRIBUTIONS = list(
    dict.fromkeys([NOTHING, *WITH_ONE.values(), *WITHOUT_ONE.values(), EVERYTHING])
)

_SLICED = ("model", "blend", "knn")
_SLICES = ("cold_inclusive", "repeat_free")
_FIGURES = ("recall@20", "mrr@20", "ndcg@10")

Reports = list[dict[str, Any]]


def by_recommender(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the figures of a window by recommender; its slices under names of their own."""
    found: dict[str, dict[str, float]] = {"model": {name: report[name] for name in _FIGURES}}
    found |= {name: report[name] for name in ("blend", "knn", "markov", "personal", "popularity")}
    for name in _SLICED:
        start = "" if name == "model" else f"{name}_"
        for part in _SLICES:
            found[f"{name}, {part.replace('_', '-')}"] = report[start + part]
    return found


def run(weeks: list[Window], settings: Settings, name: str) -> Reports:
    """Learn window after window, as a strategy has it; print a line a window."""
    learning = strategies.named(name, settings.learning)
    learner = Learner(
        replace(settings, learning=learning), recipe=strategies.recipe(name, learning)
    )
    reports: Reports = []
    for number, week in enumerate(weeks):
        began = time.perf_counter()
        report = msgspec.to_builtins(learner.learn(week))
        report["seconds"] = round(time.perf_counter() - began, 3)
        reports.append(report)
        figures = by_recommender(report)
        told = "  ".join(
            f"{who} {100 * figures[who]['recall@20']:.2f}/{100 * figures[who]['mrr@20']:.2f}"
            for who in _SLICED
        )
        print(
            f"  {number:>3}  {told}  {report['decision']}, "
            f"{report['training_seconds']:.0f} s of training, {report['seconds']:.0f} s in all",
            flush=True,
        )
    return reports


def means(reports: Reports) -> dict[str, dict[str, float]]:
    """Average over the windows that were evaluated: by recommender, by figure."""
    judged = [by_recommender(report) for report in reports if report["evaluated"]]
    return {
        who: {name: float(np.mean([week[who][name] for week in judged])) for name in _FIGURES}
        for who in judged[0]
    }


def table(runs: list[Reports]) -> list[str]:
    """Return a strategy's table: mean over the windows, and spread over the seeds."""
    found = [means(reports) for reports in runs]
    lines = [f"{'':24}" + "".join(f"{name:>18}" for name in _FIGURES)]
    for who in found[0]:
        cells = []
        for name in _FIGURES:
            values = [100 * seed[who][name] for seed in found]
            cells.append(f"{np.mean(values):>10.2f} ± {np.std(values):.2f}")
        lines.append(f"{who:24}" + "".join(f"{cell:>18}" for cell in cells))
    return lines


def forgetting(runs: list[Reports]) -> list[str]:
    """Return two lines: what was learnt of windows while new, and what came of it by the end."""
    lines = []
    for title, of in (("learnt when new", _learnt), ("backward transfer", _transferred)):
        found = [of(reports) for reports in runs]
        cells = [
            f"{100 * np.mean(values):>10.2f} ± {100 * np.std(values):.2f}"
            for values in zip(*found, strict=True)
        ]
        lines.append(f"{title:24}" + "".join(f"{cell:>18}" for cell in cells))
    return lines


def _learnt(reports: Reports) -> list[float]:
    held = [r["retention"]["learnt"] for r in reports if r["retention"]["learnt"]]
    return [float(np.mean([figures[name] for figures in held])) for name in _FIGURES]


def _transferred(reports: Reports) -> list[float]:
    found = reports[-1]["retention"]["backward_transfer"]
    return [found[name] if found else 0.0 for name in _FIGURES]


def costs(runs: list[Reports]) -> dict[str, float]:
    """Return what a strategy took: seconds of training in all, bytes remembered at the end."""
    return {
        "training_seconds": float(
            np.mean([sum(r["training_seconds"] for r in run) for run in runs])
        ),
        "buffer_bytes": float(np.mean([run[-1]["buffer_bytes"] for run in runs])),
        "counts_bytes": float(np.mean([run[-1]["counts_bytes"] for run in runs])),
    }


def drawing(found: dict[str, list[Reports]]) -> str:
    """Draw each figure by window: the first strategy's recommenders, then each one's model."""

    def line(runs: list[Reports], who: str, name: str) -> list[float | None]:
        weeks = list(zip(*runs, strict=True))
        return [
            float(np.mean([by_recommender(r)[who][name] for r in week]))
            if week[0]["evaluated"]
            else None
            for week in weeks
        ]

    first, runs = next(iter(found.items()))
    charts = []
    for name in ("recall@20", "mrr@20"):
        whom = ("blend", "model", "knn", "markov", "personal", "popularity")
        lines = {who: line(runs, who, name) for who in whom}
        charts.append(chart(f"{name}, strategy {first}", lines, "window"))
    if len(found) > 1:
        charts += [
            chart(
                f"{name} of the model by strategy",
                {strategy: line(of, "model", name) for strategy, of in found.items()},
                "window",
            )
            for name in ("recall@20", "mrr@20")
        ]
    return page(charts)


def contributions(found: dict[str, list[Reports]]) -> list[str]:
    """Return a table of what each part gives the model, beside nothing and beside all others."""

    def score(strategy: str) -> dict[str, float]:
        runs = [means(reports)["model"] for reports in found[strategy]]
        return {name: 100 * float(np.mean([run[name] for run in runs])) for name in _FIGURES}

    def difference(one: str, other: str) -> str:
        told = [f"{score(one)[name] - score(other)[name]:+.2f}" for name in _FIGURES]
        return " / ".join(told)

    lines = [f"{'':10}{'on alone':>24}{'on beside the others':>24}   {' / '.join(_FIGURES)}"]
    for part, alone in WITH_ONE.items():
        beside = difference(EVERYTHING, WITHOUT_ONE[part])
        lines.append(f"{part:10}{difference(alone, NOTHING):>24}{beside:>24}")
    return lines


def _thinned(learning: Learning, thin: int) -> Learning:
    """Return the settings for one of `thin` users: the buffer holds the same share of them."""
    return replace(learning, replay_capacity=learning.replay_capacity // thin)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, default=ADER, help="a file that `replay` reads")
    parser.add_argument("--periods", type=int, default=0, help="windows after the first; 0: all")
    parser.add_argument(
        "--strategy", nargs="+", default=["default"], help=", ".join(strategies.NAMES)
    )
    parser.add_argument(
        "--contributions", action="store_true", help="what each part of the recipe gives the model"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--thin", type=int, default=1, help="take one of so many users or sessions")
    parser.add_argument("--settings", type=Path, help="a TOML file")
    parser.add_argument("--device", default="cpu", help="of torch, for the model: cpu, cuda, …")
    parser.add_argument("--name", default="continual", help="of the files written")
    arguments = parser.parse_args()
    if not arguments.events.exists():
        parser.error(f"{arguments.events} is not there: name a file of events with --events")
    return arguments


def main() -> None:
    """Run strategies and seeds; print, keep and draw the figures."""
    arguments = _arguments()
    ader = is_periods(arguments.events)
    settings = load(arguments.settings or (ADER_SETTINGS if ader else None))
    learning = replace(settings.learning, device=arguments.device)
    settings = replace(settings, learning=_thinned(learning, arguments.thin))
    most = arguments.periods and arguments.periods + 1
    weeks = windows(arguments.events, settings, most, arguments.thin)
    print(f"{arguments.events}: {len(weeks)} windows, settings {settings.version}")
    found: dict[str, list[Reports]] = {}
    for name in CONTRIBUTIONS if arguments.contributions else arguments.strategy:
        found[name] = []
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            print(f"{name}, seed {seed}")
            found[name].append(run(weeks, replace(settings, seed=seed), name))
    for name, runs in found.items():
        spent = costs(runs)
        judged = sum(report["evaluated"] > 0 for report in runs[0])
        print(f"\n{name}: mean of {judged} windows, {len(runs)} seeds, per cent")
        print("\n".join(table(runs)))
        print("model, on sequences held from training:")
        print("\n".join(forgetting(runs)))
        print(
            f"{spent['training_seconds']:.0f} s of training; replay buffer "
            f"{spent['buffer_bytes']:,.0f} bytes, counts {spent['counts_bytes']:,.0f} bytes"
        )
    if arguments.contributions:
        print("\nwhat each part gives the model, per cent")
        print("\n".join(contributions(found)))
    if ader:
        told = ", ".join(f"{name} {r:.2f}/{m:.2f}" for name, (r, m) in PUBLISHED.items())
        print(f"\npublished (recall@20/mrr@20): {told}")
    summary = {
        name: {"means": [means(run) for run in runs], "costs": costs(runs), "windows": runs}
        for name, runs in found.items()
    }
    print(f"written to {save(arguments.name, {'settings': settings.version, **summary})}")
    picture = RESULTS / f"{arguments.name}.svg"
    picture.write_text(drawing(found))
    print(f"drawn in {picture}")


if __name__ == "__main__":
    main()
