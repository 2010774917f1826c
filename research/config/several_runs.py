"""One experiment over several seeds, folds or few-shot samples: `seed=0..4 data.fold=all` on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from research.common.errors import UserError
from research.config.load import load_config
from research.config.schema import Config

SEVERAL = re.compile(r"\s*\d+(\s*,\s*\d+|\s*\.\.\s*\d+)+\s*")
MOST = 1000
SEED, FOLD, SAMPLE = "seed", "data.fold", "data.shots_seed"


def load_all(arguments: Sequence[str]) -> list[list[Config]]:
    """The configs of each experiment: the first argument, and others that are .yaml files; the rest are overrides.

    A `run_dir` that is given holds a folder for each experiment. Raises UserError where two would share a run folder.
    """
    files = [arguments[0], *(a for a in arguments[1:] if is_experiment(a))]
    overrides = [a for a in arguments[1:] if not is_experiment(a)]
    if len(files) == 1:
        return [load_several(files[0], overrides)]

    def of(file: str) -> list[str]:
        return [f"{a.rstrip('/')}/{Path(file).stem}" if _key(a) == "run_dir" else a for a in overrides]

    found = [load_several(file, of(file)) for file in files]
    folders = [str(config.run_dir) for configs in found for config in configs]
    if twice := sorted({folder for folder in folders if folders.count(folder) > 1}):
        raise UserError(f"Two of these experiments would be trained in {twice[0]}; name each once, under its own name.")
    return found


def is_experiment(argument: str) -> bool:
    """Whether an argument is the file of an experiment, not an override or option."""
    return argument.endswith((".yaml", ".yml")) and "=" not in argument and not argument.startswith("-")


def load_several(path: str | Path, overrides: Sequence[str]) -> list[Config]:
    """The experiment once for each fold, sample and seed; a `run_dir` that is given holds a folder for each."""
    asked = {key: _asked(path, key, overrides) for key in (FOLD, SAMPLE, SEED)}
    others = [a for a in overrides if asked.get(_key(a)) is None]
    named = [[f"{key}={value}" for value in values] for key, values in asked.items() if values is not None]
    configs = [load_config(path, [*others, *each]) for each in product(*named)]
    if len({config.run_dir for config in configs}) < len(configs):  # a run_dir that was given
        for config in configs:
            parts = [f"fold{config.data.fold}"] if asked[FOLD] else []
            parts += [f"shots{config.data.shots}-{config.data.shots_seed}"] if asked[SAMPLE] else []
            parts += [f"seed{config.seed}"] if asked[SEED] else []
            config.run_dir = str(Path(str(config.run_dir), *parts))
    return configs


def numbers_of(text: str, key: str = SEED) -> list[int]:
    """`0,1,2` and `0..4` as numbers. Raises UserError for none, for one named twice, and for more than MOST."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("..")
        numbers += range(int(first), int(last or first) + 1)[: MOST + 1]
    if not numbers or len(set(numbers)) < len(numbers) or len(numbers) > MOST:
        raise UserError(f"{key}={text} must name each number once, at most {MOST}, as in 0,1,2 or 0..4.")
    return numbers


def _asked(path: str | Path, key: str, overrides: Sequence[str]) -> list[int] | None:
    """The numbers that the arguments give a key; None where they give it no or one value."""
    given = [a.partition("=")[2].strip() for a in overrides if _key(a) == key]
    if given and key == FOLD and given[-1] == "all":
        others = [a for a in overrides if _key(a) not in (FOLD, SEED)]
        folds = load_config(path, others).data.folds
        if folds is None:
            raise UserError("data.fold=all needs data.folds, the number of parts.")
        return list(range(folds))
    return numbers_of(given[-1], key) if given and SEVERAL.fullmatch(given[-1]) else None


def _key(override: str) -> str:
    return override.partition("=")[0].strip()
