"""The command `research show`: what an experiment or a sweep resolves to, without training."""

from __future__ import annotations

import argparse

from research.common.process import prepare_process

HELP = "print the resolved config, data, parameters and steps of an experiment or a sweep; train nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", help="its YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as in optim.lr=3e-5")


def run(options: argparse.Namespace) -> int:
    """Print what an experiment or a sweep is; train nothing."""
    from research.sweep import sweepfile
    from research.training.preflight import refuse_wrong_experiment

    if sweepfile.is_sweep(options.experiment):
        from research.sweep.space import read_sweep

        searched = read_sweep(options.experiment, options.overrides)
        refuse_wrong_experiment(sweepfile.searched_config(searched))
        prepare_process()
        from research.sweep.show import show as show_sweep

        show_sweep(searched)
        return 0
    from research.config.load import load_config

    config = load_config(options.experiment, options.overrides)
    refuse_wrong_experiment(config)
    prepare_process()
    from research.training.run import show

    show(config)
    return 0
