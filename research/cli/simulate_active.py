"""The command `research simulate-active`: what a strategy of choosing what to label next would have gained."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.cli.select import STRATEGIES
from research.common.errors import UserError
from research.common.process import prepare_process

HELP = "learning curves of strategies that choose what to label next, on labelled data"
IS_RESUMABLE = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", help="its YAML file, whose training data are the pool")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of every round, as in optim.max_steps=200")
    parser.add_argument("--start", required=True, type=int, metavar="N", help="examples labelled at first, at random")
    parser.add_argument("--budget", required=True, type=int, metavar="N", help="examples that a round labels")
    parser.add_argument("--rounds", required=True, type=int, metavar="N", help="rounds after the first sample")
    parser.add_argument(
        "--strategy", action="append", choices=STRATEGIES, dest="strategies", help="may be given several times; "
        "random goes beside them; default: all"
    )  # fmt: skip
    parser.add_argument("--seeds", default="0..2", metavar="0..2", help="the seeds, as in 0,1,2 or 0..2")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the runs and the report")


def run(options: argparse.Namespace) -> int:
    """Draw the curves; print the table."""
    from research.config.several_runs import SEVERAL, numbers_of

    for name in ("start", "budget", "rounds"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} must be at least 1.")
    if not (SEVERAL.fullmatch(options.seeds) or options.seeds.isdecimal()):
        raise UserError(f"--seeds {options.seeds} must be numbers, as in 0,1,2 or 0..2.")
    prepare_process()
    from research.common.files import short_path
    from research.rounds.active import RANDOM, Simulation, simulate
    from research.rounds.active_report import write_report
    from research.training.chain import Stopped

    simulation = Simulation(
        experiment=Path(options.experiment),
        overrides=tuple(options.overrides),
        output=Path(options.output).absolute(),
        strategies=tuple(dict.fromkeys([RANDOM, *(options.strategies or STRATEGIES)])),
        seeds=tuple(numbers_of(options.seeds, "--seeds")),
        start=options.start,
        budget=options.budget,
        rounds=options.rounds,
    )
    try:
        score, curves = simulate(simulation)
    except Stopped as stopped:
        return stopped.code
    print(write_report(simulation, score, curves))
    print(f"report: {short_path(simulation.output / 'active.md')}")
    return 0
