"""Searches reported from the folders of sweeps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research.report.records import read_records
from research.report.searches import Search, bounds, find_searches
from tests.report.sweeps import SPACE, write_sweep
from tests.report.synthetic import MakeRun

TRIALS = [
    (1e-5, 0.0, 0.6, "finished"),
    (3e-5, 0.1, 0.9, "finished"),
    (1e-4, 0.2, 0.5, "pruned"),
    (9e-5, 0.2, 0.5, "failed"),
]


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return find_searches(read_records([write_sweep(tmp_path / "lr", TRIALS, seeds=2)]))[0]


def test_trials_have_parameters_states_and_mean_scores(search: Search) -> None:
    assert [t.number for t in search.trials] == [0, 1, 2, 3]
    assert [t.state for t in search.trials] == ["finished", "finished", "pruned", "failed"]
    assert search.trials[1].parameters == {"optim.lr": 3e-5, "optim.warmup_ratio": 0.1}
    scores = [json.loads((run.path / "result.json").read_text())["metrics"]["validation"]["accuracy"]
              for run in search.trials[1].runs]  # fmt: skip
    assert len(scores) == 2 and search.trials[1].score == pytest.approx(np.mean(scores))


def test_a_pruned_trial_has_its_last_score_and_a_failed_one_none(search: Search) -> None:
    last = [[row for row in run.metrics() if "validation/accuracy" in row][-1] for run in search.trials[2].runs]
    assert search.trials[2].score == pytest.approx(np.mean([row["validation/accuracy"] for row in last]))
    assert search.trials[3].score is None


def test_the_best_is_a_finished_trial(search: Search) -> None:
    assert search.best.number == 1
    assert (search.sampler, search.pruner, search.metric, search.maximises) == ("random", "median", "accuracy", True)


@pytest.mark.parametrize("metric", ["loss", "calibration_error"])
def test_where_smaller_is_better_it_is_minimised(tmp_path: Path, metric: Any) -> None:
    folder = write_sweep(tmp_path / "lr", TRIALS[:2], metric=metric, sampler={"name": "tpe"})
    search = find_searches(read_records([folder]))[0]
    assert search.best.score == min(trial.score for trial in search.trials) and not search.maximises
    assert search.sampler == "tpe"


def test_the_table_of_trials_knows_better_than_the_runs(tmp_path: Path) -> None:
    """Pruned over seeds, a trial's runs are complete; a trial whose worker died continues later."""
    folder = write_sweep(tmp_path / "lr", TRIALS[:2])
    states, scores = ["pruned", "interrupted"], [0.25, None]
    pq.write_table(pa.table({"number": [0, 1], "state": states, "score": scores}), folder / "trials.parquet")
    trials = find_searches(read_records([folder]))[0].trials
    assert [trial.state for trial in trials] == ["pruned", "unfinished"]
    assert trials[0].score == 0.25 and 0 < trials[1].score < 1


def test_a_parameter_that_was_not_searched_in_a_trial_has_no_value(tmp_path: Path) -> None:
    space = {"optim.lr": SPACE["optim.lr"], "optim.warmup_ratio": {"low": 0, "high": 1, "when": {"optim.lr": [3e-5]}}}
    trials = find_searches(read_records([write_sweep(tmp_path / "lr", TRIALS[:2], space=space)]))[0].trials
    assert [trial.parameters["optim.warmup_ratio"] for trial in trials] == [None, 0.1]


def test_runs_outside_sweeps_are_no_trials(make_run: MakeRun) -> None:
    assert find_searches(read_records([make_run()])) == []


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ({"low": 1e-5, "high": 1e-4, "log": True}, "1e-5 to 1e-4, log scale"),
        ({"low": 8, "high": 32, "step": 8}, "8 to 32, in steps of 8"),
        ({"choices": ["linear", "cosine"], "low": None, "when": {}}, "{linear, cosine}"),
        ({"low": 1, "high": 3, "when": {"optim.schedule": "cosine"}}, "1 to 3, where optim.schedule is cosine"),
    ],
)
def test_bounds_as_people_write_them(space: Any, text: str) -> None:
    assert bounds(space) == text
