"""A sweep's folder made by hand: the sweep file, and trials that are ordinary run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.report.synthetic import write_run

SPACE: dict[str, Any] = {
    "optim.lr": {"low": 1e-5, "high": 1e-4, "step": None, "log": True, "choices": None, "when": {}},
    "optim.warmup_ratio": {"low": 0.0, "high": 0.2, "step": None, "log": False, "choices": None, "when": {}},
}


def write_sweep(
    folder: Path,
    trials: Sequence[tuple[float, float, float, str]],
    seeds: int = 1,
    space: dict[str, Any] | None = None,
    **asked: Any,
) -> Path:
    """`trials`: learning rate, warmup ratio, quality and status of each."""
    folder.mkdir(parents=True)
    content = {
        "experiment": "sst2.yaml",
        "name": folder.name,
        "metric": None,
        "direction": None,
        "space": space or SPACE,
        "sampler": {"name": "random", "seed": 0},
        "pruner": {"name": "median"},
        "budget": {"trials": len(trials)},
        "seeds": list(range(seeds)),
        **asked,
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    for number, (rate, warmup, quality, status) in enumerate(trials):
        for seed in range(seeds):
            write_run(
                folder / "trials" / f"{number:04d}" / f"seed{seed}",
                seed=seed, quality=quality, status=status,
                config={"optim.lr": rate, "optim.warmup_ratio": warmup},
            )  # fmt: skip
    return folder
