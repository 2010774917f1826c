"""Data maps from the predictions of several evaluations."""

from typing import Any

import pytest

from research.report.error_analysis.cartography import of_evaluations, of_run
from research.report.records import read_record
from tests.report import handmade
from tests.report.synthetic import MakeRun


def evaluation(beliefs: Any) -> Any:
    """All gold labels are yes; `beliefs`: the probability of it."""
    prediction = ["yes" if p > 0.5 else "no" for p in beliefs]
    return handmade.examples(handmade.classes(["yes"] * len(beliefs), prediction, [[1 - p, p] for p in beliefs]))


def test_means_deviations_and_correctness() -> None:
    found = of_evaluations([evaluation([0.9, 0.1, 0.2]), evaluation([0.9, 0.2, 0.9]), evaluation([0.9, 0.3, 0.4])])
    assert found.confidence == pytest.approx([0.9, 0.2, 0.5])
    assert found.variability == pytest.approx([0, (0.02 / 3) ** 0.5, (0.26 / 3) ** 0.5])
    assert found.correctness == pytest.approx([1, 0, 1 / 3])
    regions = {name: indices.tolist() for name, indices in found.regions.items()}
    assert regions == {"easy": [0], "ambiguous": [2], "hard": [1]}


def test_a_run_that_kept_no_evaluations_has_no_map(make_run: MakeRun) -> None:
    assert of_run(read_record(make_run())) is None


@pytest.mark.parametrize("task", ["sentiment", "ner", "qa"])
def test_a_run_that_kept_them_has_one_over_all_evaluations(make_run: MakeRun, task: str) -> None:
    record = read_record(make_run(task=task, keep_predictions=True, examples=30))
    found = of_run(record)
    assert len(found.ids) == 30 and found.ids[0] == "validation-0"
    thirds = {round(float(share) * 3, 6) for share in found.correctness}
    assert thirds <= {0, 1, 2, 3} and len(thirds) > 1  # three epochs, three evaluations
