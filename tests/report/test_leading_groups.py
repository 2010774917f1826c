"""Which systems are shown where there are too many."""

from pathlib import Path

from research.report.grouping import group_runs
from research.report.groups import best_group, leading_groups, left_out_note, runs_with_predictions, validation_mean
from research.report.records import read_records
from tests.report.synthetic import MakeRun


def test_the_best_by_validation_are_kept_in_the_order_of_the_table(make_run: MakeRun, tmp_path: Path) -> None:
    for rate, quality in ((1e-5, 0.6), (2e-5, 0.95), (3e-5, 0.5), (4e-5, 0.8)):
        make_run(quality=quality, examples=400, config={"optim.lr": rate})
    make_run(data_set="other", config={"optim.lr": 1e-5})
    grid = group_runs(read_records([tmp_path / "runs"]))
    assert [g.system for g in leading_groups(grid, "reviews", 2)] == ["lr 2e-5", "lr 4e-5"]
    assert len(leading_groups(grid, "reviews", 4)) == 4
    assert best_group(grid, "reviews").system == "lr 2e-5"
    assert left_out_note(2, grid, "reviews") == " The 2 best of 4 systems by validation score."
    assert left_out_note(4, grid, "reviews") == ""


def test_a_group_without_a_finished_run_is_not_shown(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(config={"optim.lr": 1e-5})
    make_run(config={"optim.lr": 2e-5}, status="failed")
    assert [g.system for g in leading_groups(group_runs(read_records([tmp_path / "runs"])), "reviews", 9)] == [
        "lr 1e-5"
    ]


def test_runs_that_lost_their_predictions_are_not_read(make_run: MakeRun, tmp_path: Path) -> None:
    kept, lost = make_run(seed=0), make_run(seed=1)
    (lost / "predictions" / "test.parquet").unlink()
    (only,) = group_runs(read_records([tmp_path / "runs"])).groups
    assert [run.path for run in runs_with_predictions(only)] == [kept]
    assert 0 < validation_mean(only) < 1
