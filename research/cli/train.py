"""The command `research train`: fit, validate and test an experiment; on a folder it began, resume it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from research.cli.ranks import in_ranks
from research.common.errors import UserError

if TYPE_CHECKING:
    from research.cluster.group import RankGroup

HELP = "fit, validate and test an experiment; on a folder it began, resume it"
IS_RESUMABLE = True  # stopped at any moment, the same command resumes it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", help="its YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides, as in optim.lr=3e-5; more experiments"
    )
    parser.add_argument(
        "--task", type=int, metavar="N", help="of all experiments, folds and seeds the N-th alone, from 0"
    )


def run(options: argparse.Namespace) -> int:
    """Train as one of the ranks there are, or start as many as the experiment asks for."""
    from research.config.several_runs import load_all
    from research.training.preflight import refuse_wrong_arguments

    experiments = load_all([options.experiment, *options.overrides])
    if options.task is not None:
        every = [config for configs in experiments for config in configs]
        if not 0 <= options.task < len(every):
            raise UserError(f"--task {options.task}: these experiments, folds and seeds are 0 to {len(every) - 1}.")
        experiments = [[every[options.task]]]
    for configs in experiments:
        for config in configs:
            refuse_wrong_arguments(config)

    def train_each(module: Any, group: RankGroup) -> int:
        for configs in experiments:
            for config in configs:
                code: int = module.train(config, group)
                if code != 0:
                    return code
            if len(configs) > 1 and group.world.rank == 0:
                from research.common.console import console
                from research.report.several_runs import summary_of
                from research.tracking.run import Run

                console.print(summary_of([Run.read(str(config.run_dir)) for config in configs]), markup=False)
        return 0

    return in_ranks(options, experiments[0][0].trainer, "research.training.run", train_each)
