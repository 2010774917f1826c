"""Relation scores by the official scorer's rules: hand-computed, and one of its published outputs."""

from typing import Any

import numpy as np
import pytest

from research.metrics.relations import Metric, direction_of, relation_of

PAIRS = [f"{relation}(e{i},e{3 - i})" for relation in ("Cause-Effect", "Message-Topic") for i in (1, 2)]
CE12, CE21, MT12, MT21 = PAIRS
LABELS = [*PAIRS, "Other"]


def scores(gold: Any, prediction: Any, labels: list[str] = LABELS) -> dict[str, float]:
    metric = Metric({"labels": labels, "other": "Other"})
    return metric.score(metric.table(prediction, gold))


def test_a_wrong_direction_is_predicted_but_not_found() -> None:
    found = scores([CE12, CE12, CE21, MT12], [CE12, CE21, CE21, MT21])
    # Cause-Effect: 2 right, 3 predicted (one in the wrong direction), 3 gold; Message-Topic: 0 of 1 and 1.
    assert found["precision/Cause-Effect"] == found["recall/Cause-Effect"] == pytest.approx(2 / 3)
    assert found["f1/Cause-Effect"] == pytest.approx(2 / 3) and found["support/Cause-Effect"] == 3
    assert found["f1/Message-Topic"] == 0
    assert found["f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["micro_f1"] == pytest.approx(2 / 4)
    assert found["accuracy"] == 2 / 4


def test_other_has_no_part_in_the_mean_but_costs_precision_and_recall() -> None:
    found = scores([CE12, CE12, "Other", "Other"], [CE12, "Other", CE21, "Other"])
    # Cause-Effect: 1 right, 2 predicted (one of them an Other), 2 gold.
    assert found["precision"] == found["recall"] == found["f1"] == 0.5
    assert "f1/Other" not in found and found["accuracy"] == 2 / 4


def test_relations_that_do_not_occur_in_the_gold_labels_are_not_averaged() -> None:
    found = scores([CE12, CE12], [CE12, MT12])
    assert found["f1"] == found["f1/Cause-Effect"] == pytest.approx(2 / 3)
    assert found["micro_precision"] == 1 and found["support/Message-Topic"] == 0


# Rows gold, columns predicted, last the column of right relations in the wrong direction, as the scorer prints them.
NAMES = [
    "Cause-Effect", "Component-Whole", "Content-Container", "Entity-Destination", "Entity-Origin", "Instrument-Agency",
    "Member-Collection", "Message-Topic", "Product-Producer",
]  # fmt: skip
MATRIX = """
296 0 0 0 9 1 0 1 2 15 4
2 209 5 3 1 9 13 5 2 32 31
0 4 160 10 2 0 0 1 0 11 4
0 2 10 260 0 0 0 2 1 16 1
2 1 0 12 221 1 0 1 3 16 1
0 4 1 2 2 101 1 3 9 31 2
0 6 0 0 2 3 195 4 2 20 1
1 2 0 2 0 0 3 228 3 19 3
4 4 2 1 9 10 0 5 167 24 5
20 25 25 25 32 20 39 39 26 203 0
"""


def test_agrees_with_an_output_of_the_official_scorer() -> None:
    gold, prediction = [], []
    directed = [*(f"{name}(e1,e2)" for name in NAMES), "Other"]
    for row, line in zip(directed, MATRIX.split("\n")[1:-1], strict=True):
        predicted = [*directed, row.replace("(e1,e2)", "(e2,e1)")]
        for column, count in zip(predicted, map(int, line.split()), strict=True):
            gold += [row] * count
            prediction += [column] * count
    labels = [*(f"{name}{way}" for name in NAMES for way in ("(e1,e2)", "(e2,e1)")), "Other"]
    found = scores(gold, prediction, labels)
    assert len(gold) == 2717
    per_cent = {name: round(100 * value, 2) for name, value in found.items()}
    assert (per_cent["precision"], per_cent["recall"], per_cent["f1"]) == (77.93, 80.37, 79.05)
    assert (per_cent["micro_precision"], per_cent["micro_recall"], per_cent["micro_f1"]) == (78.84, 81.18, 79.99)
    assert per_cent["precision/Component-Whole"] == 72.57 and per_cent["recall/Component-Whole"] == 66.99
    assert per_cent["accuracy"] == 75.08


def test_scores_follow_from_summed_counts_of_any_resample() -> None:
    rng = np.random.default_rng(0)
    gold, prediction = ([LABELS[i] for i in rng.integers(len(LABELS), size=50)] for _ in range(2))
    metric = Metric({"labels": LABELS})
    table = metric.table(prediction, gold)
    drawn = rng.integers(50, size=50)
    for name in ("f1", "micro_f1", "accuracy", "f1/Cause-Effect"):
        counts = metric.count(table, name)
        assert counts.metric == pytest.approx(metric.score(table)[name], abs=1e-12)
        assert float(counts.score(counts.values[drawn].sum(axis=0))) == pytest.approx(
            metric.score(table.take(drawn))[name], abs=1e-12
        )


def test_kinds_of_error() -> None:
    metric = Metric({"labels": LABELS})
    gold, prediction = [CE12, CE12, CE12, CE12, "Other"], [CE12, CE21, MT12, "Other", MT21]
    kinds = metric.error_kinds(metric.table(prediction, gold))
    assert {kind: dict(counts) for kind, counts in kinds.items()} == {
        "correct": {"Cause-Effect": 1}, "direction": {"Cause-Effect": 1}, "relation": {"Cause-Effect": 1},
        "missed": {"Cause-Effect": 1}, "spurious": {"Other": 1},
    }  # fmt: skip


def test_labels_without_a_direction_are_relations_too() -> None:
    assert relation_of("born_in") == "born_in" and direction_of("born_in") == "none"
    assert relation_of(MT21) == "Message-Topic" and direction_of(MT21) == "e2 to e1"
    found = scores(["born_in", "Other"], ["born_in", "born_in"], ["Other", "born_in"])
    assert found["f1/born_in"] == pytest.approx(2 / 3)


def test_a_label_that_is_not_declared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"labels \['Cause'\] are not among the declared"):
        scores(["Cause"], [CE12])
