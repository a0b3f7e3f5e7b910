"""`make soak`: a cluster, workers and a learner under a seeded plan of failures; then the oracle.

    python -m bench.soak --kills 200 --seed 7

The exit code is 1 where anything was lost or counted twice.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from bench.soak.run import Soak, run


def main() -> int:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, help="repeats a run's plan; default: drawn")
    parser.add_argument("--brokers", type=int, choices=[1, 3], default=3)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--no-learner", action="store_true")
    parser.add_argument("--rate", type=int, default=400, help="clicks a second")
    parser.add_argument("--dir", type=Path, help="kept, with all logs; default: a temporary one")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}")
    soak = Soak(
        seed=seed,
        kills=options.kills,
        brokers=options.brokers,
        workers=options.workers,
        learner=not options.no_learner,
        rate=options.rate,
    )
    if options.dir:
        options.dir.mkdir(parents=True)
        return _told(soak, options.dir)
    with tempfile.TemporaryDirectory() as home:
        return _told(soak, Path(home))


def _told(soak: Soak, home: Path) -> int:
    result = run(soak, home, tell=print)
    for line in result.lines():
        print(line)
    return 1 if result.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
