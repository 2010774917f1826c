"""The command `research select`: which rows of a pool to label next."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "choose the rows of a pool of new text that are worth labelling next (active learning)"
STRATEGIES = ("entropy", "margin", "badge", "coreset", "random")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="run", help="run folder")
    parser.add_argument("--input", required=True, metavar="POOL", help="file of unlabelled rows")
    parser.add_argument("--budget", required=True, type=int, metavar="N", help="rows to choose")
    parser.add_argument("--strategy", choices=STRATEGIES, default="entropy")
    parser.add_argument("--seed", type=int, default=0, help="of random and badge")
    parser.add_argument("--output", required=True, metavar="FILE", help="JSONL file to write, the first to label first")


def run(options: argparse.Namespace) -> int:
    """Write the rows to label next."""
    from research.common.errors import UserError
    from research.common.process import prepare_process
    from research.inference.finished_run import refuse_prediction
    from research.tracking.run import Run

    if options.budget < 1:
        raise UserError(f"--budget {options.budget} must be at least 1.")
    finished = Run.read(options.run_dir)
    refuse_prediction(finished, options.input)
    prepare_process()
    from research.inference.select import select

    output = Path(options.output)
    count = select(finished, options.input, options.budget, options.strategy, output, options.seed)
    print(f"{count} rows to label written to {output}")
    return 0
