"""For each method of the package keys at which it acts strongly on small models, and keys at which it is off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ON: dict[str, dict[str, Any]] = {
    "distil": {"alpha": 0.7, "temperature": 3.0},  # of a teacher that the fixture `strong` makes
    "ema": {"decay": 0.7},
    "ewc": {"strength": 5.0},  # of a Fisher that the fixture `strong` makes
    "fgm": {"epsilon": 0.5},
    "freelb": {"steps": 2, "step_size": 0.5, "epsilon": 0.6},
    "l1": {"strength": 0.01},
    "l2_sp": {"alpha": 0.5, "beta": 0.2},
    "layer_decay": {"rate": 0.7},
    "mixout": {"p": 0.7},
    "mixup": {"alpha": 1.0},
    "pgd": {"steps": 2, "step_size": 0.4, "epsilon": 0.5},
    "r3f": {"strength": 2.0, "sigma": 0.5},
    "r_drop": {"alpha": 2.0},
    "simcse": {"weight": 0.5},
    "supcon": {"weight": 0.5},
    "smart": {"strength": 2.0, "epsilon": 0.05, "sigma": 0.05, "step_size": 0.02, "bregman": 0.5, "momentum": 0.5},
    "swa": {"start": 0.3, "every_steps": 2},
}
OFF: dict[str, dict[str, Any]] = {
    "distil": {"alpha": 0.0},
    "ema": {"decay": 0.0},
    "ewc": {"strength": 0.0},
    "fgm": {"epsilon": 0.0},
    "freelb": {"epsilon": 0.0},
    "l1": {"strength": 0.0},
    "l2_sp": {"alpha": 0.0, "beta": 0.0},
    "layer_decay": {"rate": 1.0},
    "mixout": {"p": 0.0},
    "mixup": {"alpha": 0.0},
    "pgd": {"epsilon": 0.0},
    "r3f": {"strength": 0.0},
    "r_drop": {"alpha": 0.0},
    "simcse": {"weight": 0.0},
    "supcon": {"weight": 0.0},
    "smart": {"strength": 0.0},
    "swa": {"start": 1.0},
}
UNLABELLED: dict[str, dict[str, Any]] = {  # those that read texts without labels: test_unlabelled.py
    "uda": {"weight": 2.0, "confidence": 0.3, "tsa": "linear"},
    "mean_teacher": {"weight": 20.0, "rampup": 0.5, "decay": 0.6},
    "pseudo_labels": {"threshold": 0.5, "weight": 2.0},
}
# R-Drop whose second copy is another text, so that without dropout the two passes still differ, in any layout alike.
SHIFTED = """
from research.batching.repeat import twice
from research.methods import r_drop
from research.methods.r_drop import Keys

class Method(r_drop.Method):
    def pair(self, micro):
        both = twice(micro)
        starts = both.lengths.cumsum() - both.lengths
        second = starts[len(starts) // 2 :]
        ids = both.tokens["input_ids"].clone()
        ids[second + 1] = ids[second]
        both.tokens["input_ids"] = ids
        return both
"""


def sections(names: list[str], folder: Path) -> dict[str, Any]:
    """The experiment's `methods`."""
    (folder / "shifted.py").write_text(SHIFTED)
    return {str(folder / "shifted.py") if name == "r_drop" else name: ON[name] for name in names}
