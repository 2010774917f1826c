"""All figures of a study, drawn from its runs."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from pypdf import PdfReader

from research.metrics.score import Score
from research.report import figures
from research.report.figures import budget, cartography, confusion, ranks, sizes, style, sweep_map
from research.report.grouping import group_runs
from research.report.records import Record, read_records
from research.report.searches import find_searches
from research.report.statistics.expected import expected_validation
from tests.report.sweeps import SPACE, write_sweep
from tests.report.synthetic import MakeRun

pytestmark = pytest.mark.slow  # matplotlib draws for seconds


def drawn_by(kind: ModuleType, records: list[Record], folder: Path) -> dict[str, tuple[Path, str]]:
    """What one kind of figure draws of the records: name -> (path, caption)."""
    folder.mkdir()
    with style.applied():
        found = list(kind.figures(group_runs(records), records))
        return {name: (style.save_figure(figure, folder, name), caption) for name, caption, figure in found}


def text_of(path: Path) -> str:
    return " ".join(PdfReader(path).pages[0].extract_text().split())


def test_a_grid_has_the_figures_its_runs_allow(grid: Path, tmp_path: Path) -> None:
    records = read_records([grid])
    drawn = figures.draw_figures(group_runs(records), records, tmp_path / "figures")
    names = [path.stem for path in drawn]
    assert names == [
        "scores-news", "scores-reviews", "scores-wiki", "learning-news", "learning-reviews", "learning-wiki",
        "calibration-news", "calibration-reviews", "calibration-wiki", "confusion-news", "confusion-reviews",
    ]  # fmt: skip
    assert all(path.with_suffix(".png").stat().st_size > 5000 for path in drawn)
    by_name = {path.stem: path for path in drawn}
    learning = text_of(by_name["learning-reviews"])
    assert "optimiser steps" in learning and "validation accuracy" in learning and "lr 3e-5 (5 runs)" in learning
    assert "test micro F1" in text_of(by_name["scores-news"])
    assert "one standard deviation" in drawn[by_name["learning-news"]]


def test_single_runs_of_one_setting_have_curves_but_no_distribution(make_run: MakeRun, tmp_path: Path) -> None:
    records = read_records([make_run()])
    names = [path.stem for path in figures.draw_figures(group_runs(records), records, tmp_path / "figures")]
    assert names == ["learning-reviews", "calibration-reviews", "confusion-reviews"]


def test_names_of_any_script_and_with_special_characters(make_run: MakeRun, tmp_path: Path) -> None:
    labels = ("50 % & more_$x$", "坏的", "<b>good</b>")
    records = read_records([make_run(data_set="评论 & co", labels=labels, seed=seed) for seed in range(2)])
    path, _ = drawn_by(confusion, records, tmp_path / "figures")["confusion-评论-co"]
    shown = text_of(path)
    assert "50 % & more_$x$" in shown and "<b>good</b>" in shown and "坏的" in shown


def test_a_data_map_is_drawn_where_evaluations_were_kept(make_run: MakeRun, tmp_path: Path) -> None:
    records = read_records([make_run(keep_predictions=True)])
    path, caption = drawn_by(cartography, records, tmp_path / "figures")["cartography-reviews"]
    assert "60 validation examples" in caption
    assert "variability" in text_of(path) and "correctness" in text_of(path)


def test_ranks_need_three_systems_and_three_data_sets(make_run: MakeRun, tmp_path: Path) -> None:
    for data_set in ("a", "b", "c"):
        for rate, quality in ((1e-5, 0.9), (3e-5, 0.7), (1e-4, 0.5)):
            make_run(data_set=data_set, quality=quality, examples=200, config={"optim.lr": rate})
    records = read_records([tmp_path / "runs"])
    path, caption = drawn_by(ranks, records, tmp_path / "figures")["ranks"]
    assert "lr 1e-5 (1.00)" in text_of(path) and "critical difference 1.91" in text_of(path)
    assert "3 systems over 3 data sets" in caption
    assert drawn_by(ranks, [r for r in records if r.data_set != "c"], tmp_path / "two") == {}


def test_scores_over_the_size_of_the_training_set(make_run: MakeRun, tmp_path: Path) -> None:
    for size in (10, 20, 40):
        for seed in range(2):
            make_run(seed=seed, quality=0.5 + size / 100, examples=60, config={"data.max_train_examples": size})
    records = read_records([tmp_path / "runs"])
    for record in records:  # as training records a part of the data
        record.provenance["data"]["train"]["examples"] = record.config["data"]["max_train_examples"]
    series = sizes.series_of(group_runs(records).groups)
    (points,) = series.values()
    assert list(points) == [10, 20, 40] and all(len(scores) == 2 for scores in points.values())
    path, _ = drawn_by(sizes, records, tmp_path / "figures")["sizes-reviews"]
    assert "training examples" in text_of(path)


TRIALS = [(10 ** -(5 - i / 8), 0.02 * i, 0.5 + 0.05 * i, "finished") for i in range(7)] + [
    (1e-4, 0.2, 0.5, "pruned"),
    (9e-5, 0.19, 0.5, "failed"),
]


def test_a_random_search_has_a_map_and_a_budget_curve(tmp_path: Path) -> None:
    records = read_records([write_sweep(tmp_path / "lr-warmup", TRIALS)])
    path, caption = drawn_by(sweep_map, records, tmp_path / "maps")["sweep-lr-warmup"]
    shown = text_of(path)
    assert "learning rate" in shown and "warmup (share of steps)" in shown and "5e-5" in shown
    assert "Crosses: 1 pruned" in caption and "1 failed" in caption
    _, caption = drawn_by(budget, records, tmp_path / "curves")["budget-lr-warmup"]
    assert "8 trials" in caption and "1 pruned trials count" in caption and "1 trials without a score" in caption


def test_a_map_shows_ranges_first_and_the_better_trials_on_top(tmp_path: Path) -> None:
    space = {"optim.warmup_ratio": {"choices": [0.0, 0.1]}, "optim.lr": SPACE["optim.lr"]}
    trials = [(1e-4, 0.1, score, "finished") for score in (0.7, 0.9, 0.8)]
    [search] = find_searches(read_records([write_sweep(tmp_path / "lr", trials, space=space)]))
    assert sweep_map.numeric_keys(search) == ["optim.lr", "optim.warmup_ratio"]
    with style.applied():
        axes = sweep_map.draw_map(search, sweep_map.numeric_keys(search)).axes[0]
    drawn = list(np.asarray(axes.collections[0].get_array()))
    assert drawn == sorted(drawn) and len(set(drawn)) == 3  # the last is on top


def test_the_budget_curve_has_the_unbiased_estimates(tmp_path: Path) -> None:
    search = find_searches(read_records([write_sweep(tmp_path / "lr", TRIALS)]))[0]
    scores = budget.scores_of(search)
    assert len(scores) == 8
    with style.applied():
        axes = budget.draw_expected_best(expected_validation(scores, "random"), Score("accuracy", "accuracy")).axes[0]
    means = np.asarray(axes.lines[0].get_ydata())
    assert means[0] == pytest.approx(scores.mean()) and means[-1] == pytest.approx(scores.max())
    assert np.all(np.diff(means) >= 0)


def test_an_adaptive_search_has_a_map_but_no_budget_curve(tmp_path: Path) -> None:
    records = read_records([write_sweep(tmp_path / "lr", TRIALS, sampler={"name": "tpe"})])
    assert set(drawn_by(sweep_map, records, tmp_path / "maps")) == {"sweep-lr"}
    assert drawn_by(budget, records, tmp_path / "curves") == {}


def test_a_search_of_one_parameter_is_a_slice(tmp_path: Path) -> None:
    space = {"optim.lr": SPACE["optim.lr"]}
    search = find_searches(read_records([write_sweep(tmp_path / "lr", TRIALS, space=space)]))[0]
    with style.applied():
        axes = sweep_map.draw_slice(search, ["optim.lr"]).axes[0]
    assert axes.get_xscale() == "log" and len(np.asarray(axes.lines[0].get_xdata())) == 7
