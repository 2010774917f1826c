"""The command `research ensemble`: the mean of several runs' probabilities, from their predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "the mean of several runs' probabilities, from their predictions; weights by validation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="run", help="run folders, or folders that hold them")
    parser.add_argument("--uniform", action="store_true", help="all members alike, none left out")
    parser.add_argument("--metric", help="default: the score that chose the checkpoints")
    parser.add_argument("--output", metavar="DIR", help="folder for the ensemble's predictions")


def run(options: argparse.Namespace) -> int:
    """Average the probabilities of runs; print what it gains."""
    from research.report.ensemble import ensemble_of, ensemble_text, write_ensemble
    from research.report.records import read_records

    found = ensemble_of(read_records(options.runs), options.metric, options.uniform)
    if options.output:
        write_ensemble(found, Path(options.output))
    print(ensemble_text(found))
    return 0
