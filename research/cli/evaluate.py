"""The command `research evaluate`: score a finished run again."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from research.cli.arguments import add_trust
from research.common.process import prepare_process

if TYPE_CHECKING:
    from research.tracking.run import Run

HELP = "score a finished run again, or on a labelled file of its own"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="run", help="run folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="how to read FILE: data.columns.text=body")
    parser.add_argument("--split", choices=("train", "validation", "test"), help="of the run's data; default: test")
    parser.add_argument("--input", metavar="FILE", help="score labelled rows of another file; the run is left as it is")
    parser.add_argument("--output", metavar="FILE", help="predictions on --input: .parquet, .jsonl or .csv")
    parser.add_argument("--logits", action="store_true", help="of train: keep them in the run, for methods.distil")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Score a finished run, and print its scores."""
    from research.common.errors import UserError
    from research.inference.finished_run import refuse_evaluation, refuse_prediction
    from research.tracking.run import Run

    run = Run.read(options.run_dir)
    if options.input is not None:
        if options.split or options.logits:
            raise UserError("--input takes the place of the run's data: leave --split and --logits out.")
        refuse_prediction(run, options.input)
        return score_file(run, options)
    if options.output or options.overrides:
        raise UserError("--output and key=value go with --input FILE.")
    split = options.split or "test"
    refuse_evaluation(run, split)
    prepare_process()
    from research.common.console import print_scores
    from research.inference.evaluate import evaluate
    from research.metrics import score_labels
    from research.training.finish import worth

    scores = evaluate(run, split, options.trust_remote_code, options.logits)
    lowest, warning = worth(run, split)
    print_scores({split: scores}, score_labels((run.result or {}).get("metric")), lowest)
    if warning is not None:
        print(warning, file=sys.stderr)
    return 0


def score_file(run: Run, options: argparse.Namespace) -> int:
    """Print the scores on a labelled file with their intervals over its examples."""
    prepare_process()
    from pathlib import Path

    from research.common.console import console, print_scores
    from research.common.text import counted
    from research.inference.evaluate import evaluate_file
    from research.inference.outputs import writer_of
    from research.metrics import score_labels
    from research.report.statistics.one_table import intervals

    write = writer_of(options.output, (), False) if options.output else None
    table, scores = evaluate_file(run, options.input, options.overrides, options.trust_remote_code)
    found = intervals(table, run.config.data.cluster)
    limits = {"95 % from": {name: each.low for name, each in found.items()},
              "to": {name: each.high for name, each in found.items()}}  # fmt: skip
    print_scores({Path(options.input).name: scores}, score_labels((run.result or {}).get("metric")), limits)
    over = next((each.over for each in found.values()), "examples")
    console.print(f"{counted(table.num_rows, 'example')}; intervals over {over}.")
    if write is not None:
        write(table)
        console.print(f"Predictions: {options.output}")
    return 0
