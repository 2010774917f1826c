"""One experiment over several seeds: `seed=0,1,2` or `seed=0..4` on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from research.common.errors import UserError
from research.config.load import load_config
from research.config.schema import Config

SEVERAL = re.compile(r"\s*\d+(\s*,\s*\d+|\s*\.\.\s*\d+)+\s*")
MOST = 1000


def load_seeds(path: str | Path, overrides: Sequence[str]) -> list[Config]:
    """The experiment once for each seed; a `run_dir` that is given holds a folder for each."""
    asked = [a.partition("=")[2] for a in overrides if a.partition("=")[0].strip() == "seed"]
    if not asked or not SEVERAL.fullmatch(asked[-1]):
        return [load_config(path, overrides)]
    others = [a for a in overrides if a.partition("=")[0].strip() != "seed"]
    configs = [load_config(path, [*others, f"seed={seed}"]) for seed in seeds_of(asked[-1])]
    if len({config.run_dir for config in configs}) < len(configs):  # run_dir does not follow the seed
        for config in configs:
            config.run_dir = str(Path(str(config.run_dir)) / f"seed{config.seed}")
    return configs


def seeds_of(text: str) -> list[int]:
    """`0,1,2` and `0..4` as numbers. Raises UserError for none, for one named twice, and for more than MOST."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("..")
        seeds += range(int(first), int(last or first) + 1)[: MOST + 1]
    if not seeds or len(set(seeds)) < len(seeds) or len(seeds) > MOST:
        raise UserError(f"seed={text} must name each seed once, at most {MOST}, as in 0,1,2 or 0..4.")
    return seeds
