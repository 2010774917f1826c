"""Counts of examples: their sums give the scores of research.metrics, and pairing goes by id."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from research.common.errors import UserError
from research.metrics.base import Counts
from research.report.statistics.paired_counts import paired
from research.tracking import predictions
from tests.report.synthetic import make_table


def count(table: pa.Table, name: str) -> Counts:
    return predictions.metric(table).count(table, name)


def table_of(task: str, source: Any = 0, labels: tuple[str, ...] = ("a", "b/c", "d"), right: float = 0.7) -> pa.Table:
    return make_table(task, "data", "test", 80, right, labels, source)


@pytest.mark.parametrize("task", ["sentiment", "ner", "qa", "translation"])
def test_summed_counts_give_every_score(task: str) -> None:
    table = table_of(task)
    scores = {name: value for name, value in predictions.score(table).items() if not name.startswith("support/")}
    assert len(scores) >= 2
    for name, value in scores.items():
        assert count(table, name).metric == pytest.approx(value, abs=1e-12), name


def test_squad_v2_counts_give_the_scores_at_its_threshold() -> None:
    table = table_of("qa")
    gold = [answers if i % 3 else [] for i, answers in enumerate(table.column("gold").to_pylist())]
    how = b'{"scorer": "squad", "rules": "squad_v2", "threshold": -8.0}'
    table = table.set_column(1, "gold", pa.array(gold)).replace_schema_metadata({predictions.KEY: how})
    scores = predictions.score(table)
    assert 0.1 < scores["no_answer_f1"] < 0.9
    for name in (f"{group}{kind}" for group in ("", "has_answer_", "no_answer_") for kind in ("f1", "exact_match")):
        assert count(table, name).metric == pytest.approx(scores[name], abs=1e-12), name


def test_counts_of_a_resample_are_the_score_of_the_resample() -> None:
    for task, metric in (
        ("sentiment", "f1"),
        ("sentiment", "mcc"),
        ("ner", "f1"),
        ("qa", "f1"),
        ("translation", "bleu"),
    ):
        table = table_of(task)
        drawn = np.random.default_rng(0).integers(80, size=80)
        resample = table.take(drawn).set_column(0, "id", [[f"{i}" for i in range(80)]])
        counts = count(table, metric)
        assert float(counts.score(counts.values[drawn].sum(axis=0))) == pytest.approx(
            predictions.score(resample)[metric], abs=1e-12
        )


def test_a_metric_that_is_no_function_of_sums_is_refused() -> None:
    with pytest.raises(UserError, match=r"Resampling 'best_f1' is not possible.*f1, exact_match are\."):
        count(table_of("qa"), "best_f1")
    with pytest.raises(UserError, match="Resampling 'f1/nobody' is not possible"):
        count(table_of("sentiment"), "f1/nobody")


def test_runs_are_paired_by_id_in_any_order() -> None:
    first, second = table_of("ner", 1), table_of("ner", 2)
    order = np.random.default_rng(0).permutation(80)
    straight = paired([("a", first), ("b", second)], "f1")
    shuffled = paired([("a", first), ("b", second.take(order))], "f1")
    assert np.array_equal(straight.values, shuffled.values)
    assert straight.metrics.tolist() == [predictions.score(table)["f1"] for table in (first, second)]


def test_other_examples_or_gold_answers_cannot_be_paired() -> None:
    first, second = table_of("ner", 1), table_of("ner", 2)
    with pytest.raises(
        UserError, match=r"a \(80 examples\) and b \(79\) cannot be paired.*'test-0' occurs in one alone"
    ):
        paired([("a", first), ("b", second.slice(1))], "f1")
    other = make_table("ner", "other data", "test", 80, 0.7, (), 2)
    with pytest.raises(UserError, match="a and b hold other gold answers for the same ids"):
        paired([("a", first), ("b", other)], "f1")
