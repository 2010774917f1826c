"""The command `research prepare`: fetch, check and tokenise what experiments need, where there is a network."""

from __future__ import annotations

import argparse

from research.common.process import prepare_process

HELP = "fetch, check and tokenise what experiments need, where there is a network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiments", nargs="+", metavar="experiment", help="YAML files; key=value overrides all")


def run(options: argparse.Namespace) -> int:
    """Fetch, check and tokenise what experiments need."""
    from research.config.load import load_config
    from research.training.preflight import refuse_wrong_experiment

    paths = [argument for argument in options.experiments if argument.endswith((".yaml", ".yml"))]
    for path in paths:
        refuse_wrong_experiment(load_config(path, [each for each in options.experiments if each not in paths]))
    prepare_process()
    from research.inference.prepare import prepare

    return prepare(options.experiments)
