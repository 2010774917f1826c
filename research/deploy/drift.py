"""Drift of a run's answers: are the last ones drawn from what the run predicted on its own test data?

Labels are compared by a chi-square test, confidence by Kolmogorov and Smirnov's. With small p (0.001, say) neither
alarms on windows that have not changed, while a population stability index above 0.1 does on 4 in 10 windows of 100
(simulated, ten bins). A higher error rate alone moves neither much: only feedback finds it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from research.tracking.run import Run

WINDOW, FEWEST = 500, 100  # answers that are compared, and those that there must be
RARE = 5.0  # expected answers below which labels are counted together, as the chi-square test needs
COLUMNS = ("prediction", "probabilities", "confidence")


@dataclass(frozen=True)
class Reference:
    """What a run predicted on its own test data."""

    labels: dict[str, int]  # none where predictions are free text, which is no label and is not kept
    confidence: list[float]


def seen(row: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """The label of an answer, and its confidence; tags and several labels are one label: those that occur."""
    prediction, probabilities, confidence = (row.get(name) for name in COLUMNS)
    if isinstance(prediction, dict):
        prediction = next((value for value in prediction.values() if isinstance(value, str)), None)
    if isinstance(prediction, list) and all(isinstance(each, str) for each in prediction):
        kinds = {each[2:] if each[1:2] == "-" else each for each in prediction} - {"O"}
        prediction = "+".join(sorted(kinds)) or "none"
    values = probabilities.values() if isinstance(probabilities, dict) else probabilities
    if values is None and confidence is not None:
        sure = min(confidence, default=None) if isinstance(confidence, list) else confidence
    else:
        sure = max(values, default=None) if values is not None else None
    return prediction if isinstance(prediction, str) else None, None if sure is None else float(sure)


def reference_of(run: Run, has_labels: bool) -> Reference | None:
    """Of a run's test predictions, or those of validation; None where it has neither.

    `has_labels`: False where predictions are free text.
    """
    for split in ("test", "validation"):
        path = run.predictions / f"{split}.parquet"
        if path.is_file():
            names = [name for name in COLUMNS if name in pq.read_schema(path).names]
            return summary_of(pq.read_table(path, columns=names).to_pylist(), has_labels)
    return None


def summary_of(rows: Iterable[Mapping[str, Any]], has_labels: bool = True) -> Reference:
    """Labels and confidence of predictions."""
    pairs = [seen(row) for row in rows]
    labels = Counter(label for label, _ in pairs if label is not None and has_labels)
    return Reference(dict(labels), sorted(sure for _, sure in pairs if sure is not None))


class Drift:
    """The last answers of a run beside its reference."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._labels: deque[str] = deque(maxlen=WINDOW)
        self._confidence: deque[float] = deque(maxlen=WINDOW)

    def add(self, answer: Mapping[str, Any]) -> None:
        label, sure = seen(answer)
        if label is not None and self.reference.labels:
            self._labels.append(label)
        if sure is not None:
            self._confidence.append(sure)

    def p_labels(self) -> float:
        """The chance of labels as unlike as those of the last answers; 1 while there are too few."""
        return p_of_labels(self.reference.labels, Counter(list(self._labels)))

    def p_confidence(self) -> float:
        """The chance of confidences as unlike as those of the last answers; 1 while there are too few."""
        return p_of_confidence(self.reference.confidence, list(self._confidence))


def p_of_labels(reference: Mapping[str, int], window: Mapping[str, int]) -> float:
    """Pearson's chi-square test of two samples; labels that are too rare for it are one. 1 below FEWEST answers."""
    from scipy.stats import chi2_contingency

    before, now = sum(reference.values()), sum(window.values())
    if min(before, now) < FEWEST:
        return 1.0
    share = min(before, now) / (before + now)
    kept: list[list[float]] = []
    rest = [0.0, 0.0]
    for label in {*reference, *window}:
        pair = [float(counts.get(label, 0)) for counts in (reference, window)]
        if sum(pair) * share >= RARE:
            kept.append(pair)
        else:
            rest = [rest[0] + pair[0], rest[1] + pair[1]]
    kept += [rest] if sum(rest) * share >= RARE else []
    if len(kept) < 2:
        return 1.0
    return float(chi2_contingency(list(zip(*kept, strict=True)), correction=False).pvalue)


def p_of_confidence(reference: Sequence[float], window: Sequence[float]) -> float:
    """Kolmogorov and Smirnov's test of two samples. 1 below FEWEST answers."""
    from scipy.stats import ks_2samp

    if min(len(reference), len(window)) < FEWEST:
        return 1.0
    return float(ks_2samp(reference, window, method="asymp").pvalue)
