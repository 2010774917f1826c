"""The numbers of the main table, and which of them count as the best."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from research.report.grouping import group_runs
from research.report.records import ChangedRun, read_records
from research.report.statistics.summary import Summary, pools, summarise
from research.tracking import predictions

MakeRun = Callable[..., Path]


def summaries_of(path: Path) -> tuple[list[Summary], list[str]]:
    grid = group_runs(read_records([path]))
    pooled, notes = pools(grid)
    return summarise(grid, pooled), notes


def test_means_and_deviations_are_those_of_the_results(grid: Path) -> None:
    summaries, notes = summaries_of(grid)
    assert notes == []
    assert len(summaries) == 12  # 2 systems x 3 data sets x validation and test
    for summary in summaries:
        results = [json.loads((run.path / "result.json").read_text()) for run in summary.group.runs]
        scores = [result["metrics"][summary.split][summary.group.metric] for result in results]
        assert summary.mean == pytest.approx(np.mean(scores), abs=1e-12)
        assert summary.deviation == pytest.approx(np.std(scores, ddof=1), abs=1e-12)


@pytest.mark.slow
def test_the_best_and_those_that_tie_with_it_are_marked(make_run: MakeRun, tmp_path: Path) -> None:
    for rate, quality in ((1e-5, 0.9), (2e-5, 0.9), (3e-5, 0.6)):
        for seed in range(4):
            make_run(None, seed=seed, quality=quality, examples=300, config={"optim.lr": rate})
    summaries, _ = summaries_of(tmp_path)
    tested = {s.group.settings["optim.lr"]: s for s in summaries if s.split == "test"}
    assert {tested[1e-5].mark, tested[2e-5].mark} == {"best", "tied"}
    assert tested[3e-5].mark == "" and tested[3e-5].p_value < 0.01
    assert all(s.interval.over == "examples and seeds" and s.mean in s.interval for s in tested.values())
    assert all(s.mark == "" and s.interval is None for s in summaries if s.split == "validation")


def test_single_runs_have_no_deviation_and_intervals_over_examples(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", quality=0.9, config={"optim.lr": 1e-5})
    make_run("b", quality=0.6, config={"optim.lr": 2e-5})
    tested = [s for s in summaries_of(tmp_path)[0] if s.split == "test"]
    assert [s.deviation for s in tested] == [None, None]
    assert [s.interval.over for s in tested] == ["examples", "examples"]


def test_identical_systems_tie_with_p_one(make_run: MakeRun, tmp_path: Path) -> None:
    """Two settings whose predictions are the same file."""
    for seed in range(2):
        first = make_run(None, seed=seed, hashed=False, config={"optim.lr": 1e-5})
        second = make_run(None, seed=seed, hashed=False, config={"optim.lr": 2e-5})
        for name in ("predictions/test.parquet", "predictions/validation.parquet", "result.json"):
            (second / name).write_bytes((first / name).read_bytes())
    best, other = [s for s in summaries_of(tmp_path)[0] if s.split == "test"]
    assert (best.mark, other.mark, other.p_value) == ("best", "tied", 1.0)


def test_predictions_that_do_not_give_the_score_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", config={"optim.lr": 1e-5})
    path = make_run("b", hashed=False, config={"optim.lr": 2e-5})
    table = predictions.read(path / "predictions" / "test.parquet")
    flipped = table.set_column(2, "prediction", table.column("gold"))
    predictions.write(flipped, path / "predictions" / "test.parquet")
    with pytest.raises(ChangedRun, match=r"test accuracy of 1.000000, its result.json says 0\."):
        summaries_of(tmp_path)


def test_edited_predictions_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("a")
    (path / "predictions" / "test.parquet").write_bytes(b"edited")
    with pytest.raises(ChangedRun, match="is not the file the run wrote: its sha256 differs"):
        summaries_of(tmp_path)


def test_runs_without_predictions_leave_the_table_and_a_note(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("a", hashed=False)
    (path / "predictions" / "test.parquet").unlink()
    summaries, notes = summaries_of(tmp_path)
    assert len(notes) == 1 and "reviews: no intervals and no tests." in notes[0]
    assert all(s.interval is None and s.p_value is None for s in summaries)


def test_a_group_without_a_finished_run_has_no_number(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", config={"optim.lr": 1e-5})
    make_run("b", status="failed", config={"optim.lr": 2e-5})
    means = {s.group.settings["optim.lr"]: s.mean for s in summaries_of(tmp_path)[0] if s.split == "test"}
    assert means[2e-5] is None and means[1e-5] is not None


def test_intervals_are_over_the_documents_that_the_data_name(make_run: MakeRun) -> None:
    run = make_run("a", examples=60, hashed=False, config={"data.cluster": "page"})
    for split in ("validation", "test"):
        path = run / "predictions" / f"{split}.parquet"
        table = predictions.read(path)
        predictions.write(table.append_column("page", [[f"page {i // 10}" for i in range(60)]]), path)
    grid = group_runs(read_records([run]))
    pool = next(iter(pools(grid)[0].values()))
    assert pool.counts.unit == "clusters" and pool.counts.ids == [f"page {i}" for i in range(6)]
    assert pool.counts.values[0, :, 1].tolist() == [10.0] * 6  # questions of each
