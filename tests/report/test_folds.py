"""Cross-validated systems in tables, tests and comparisons: a fold counts once, by the mean of its seeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from research.common.errors import UserError
from research.report.build import build, check
from research.report.compare import compare_runs, comparison_text
from research.report.grouping import group_runs
from research.report.records import read_records
from research.report.statistics.folds import fold_p_value, over_folds
from research.report.statistics.summary import pools, summarise

Make = Callable[..., Path]


def write_folds(make_run: Make, rate: float, quality: float, folds: tuple[int, ...] = (0, 1, 2)) -> list[Path]:
    return [
        make_run(
            f"{rate}-{fold}-{seed}", seed=seed, quality=quality,
            config={"optim.lr": rate, "data.folds": 3, "data.fold": fold, "data.test": None, "data.title": "reviews"},
        )
        for fold in folds
        for seed in (0, 1)
    ]  # fmt: skip


def accuracies(paths: list[Path]) -> np.ndarray:
    """Test accuracy by fold (3,), the mean over two seeds."""
    return np.array([r.scores("test")["accuracy"] for r in read_records(paths)]).reshape(3, 2).mean(1)


@pytest.mark.slow
def test_a_fold_counts_once_and_the_interval_is_corrected(make_run: Make, tmp_path: Path) -> None:
    good, bad = write_folds(make_run, 3e-5, 0.9), write_folds(make_run, 1e-4, 0.6)
    grid = group_runs(read_records([*good, *bad]))
    assert grid.by == ["optim.lr"] and [len(group.runs) for group in grid.groups] == [6, 6]
    pooled, notes = pools(grid)
    best, other = (s for s in summarise(grid, pooled) if s.split == "test")
    scores, other_scores = accuracies(good), accuracies(bad)
    assert best.scores.tolist() == scores.tolist() and best.mark == "best"
    assert best.deviation == pytest.approx(scores.std(ddof=1))
    assert best.interval == over_folds(scores, 600, 60, low=0, high=1) and best.interval.over == "folds"
    assert other.p_value == pytest.approx(fold_p_value(scores - other_scores, 600, 60))
    assert pooled == {} and notes == ["reviews: figures and error analysis of examples are of fold 0 alone."]


@pytest.mark.slow
def test_compare_pairs_the_folds(make_run: Make) -> None:
    good, bad = write_folds(make_run, 3e-5, 0.9), write_folds(make_run, 1e-4, 0.6)
    found = compare_runs(read_records(good), read_records(bad))
    [c] = found.comparisons
    assert c.difference == pytest.approx(float((accuracies(good) - accuracies(bad)).mean()))
    assert c.interval == over_folds(accuracies(good) - accuracies(bad), 600, 60, low=-1, high=1)
    said = comparison_text(found)
    assert "lr 3e-5 (3 folds, 6 runs)" in said and "180 test examples in 3 folds, paired by fold" in said
    assert "corrected resampled t test over folds: p = " in said and "power: not estimated over folds" in said
    assert said.splitlines()[-1].startswith("Verdict: on reviews (test accuracy) lr 3e-5 is better than lr 1e-4")
    with pytest.raises(UserError, match="lr 3e-5 has the folds 0, 1, 2, lr 1e-4 0, 1: a comparison needs the same"):
        compare_runs(read_records(good), read_records(bad[:4]))


@pytest.mark.slow
def test_a_report_of_folds_is_complete_and_says_what_is_missing(make_run: Make, tmp_path: Path) -> None:
    good, bad = write_folds(make_run, 3e-5, 0.9), write_folds(make_run, 1e-4, 0.6, folds=(0, 1))
    build([str(path) for path in (*good, *bad)], tmp_path / "paper")
    table = (tmp_path / "paper/tables/scores.md").read_text()
    assert "mean ± standard deviation over folds" in table and "corrected resampled t test over folds" not in table
    page = (tmp_path / "paper/index.html").read_text()
    assert "lr 1e-4 on reviews: no run is finished on fold 2 of 3" in page
    assert "means over 3 folds of the data" in page and "most frequent label" in page
    assert (tmp_path / "paper/figures/learning-reviews.pdf").is_file()
    assert check(tmp_path / "paper") == 0


def test_folds_are_not_tabulated_with_complete_test_sets(make_run: Make) -> None:
    folds, whole = (
        write_folds(make_run, 3e-5, 0.9),
        make_run("whole", config={"optim.lr": 1e-4, "data.title": "reviews"}),
    )
    with pytest.raises(UserError, match="was tested on a fold and the other was not"):
        group_runs(read_records([*folds, whole]))
    with pytest.raises(UserError, match="are the same run twice"):
        group_runs(read_records([*folds, shutil.copytree(folds[3], folds[3].with_name("again"))]))


def test_a_share_names_no_data_set(make_run: Make) -> None:
    [record] = read_records([make_run("share", config={"data.test": "0.2", "data.validation": "0.1"})])
    assert record.data_set == "reviews"
