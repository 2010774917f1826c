"""Variance components against statsmodels' analysis of variance, and what the seeds must be."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from research.report.statistics.variance import components, split_by_sample, split_variance


def crossed(inits: int, orders: int, seed: int = 0) -> tuple[list[int], list[int], np.ndarray]:
    rng = np.random.default_rng(seed)
    init, order = (part.ravel().tolist() for part in np.meshgrid(range(inits), range(orders), indexing="ij"))
    of_init, of_order = rng.normal(0, 0.03, inits), rng.normal(0, 0.01, orders)
    return init, order, 0.8 + of_init[init] + of_order[order] + rng.normal(0, 0.005, inits * orders)


def test_components_are_those_of_statsmodels() -> None:
    """Expected mean squares of a two-way layout: rest, rest + O var(init), rest + I var(order)."""
    init, order, scores = crossed(4, 6)
    frame = pd.DataFrame({"score": scores, "init": init, "order": order})
    squares = anova_lm(ols("score ~ C(init) + C(order)", frame).fit())["mean_sq"]
    of_init, of_order, rest = components(scores.reshape(4, 6))
    assert rest == pytest.approx(squares["Residual"], abs=1e-10)
    assert of_init == pytest.approx((squares["C(init)"] - squares["Residual"]) / 6, abs=1e-10)
    assert of_order == pytest.approx((squares["C(order)"] - squares["Residual"]) / 4, abs=1e-10)


def test_the_split_finds_what_was_put_in() -> None:
    splits = [split_variance(*crossed(8, 8, seed)) for seed in range(200)]
    means = [np.mean([getattr(s, name) ** 2 for s in splits]) for name in ("initialisation", "order", "both")]
    assert means == pytest.approx([0.03**2, 0.01**2, 0.005**2], rel=0.12)


def test_runs_may_come_in_any_order() -> None:
    init, order, scores = crossed(3, 3)
    shuffle = np.random.default_rng(1).permutation(9)
    mixed = split_variance([init[i] for i in shuffle], [order[i] for i in shuffle], scores[shuffle])
    straight = split_variance(init, order, scores)
    assert mixed.initialisation == pytest.approx(straight.initialisation, abs=1e-12)
    assert mixed.order == pytest.approx(straight.order, abs=1e-12)
    assert straight.why == "3 initialisations crossed with 3 orders"


def test_the_sample_of_examples_comes_from_the_replicates() -> None:
    replicates = np.random.default_rng(0).normal(0.8, [0.01, 0.02], size=(50_000, 2))
    split = split_variance([0, 1], [0, 1], np.array([0.8, 0.8]), replicates)
    assert split.sampling == pytest.approx(np.sqrt((0.01**2 + 0.02**2) / 2), rel=0.02)


@pytest.mark.parametrize(
    ("init", "order", "why"),
    [
        ([0, 1, 2], [0, 1, 2], "seed_init and seed_order vary together; cross them"),
        ([0, 0, 0], [0, 1, 2], "seed_init has one value in all runs"),
        ([0, 1, 2], [5, 5, 5], "seed_order has one value in all runs"),
        ([0, 0, 1], [0, 1, 0], "2 values of seed_init and 2 of seed_order make 4 pairs, of which 3 were run"),
        ([0], [0], "one run: nothing to split"),
    ],
)
def test_seeds_that_do_not_allow_a_split_say_why(init: list[int], order: list[int], why: str) -> None:
    split = split_variance(init, order, np.linspace(0.7, 0.8, len(init)))
    assert (split.initialisation, split.order, split.both) == (None, None, None)
    assert why in split.why


def test_few_shot_samples_against_statsmodels() -> None:
    """Expected mean squares of a one-way layout: rest, rest + seeds var(sample)."""
    rng = np.random.default_rng(3)
    samples = np.repeat([13, 21, 42, 87, 100], 3)
    scores = 0.8 + np.repeat(rng.normal(0, 0.04, 5), 3) + rng.normal(0, 0.01, 15)
    frame = pd.DataFrame({"score": scores, "sample": samples})
    squares = anova_lm(ols("score ~ C(sample)", frame).fit())["mean_sq"]
    split = split_by_sample(samples.tolist(), scores, 0.01)
    assert split.seed == pytest.approx(np.sqrt(squares["Residual"]))
    assert split.shots == pytest.approx(np.sqrt((squares["C(sample)"] - squares["Residual"]) / 3))
    alone = split_by_sample([13, 21], scores[:2], 0.01)
    assert alone.shots is None and "one seed a sample" in alone.why and alone.sampling == 0.01
