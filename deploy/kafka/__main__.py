"""Start and stop brokers on this machine: `make kafka`.

    python -m deploy.kafka start --brokers 3
    python -m deploy.kafka stop
    python -m deploy.kafka status    # how many run, and where
    python -m deploy.kafka fetch     # takes the jars only, as before going offline

They run from Maven's jars (`cluster`) or, without Java or Maven, in a container (`container`).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from deploy.kafka.cluster import ClusterError, fetch_jars
from deploy.kafka.container import broker


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deploy.kafka", description=__doc__)
    parser.add_argument("command", choices=["start", "stop", "status", "fetch"])
    parser.add_argument("--brokers", type=int, choices=[1, 3], help="how many (default 1)")
    parser.add_argument("--port", type=int, default=9092, help="of the first broker")
    parser.add_argument("--dir", type=Path, default=Path("build/kafka/local"), help="data and logs")
    return parser


def main() -> str | None:
    """Run the command line; a returned text is an error."""
    options = _parser().parse_args()
    try:
        if options.command == "fetch":
            fetch_jars()
            return None
        memory = options.dir / "cluster.json"
        known = len(json.loads(memory.read_text("utf-8"))) if memory.exists() else 1
        brokers = options.brokers or known
        cluster = broker(options.dir, brokers=brokers, port=options.port)
        if options.command == "start":
            cluster.start()
        elif options.command == "stop":
            cluster.stop()
        running = cluster.running()
    except ClusterError as error:
        return str(error)
    state = "at " + cluster.bootstrap if running else f"in {options.dir}"
    sys.stdout.write(f"{running} of {brokers} brokers running {state}\n")
    return None


if __name__ == "__main__":
    sys.exit(main())
