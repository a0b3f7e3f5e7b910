"""`driftline learner` as a process of its own."""

import typer

from connectors.kafka.learner_commands import register

if __name__ == "__main__":
    app = typer.Typer()
    register(app)
    app()
