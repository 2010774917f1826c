"""The command `research evaluate`: score a finished run again."""

from __future__ import annotations

import argparse
import sys

from research.cli.arguments import add_trust
from research.common.process import prepare_process

HELP = "score a finished run again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="run", help="run folder")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--logits", action="store_true", help="of train: keep them in the run, for methods.distil")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Score a finished run again, and print its scores."""
    from research.inference.finished_run import refuse_evaluation
    from research.tracking.run import Run

    run = Run.read(options.run_dir)
    refuse_evaluation(run, options.split)
    prepare_process()
    from research.common.console import print_scores
    from research.inference.evaluate import evaluate
    from research.metrics import score_labels
    from research.training.finish import worth

    scores = evaluate(run, options.split, options.trust_remote_code, options.logits)
    lowest, warning = worth(run, options.split)
    print_scores({options.split: scores}, score_labels((run.result or {}).get("metric")), lowest)
    if warning is not None:
        print(warning, file=sys.stderr)
    return 0
