"""What a metric of labels takes from plain classification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from research.metrics import classification
from research.metrics.examples import Floats


class OfLabels:
    """The table of labels with their probabilities, confidence in the answers, and which labels are confused."""

    settings: Any

    @property
    def labels(self) -> classification.Metric:
        """The metric of the same table by plain classification."""
        return classification.Metric(self.settings)

    def table(self, predictions: Sequence[Any], golds: Sequence[Any], **columns: Any) -> pa.Table:
        return self.labels.table(predictions, golds, **columns)

    def confidence(self, table: pa.Table) -> Floats | None:
        return self.labels.confidence(table)

    def belief(self, table: pa.Table) -> Floats | None:
        return self.labels.belief(table)

    def confusion(self, table: pa.Table) -> Counter[tuple[str, str]]:
        return self.labels.confusion(table)
