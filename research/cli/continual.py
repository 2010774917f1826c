"""The command `research continual`: tasks one after the other by several strategies."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.common.process import prepare_process

HELP = "tasks one after the other by several strategies: a run a cell, matrices, figure, report"
IS_RESUMABLE = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sequence", help="YAML file with tasks, strategies, orders and seeds")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of every cell, as in optim.lr=3e-5")


def run(options: argparse.Namespace) -> int:
    """Learn the tasks of a sequence; print what each strategy keeps of the earlier ones."""
    prepare_process()
    from research.common.files import short_path
    from research.continual.learn import learn
    from research.continual.report import write_report
    from research.continual.sequence import read_sequence
    from research.training.chain import Stopped

    sequence = read_sequence(Path(options.sequence))
    try:
        print(write_report(learn(sequence, options.overrides), sequence.output))
    except Stopped as stopped:
        return stopped.code
    print(f"report: {short_path(sequence.output / 'continual.md')}")
    return 0
