"""The command `research sync`: send offline W&B runs, again and again until they are complete there."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "send offline W&B runs, again and again until they are complete there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="run", help="run folder")
    parser.add_argument("--timeout-seconds", type=float, default=600.0, help="for one attempt at one run")
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4, help="runs sent at the same time")
    parser.add_argument("--live", action="store_true", help="send while the run is still writing")


def run(options: argparse.Namespace) -> int:
    """Send offline W&B runs; exit code 1 unless all have arrived."""
    from research.tracking.sync import has_arrived, sync

    outcomes = sync(
        [Path(run) for run in options.runs],
        timeout_seconds=options.timeout_seconds,
        attempts=options.attempts,
        workers=options.workers,
        live=options.live,
    )
    for run, outcome in outcomes.items():
        print(f"{run}: {outcome}")
    return 0 if all(map(has_arrived, outcomes.values())) else 1
