"""What the figures show, read back from what was drawn; and that matplotlib is left as it was found."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from optuna.trial import TrialState

from research.sweep import figures, results
from research.sweep.space import suggest
from research.sweep.study import Search, open_search
from research.sweep.sweepfile import Parameter
from tests.sweep import dummy

ENDS = [("COMPLETE", 0.6), ("PRUNED", None), ("COMPLETE", 0.8), ("FAIL", None), ("COMPLETE", 0.7), ("COMPLETE", 0.75)]


@pytest.fixture
def search(tmp_path: Path) -> Search:
    sweep = dummy.sweep_in(tmp_path, len(ENDS))
    sweep.space["optim.schedule"] = Parameter(choices=["linear", "cosine"])
    search = open_search(sweep, dummy.base(), "accuracy", False)
    for state, value in ENDS:
        taken = search.next()
        assert taken is not None
        suggest(sweep.space, taken[0])
        if state == "PRUNED":
            taken[0].report(0.3, 4)
        search.finish(*taken, TrialState[state], value, {"device_hours": 0.1, "runs": [{"seed": 0, "score": value}]})
    return search


def axes_of(draw: Any, *arguments: Any) -> Any:
    axes = Figure().subplots()
    draw(axes, *arguments)
    return axes


def test_files_and_nothing_left_behind(search: Search) -> None:
    before = dict(matplotlib.rcParams)
    drawn = figures.draw(search)
    assert [path.name for path in drawn] == [
        "best_so_far.pdf", "lr_by_warmup_ratio.pdf", "importance.pdf", "parallel_coordinates.pdf"
    ]  # fmt: skip
    assert dict(matplotlib.rcParams) == before and "matplotlib.pyplot" not in vars(figures)
    for path in drawn:
        content = path.read_bytes()
        assert content.startswith(b"%PDF") and b"/Subtype /Type3" not in content and b"/Subtype /Image" not in content
        assert b"/CreationDate" not in content
    assert [path.read_bytes() for path in figures.draw(search)] == [path.read_bytes() for path in drawn]


def test_best_so_far_counts_what_pruned_and_failed_trials_cost(search: Search) -> None:
    axes = axes_of(figures.best_so_far, search)
    trials, best = axes.lines
    assert best.get_xdata() == pytest.approx([6, 12, 18, 24, 30, 36])  # minutes
    assert best.get_ydata() == pytest.approx([0.6, 0.6, 0.8, 0.8, 0.8, 0.8])
    shown = trials.get_ydata()
    assert shown[[0, 2, 4, 5]] == pytest.approx([0.6, 0.8, 0.7, 0.75]) and np.isnan(shown[[1, 3]]).all()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("device minutes", "validation accuracy")


def test_map_has_every_trial_where_it_was(search: Search) -> None:
    axes = axes_of(figures.score_map, search, "optim.lr", "optim.warmup_ratio")
    assert axes.get_xscale() == "log" and axes.get_yscale() == "linear"
    places = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections}
    assert [len(places[label]) for label in ("pruned", "failed")] == [1, 1]
    trials = search.trials()
    assert places["pruned"][0] == pytest.approx([trials[1].params[k] for k in ("optim.lr", "optim.warmup_ratio")])
    complete = next(c for c in axes.collections if c.get_label() not in ("pruned", "failed"))
    assert list(complete.get_array()) == pytest.approx([0.6, 0.8, 0.7, 0.75])


def test_importance_names_its_evaluator(search: Search) -> None:
    importances = figures.importance(search)
    assert set(importances) == set(search.sweep.space) and sum(importances.values()) == pytest.approx(1)
    axes = axes_of(figures.importance_bars, importances)
    assert "PED-ANOVA" in axes.get_xlabel()
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx(sorted(importances.values()))


def test_parallel_coordinates_run_over_the_searched_ranges(search: Search) -> None:
    assert figures.height(search, "optim.lr", 1e-4) == pytest.approx(0.5)
    assert figures.height(search, "optim.warmup_ratio", 0.3) == 1
    assert figures.height(search, "optim.schedule", "cosine") == 1
    assert math.isnan(figures.height(search, "optim.schedule", None))
    axes = axes_of(figures.parallel_coordinates, search, results.ranked(search))
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(lines) == 4


def test_too_little_to_draw(tmp_path: Path) -> None:
    search = open_search(dummy.sweep_in(tmp_path, 1), dummy.base(), "accuracy", False)
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
