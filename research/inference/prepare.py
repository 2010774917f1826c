"""`research prepare`: all that an experiment needs is fetched, checked and tokenised, where there is a network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
from huggingface_hub import constants

from research.common.errors import UserError
from research.config.load import load_config
from research.config.schema import Config
from research.training.build import build

CHECKING_SECONDS = 1800


def prepare(arguments: Sequence[str]) -> int:
    """Prepare each experiment named, with the `key=value` among the arguments as overrides of all; says where it lies.

    Raises UserError for what cannot be had, and for what could not be found again without the network.
    """
    experiments = [argument for argument in arguments if argument.endswith((".yaml", ".yml"))]
    overrides = [argument for argument in arguments if argument not in experiments]
    if not experiments:
        raise UserError("research prepare needs at least one experiment, a .yaml file.")
    configs = {experiment: load_config(experiment, overrides) for experiment in experiments}
    for experiment, config in configs.items():
        module = build(config)
        rows = ", ".join(f"{len(store):,} {name}" for name, store in module.data.stores.items())
        print(f"{experiment}: {config.model.name}, {rows} examples tokenised", flush=True)
        if of_hub(config):
            refuse_what_needs_the_hub(experiment, overrides)
    print(f"models and hub data: {constants.HF_HUB_CACHE}")
    print(f"tokenised data: {datasets.config.HF_DATASETS_CACHE}")
    print("Compute nodes must see these folders; HF_HOME in SLURM/site.sh moves both.")
    return 0


def of_hub(config: Config) -> bool:
    """Does anything of this experiment come from the hub?"""
    names = [config.model.name, *filter(None, [config.data.name])]
    return not all(Path(name).is_dir() for name in names)


def refuse_what_needs_the_hub(experiment: str, overrides: Sequence[str]) -> None:
    """Raise UserError unless the experiment can be built again from the caches alone, as a compute node will."""
    command = [sys.executable, "-P", "-m", "research.cli", "show", experiment, *overrides]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=CHECKING_SECONDS)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"{experiment} is not ready to run without a network: {said[0].removeprefix('research: ')}")
