"""The command `research compare`: is A better than B: difference, interval, tests, power."""

from __future__ import annotations

import argparse

from research.common.errors import UserError

HELP = "is A better than B: difference, interval, tests, power"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="run", help="runs of A: run folders, or folders that hold them")
    parser.add_argument("--against", nargs="+", required=True, metavar="RUN", help="runs of B, one system or several")
    parser.add_argument("--metric", help="default: the score that chose the checkpoints")
    parser.add_argument("--split", choices=("validation", "test"), help="default: test where there is one")
    parser.add_argument("--correct", choices=("holm", "bh", "none"), default="holm", help="for several comparisons")
    parser.add_argument("--resamples", type=int, default=10_000)


def run(options: argparse.Namespace) -> int:
    """Print what two sets of runs allow to say of each other."""
    if options.resamples < 100:
        raise UserError(f"--resamples {options.resamples} is too few for a test; take at least 100.")
    from research.report.compare import compare_runs, comparison_text
    from research.report.records import read_records

    asked = {"metric": options.metric, "split": options.split, "resamples": options.resamples}
    found = compare_runs(read_records(options.runs), read_records(options.against), correction=options.correct, **asked)
    print(comparison_text(found))
    return 0
