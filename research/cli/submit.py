"""The command `research submit`: check experiments and queue them with sbatch."""

from __future__ import annotations

import argparse

HELP = "check experiments and queue them with sbatch"
PARSER = {
    "usage": "research submit [--script SCRIPT] [sbatch options] EXPERIMENT... [key=value ...]",
    "prefix_chars": "\0",  # no argument begins with it: options are sbatch's
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*")


def run(options: argparse.Namespace) -> int:
    """Check an experiment and queue it."""
    from research.cluster.submit import submit
    from research.training.preflight import refuse_wrong_experiment

    return submit(options.arguments, refuse_wrong_experiment)
