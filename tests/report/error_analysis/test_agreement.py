"""How far two systems make the same mistakes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from research.report.error_analysis.agreement import agreement, cohen_kappa
from tests.report import handmade


def run(prediction: Any, gold: Any = ("yes", "yes", "no", "no")) -> Any:
    return handmade.examples(handmade.classes(list(gold), list(prediction), [[0.5, 0.5]] * len(gold)))


def test_one_run_each() -> None:
    found = agreement([run(["yes", "no", "no", "no"])], [run(["yes", "yes", "no", "yes"])])
    shares = (found.both_right, found.only_first, found.only_second, found.both_wrong)
    assert shares == pytest.approx((0.5, 0.25, 0.25, 0.0))
    assert found.same_prediction == 0.5
    assert found.kappa == pytest.approx(cohen_kappa_score(["yes", "no", "no", "no"], ["yes", "yes", "no", "yes"]))
    assert found.advantage.tolist() == [0, 1, 0, -1]


def test_of_several_runs_it_is_the_mean_over_pairs() -> None:
    first = [run(["yes", "no", "no", "no"]), run(["yes", "yes", "no", "no"])]
    second = [run(["no", "no", "no", "no"])]
    found = agreement(first, second)
    alone = [agreement([one], second) for one in first]
    for name in ("both_right", "only_first", "only_second", "both_wrong", "same_prediction", "kappa"):
        assert getattr(found, name) == pytest.approx(np.mean([getattr(each, name) for each in alone]))


def test_equal_systems_agree_wholly() -> None:
    found = agreement([run(["yes", "no", "no", "yes"])], [run(["yes", "no", "no", "yes"])])
    assert (found.same_prediction, found.kappa, found.only_first, found.only_second) == (1.0, 1.0, 0.0, 0.0)
    assert agreement([run(["no"] * 4)], [run(["no"] * 4)]).kappa == 1.0  # one label alone: no division by zero


def test_tasks_without_labels_have_no_kappa() -> None:
    one = handmade.examples(handmade.entities([("Oslo", "B-LOC", "O")]))
    assert agreement([one], [one]).kappa is None


labels = st.lists(st.sampled_from("abc"), min_size=2, max_size=30)


@pytest.mark.slow
@given(labels, labels)
def test_kappa_is_that_of_scikit_learn(first: str, second: str) -> None:
    size = min(len(first), len(second))
    a, b = np.array(first[:size]), np.array(second[:size])
    if len({*first[:size], *second[:size]}) > 1:
        assert cohen_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b))
