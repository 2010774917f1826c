"""What the figures show, read back from what was drawn; and that matplotlib is left as it was found."""

from __future__ import annotations

import math
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from optuna.trial import TrialState

from research.metrics.score import Score
from research.sweep import figures
from research.sweep import trials_table as results
from research.sweep.space import suggest
from research.sweep.study import Search, open_search
from research.sweep.sweepfile import Parameter
from tests.sweep import dummy

ENDS = [("COMPLETE", 0.6), ("PRUNED", None), ("COMPLETE", 0.8), ("FAIL", None), ("COMPLETE", 0.7), ("COMPLETE", 0.75)]


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return searched(tmp_path, "accuracy")


def searched(folder: Path, metric: str) -> Search:
    sweep = dummy.sweep_in(folder, len(ENDS))
    sweep.space["optim.schedule"] = Parameter(choices=["linear", "cosine"])
    search = open_search(sweep, dummy.base(), Score(metric, metric, smaller_is_better=metric != "accuracy"), False)
    for state, value in ENDS:
        taken = search.next()
        assert taken is not None
        suggest(sweep.space, taken[0])
        if state == "PRUNED":
            search.report(taken[0], 0.3, 4)
        search.finish(*taken, TrialState[state], value, {"device_hours": 0.1, "runs": [{"seed": 0, "score": value}]})
    return search


@pytest.mark.slow
def test_files_and_nothing_left_behind(search: Search) -> None:
    before = dict(matplotlib.rcParams)
    drawn = figures.draw(search)
    assert [path.name for path in drawn] == ["best_so_far.pdf", "importance.pdf", "parallel_coordinates.pdf"]
    assert dict(matplotlib.rcParams) == before
    for path in drawn:
        content = path.read_bytes()
        assert content.startswith(b"%PDF") and b"/Subtype /Type3" not in content and b"/Subtype /Image" not in content


def test_best_so_far_counts_what_pruned_and_failed_trials_cost(search: Search) -> None:
    axes = figures.best_so_far(search).axes[0]
    trials, best = axes.lines
    assert np.asarray(best.get_xdata()) == pytest.approx([6, 12, 18, 24, 30, 36])  # minutes
    assert np.asarray(best.get_ydata()) == pytest.approx([0.6, 0.6, 0.8, 0.8, 0.8, 0.8])
    shown = np.asarray(trials.get_ydata())
    assert shown[[0, 2, 4, 5]] == pytest.approx([0.6, 0.8, 0.7, 0.75]) and np.isnan(shown[[1, 3]]).all()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("device minutes", "validation accuracy")


def test_importance_names_its_evaluator(search: Search) -> None:
    importances = figures.importance(search)
    assert set(importances) == set(search.sweep.space) and sum(importances.values()) == pytest.approx(1)
    axes = figures.importance_bars(importances).axes[0]
    assert "PED-ANOVA" in axes.get_xlabel()
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(list(importances.values()))  # type: ignore[attr-defined]


def test_parallel_coordinates_run_over_the_searched_ranges(search: Search) -> None:
    assert figures.height(search, "optim.lr", 1e-4) == pytest.approx(0.5)
    assert figures.height(search, "optim.warmup_ratio", 0.3) == 1
    assert figures.height(search, "optim.schedule", "cosine") == 1
    assert math.isnan(figures.height(search, "optim.schedule", None))
    axes = figures.parallel_coordinates(search, results.ranked(search)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lr", "warmup ratio", "schedule"]
    lines = [np.asarray(line.get_ydata()) for line in axes.lines if len(np.asarray(line.get_xdata())) == 3]
    assert len(lines) == 4
    best = search.trials()[2]  # drawn last, on top
    assert lines[-1] == pytest.approx([figures.height(search, key, best.params[key]) for key in search.sweep.space])


@pytest.mark.parametrize("metric", ["loss", "calibration_error"])
def test_where_smaller_is_better(metric: str, tmp_path: Path) -> None:
    search = searched(tmp_path, metric)
    assert [trial.value for trial in results.ranked(search)] == [0.6, 0.7, 0.75, 0.8]
    best = figures.best_so_far(search).axes[0].lines[1]
    assert np.asarray(best.get_ydata()) == pytest.approx([0.6] * 6)


def test_too_little_to_draw(tmp_path: Path) -> None:
    search = open_search(dummy.sweep_in(tmp_path, 1), dummy.base(), dummy.ACCURACY, False)
    assert figures.draw(search) == []


def test_status_tells_states_best_and_end(search: Search) -> None:
    lines = results.status_lines(search)
    assert lines[0] == "dummy: 4 complete, 1 pruned, 1 failed of 6"
    assert re.match(r"best: accuracy 0\.8000, trial 2 \(optim\.lr=.*, optim\.schedule=(linear|cosine)\)", lines[1])
    assert not any(line.startswith("expected end") for line in lines)


def test_expected_end(search: Search) -> None:
    search.asked = 16
    trials = search.trials()
    seconds = results.seconds_left(search, trials, running=2)
    took = [t.duration.total_seconds() for t in trials if t.state != TrialState.FAIL and t.duration]
    assert seconds == pytest.approx(10 * sum(took) / len(took) / 2)
    assert results.seconds_left(search, trials, running=0) is None
