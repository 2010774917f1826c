"""Feedback on answers: gold labels that come later, scored by the run's own metric with intervals.

Of an answer its metric's counts are kept, no text: scores and intervals follow from counts alone.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from research.common.errors import UserError
from research.inference.predictor import BadInput, Row
from research.metrics.base import BaseMetric
from research.metrics.score import Score

REMEMBERED = 10_000  # answers that feedback may still refer to
RESAMPLES = 2_000
FEWEST = 2  # examples that an interval needs


class Feedback:
    """The feedback on one run: `file` keeps it (None: this process alone)."""

    def __init__(self, scorer: BaseMetric, sha256: str, file: Path | None) -> None:
        """Read what the file has of this model, `sha256`. Raises UserError for a damaged file."""
        self.scorer, self.sha256, self.file = scorer, sha256, file
        self._answers: OrderedDict[str, Row] = OrderedDict()
        self._counts: dict[str, dict[str, list[float]]] = {}
        self._changing = threading.Lock()
        if file is not None and file.is_file():
            self._read(file)

    def _read(self, file: Path) -> None:
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            try:
                entry = json.loads(line)
                if entry["model"] == self.sha256:
                    self._counts[entry["id"]] = entry["counts"]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{file}:{number}: is no feedback; remove the line, or name another folder.") from None

    def remember(self, identity: str, answer: Row) -> None:
        """Keep an answer in memory until feedback on it arrives or 10,000 came after it."""
        self._answers[identity] = answer
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    def add(self, identity: Any, gold: Any) -> None:
        """Count the gold answer to an answer given before; the last one counts. Raises BadInput for others."""
        answer = self._answers.get(identity) if isinstance(identity, str) else None
        if answer is None:
            raise BadInput(f"there is no answer '{str(identity)[:40]}' here, or it is long ago")
        counts = self._counted(answer, gold)
        entry = {"id": identity, "time": round(time.time()), "model": self.sha256, "counts": counts}
        with self._changing:
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with open(self.file, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            self._counts[identity] = counts

    def _counted(self, answer: Mapping[str, Any], gold: Any) -> dict[str, list[float]]:
        """The metric's counts of one example."""
        prediction = answer["prediction"]
        labels = self.scorer.settings.get("labels")
        if self.scorer.has_labels and gold not in (labels or ()):
            raise BadInput(f"gold must be one of {', '.join(map(str, labels or ()))}")
        if isinstance(prediction, list) and not (isinstance(gold, list) and len(gold) == len(prediction)):
            raise BadInput(f"gold must be a list of {len(prediction)}, as the prediction is")
        columns = {k: [list(v.values()) if isinstance(v, dict) and k == "probabilities" else v]
                   for k, v in answer.items() if k not in ("id", "prediction")}  # fmt: skip
        try:
            table = pa.table({"id": ["0"], "gold": [gold], "prediction": [prediction], **columns})
            counts = self.scorer.counts(table)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, UserError) as error:
            raise BadInput(f"gold does not fit the prediction ({type(error).__name__})") from None
        return {name: np.asarray(values[0], dtype=np.float64).tolist() for name, values in counts.items()}

    def scores(self) -> dict[str, Any]:
        """Examples, and each score of the metric with its 95 % interval over them."""
        with self._changing:
            counts = list(self._counts.values())
        found = {}
        for score in self.scorer.scores if len(counts) >= FEWEST else ():
            formula = self.scorer.formula(score.name)
            if formula is not None and all(block in each for each in counts for block in formula.blocks):
                values = np.array([[x for block in formula.blocks for x in each[block]] for each in counts])
                found[score.name] = interval_of(score, values, formula.of)
        return {"examples": len(counts), "scores": found}


def interval_of(score: Score, values: np.ndarray, formula: Any) -> dict[str, float]:
    """A score with its interval: Wilson's for a share of examples, BCa for others. values (N, K)."""
    from research.report.statistics.intervals import Proportion, over_examples  # here: a service starts without scipy
    from research.report.statistics.paired_counts import PairedCounts
    from research.report.statistics.resampling import bootstrap

    estimate, size = float(formula(values.sum(axis=0))), len(values)
    if score.is_proportion:
        low, high = Proportion(size, estimate * (1 - estimate) / size, size - 1).limits(estimate, 0.95)
    else:
        counts = PairedCounts([str(i) for i in range(size)], values[None], formula, score.low, score.high)
        interval = over_examples(counts, (1,), bootstrap(counts, RESAMPLES))
        low, high = interval.low, interval.high
    return {"value": estimate, "low": low, "high": high}
