"""Classification into labels that stand in a hierarchy, which a file gives: the parent of each label.

The head has an output for each label that texts have, at any level. A label's probability is that of itself and of all
labels below it. The answer is a path from the top: at each level the most probable label under the one before, as long
as going on is more probable than to stop there. So no answer contradicts the hierarchy.

Shapes: E texts, C labels of texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from research.common.errors import UserError
from research.config.key import key
from research.config.schema import Config
from research.data.hierarchy import Parents, path_to, read_hierarchy
from research.data.source import Split
from research.tasks.classification import Data as Classification
from research.tasks.classification import Module as ClassificationModule
from research.training.datamodule import Columns


@dataclass
class Keys:
    hierarchy: str | None = key(
        None, "file of each label's parent: JSON, YAML, TSV or CSV; null: all labels are at the top", path=True
    )


class Data(Classification):
    metric = "hierarchical"
    learned_names = ("labels", "parents")

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        self.parents: Parents = {}

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """The labels of texts. Raises UserError for one that the hierarchy has not."""
        labels, file = super().collect(splits), self.config.task.hierarchy
        self.parents = read_hierarchy(file) if file else dict.fromkeys(labels)
        missing = [label for label in labels if label not in self.parents]
        if missing:
            named = ", ".join(f"'{label}'" for label in missing[:10])
            raise UserError(f"{file} lacks {len(missing)} of the {len(labels)} labels: {named}; give each its parent.")
        return labels

    def score_settings(self) -> dict[str, Any]:
        return {"labels": self.labels, "parents": self.parents}

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        """`path`: the labels from the top down to the prediction."""
        columns = super().table(split, predictions)
        place = {label: i for i, label in enumerate(self.labels)}
        columns["prediction"] = [
            answer({label: float(p[i]) for label, i in place.items()}, self.parents) for p in columns["probabilities"]
        ]
        columns["path"] = [path_to(label, self.parents) for label in columns["prediction"]]
        return columns


def answer(probabilities: Mapping[str, float], parents: Parents) -> str:
    """The label that the most probable path ends at; `probabilities` are those of the labels of texts."""
    below: dict[str | None, dict[str, float]] = {}  # label -> the labels right below it, with what lies under each
    for label, p in probabilities.items():
        path: list[str | None] = [None, *path_to(label, parents)]
        for above, own in pairwise(path):
            several = below.setdefault(above, {})
            several[str(own)] = several.get(str(own), 0.0) + p
    here: str | None = None
    while several := below.get(here, {}):
        best = max(several, key=several.__getitem__)
        if here is not None and probabilities.get(here, 0.0) >= several[best]:
            break
        here = best
    return str(here)


class Module(ClassificationModule):
    monitor = "hierarchical_f1"
