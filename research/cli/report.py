"""The command `research report`: tables, figures, tests, checklist and page from recorded runs."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from research.common.errors import UserError

HELP = "tables, figures, tests, checklist and page from recorded runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="run", help="run folders, or folders that hold them")
    parser.add_argument("--output", metavar="DIR", help="folder to write")
    parser.add_argument("--by", nargs="+", metavar="KEY", help="config keys that name the systems")
    parser.add_argument("--metric", help="score of the tables; default: the one that chose the checkpoints")
    parser.add_argument("--wandb", action="store_true", help="save the report as a draft at Weights & Biases too")
    parser.add_argument("--check", metavar="DIR", help="does a report still follow from its runs?")


def run(options: argparse.Namespace) -> int:
    """Make a report, or check one; exit code 1 where its numbers no longer follow from its runs."""
    if options.check:
        if options.runs or options.output:
            raise UserError("--check takes the folder of a report alone; its manifest names the runs.")
        from research.report.build import check

        return check(Path(options.check))
    if not options.runs or not options.output:
        raise UserError("Name runs and a folder to write: research report RUNS... --output paper/")
    from research.report.build import build

    gc.set_threshold(100_000, 20, 50)  # records are many objects that stay: looking through them was 8 % of the time
    build(options.runs, Path(options.output), by=options.by, metric=options.metric, publish=options.wandb)
    return 0
