"""The command `research sweep`: be one worker of a search: start as many as you like."""

from __future__ import annotations

import argparse

from research.cli.ranks import in_ranks
from research.common.errors import UserError

HELP = "be one worker of a search: start as many as you like"
IS_RESUMABLE = True  # stopped at any moment, the same command resumes it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", help="the sweep's YAML file or folder; `status SWEEP` prints the progress of a search")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as in budget.trials=50")
    parser.add_argument(
        "--resume-anyway", action="store_true", help="continue with the trials of a space that has grown"
    )


def run(options: argparse.Namespace) -> int:
    """Be a worker of a search, of as many ranks as its experiment asks for, or print the progress of the search."""
    if options.sweep == "status":
        return print_status(options.overrides)
    from research.sweep.space import read_sweep
    from research.sweep.study import refuse_another_search
    from research.sweep.sweepfile import searched_config
    from research.training.preflight import refuse_wrong_experiment

    search, anyway = read_sweep(options.sweep, options.overrides), options.resume_anyway
    config = searched_config(search)
    refuse_wrong_experiment(config)
    refuse_another_search(search, config, anyway)
    return in_ranks(
        options, config.trainer, "research.sweep.worker", lambda module, group: module.work(search, group, anyway)
    )


def print_status(arguments: list[str]) -> int:
    """Print the trials of a search and when its end is to be expected."""
    if not arguments:
        raise UserError("research sweep status needs the sweep: its YAML file or its folder.")
    from research.sweep.sweepfile import load_sweep

    searched = load_sweep(arguments[0], arguments[1:])
    from research.sweep.study import read_search
    from research.sweep.trials_table import report

    report(read_search(searched))
    return 0
