"""The command `research self-train`: rounds of training on the labels that the round before gave unlabelled texts."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.common.errors import UserError
from research.common.process import prepare_process

HELP = "rounds of training on pseudo-labels: each learns unlabelled texts as the round before labelled them"
IS_RESUMABLE = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", help="YAML file with data.unlabelled and methods.pseudo_labels")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of every round, as in seed=1")
    parser.add_argument(
        "--rounds", type=int, default=2, metavar="N", help="after the first, which has no pseudo-labels"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the rounds")


def run(options: argparse.Namespace) -> int:
    """Train each round; print their scores."""
    if options.rounds < 1:
        raise UserError(f"--rounds {options.rounds} must be at least 1.")
    prepare_process()
    from research.rounds.self_training import self_train, table_of
    from research.training.chain import Stopped

    try:
        rounds = self_train(
            Path(options.experiment), options.overrides, Path(options.output).absolute(), options.rounds
        )
    except Stopped as stopped:
        return stopped.code
    print(table_of(rounds))
    return 0
