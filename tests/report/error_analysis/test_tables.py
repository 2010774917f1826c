"""Error analysis of every system of a study: tables, CSV files, what is left out."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from research.common.errors import UserError
from research.report import figures
from research.report.error_analysis import tables as errors
from research.report.error_analysis.tables import ErrorAnalysis
from research.report.grouping import group_runs
from research.report.records import read_records
from research.report.tables.cells import Table, per_cent
from research.tracking import predictions
from tests.report import handmade
from tests.report.synthetic import MakeRun


def tables_of(analysed: ErrorAnalysis) -> dict[str, Table]:
    return {table.title: table for tables in analysed.sections.values() for table in tables}


def rows(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


@pytest.fixture
def analysed(grid: Path, tmp_path: Path) -> dict[str, Table]:
    return tables_of(errors.analyse_errors(group_runs(read_records([grid])), tmp_path / "errors"))


@pytest.mark.slow
def test_every_section_has_its_tables(analysed: dict[str, Table], tmp_path: Path) -> None:
    assert set(analysed) == {
        *(f"{kind} {name}" for name in ("reviews", "news", "wiki")
          for kind in ("Slices of", "Most confidently wrong on", "Agreement on", "Where the two best differ on")),
        "Kinds of error on news", "Worst examples of news", "Worst examples of wiki",
    }  # fmt: skip
    assert len(list((tmp_path / "errors").glob("*.csv"))) == len(analysed)


def test_slices_stand_side_by_side_with_the_runs_behind_them(analysed: dict[str, Table], grid: Path) -> None:
    table = analysed["Slices of reviews"]
    labels = [row for row in table.rows if row[0].text == "gold label"]
    assert [(row[1].text, row[2].text) for row in labels] == [
        ("negative", "lr 3e-5"), ("negative", "lr 1e-4"), ("positive", "lr 3e-5"), ("positive", "lr 1e-4"),
    ]  # fmt: skip
    assert len(labels[0][5].runs) == 5
    # the accuracy on a label is its recall, which the runs recorded
    recorded = [record.scores("test")["recall/negative"] for record in read_records(labels[0][5].runs)]
    assert labels[0][5].value == pytest.approx(np.mean(recorded))


def test_entity_errors_are_counted_per_run(analysed: dict[str, Table]) -> None:
    table = analysed["Kinds of error on news"]
    total = next(row for row in rows(table) if row[:2] == ["lr 3e-5", "all"])
    correct, kind, boundary, both, missed, spurious = map(float, total[2:])
    gold = correct + kind + boundary + both + missed
    by_type = [row for row in rows(table) if row[0] == "lr 3e-5" and row[1] != "all"]
    assert {row[1] for row in by_type} == {"LOC", "ORG", "PER"}
    assert sum(float(row[2]) for row in by_type) == pytest.approx(correct, abs=0.2)
    worse = next(row for row in rows(table) if row[:2] == ["lr 1e-4", "all"])
    assert sum(map(float, worse[2:7])) == pytest.approx(gold, abs=0.2)  # the same gold entities
    assert float(worse[2]) < correct and spurious > 0


def test_the_worst_and_the_most_confident_mistakes(analysed: dict[str, Table], grid: Path) -> None:
    worst = [row for row in analysed["Worst examples of wiki"].rows]
    scores = [row[1].value for row in worst]
    assert scores == sorted(scores) and scores[-1] < 1 and len(worst) == errors.MOST_EXAMPLES
    wrong = analysed["Most confidently wrong on reviews"].rows
    sure = [row[1].value for row in wrong]
    assert sure == sorted(sure, reverse=True)
    runs = [handmade.examples(record.predictions("test")) for record in read_records(wrong[0][1].runs)]
    for row in wrong:
        i = runs[0].ids.index(row[0].text)
        assert np.mean([not run.right[i] for run in runs]) > 0.5
        assert row[1].value == pytest.approx(np.mean([run.confidence[i] for run in runs if not run.right[i]]))


def test_agreement_adds_up(analysed: dict[str, Table]) -> None:
    (row,) = analysed["Agreement on reviews"].rows
    assert (row[0].text, row[1].text) == ("lr 3e-5", "lr 1e-4")
    assert sum(cell.value for cell in row[2:6]) == pytest.approx(1)
    assert row[3].value > row[4].value  # the better system alone is right more often
    assert rows(analysed["Agreement on wiki"])[0][-1] == ""  # no labels, no kappa


def test_csv_has_unrounded_numbers(analysed: dict[str, Table], tmp_path: Path) -> None:
    with open(tmp_path / "errors" / "agreement-on-reviews.csv", newline="", encoding="utf-8") as file:
        header, row = csv.reader(file)
    assert header[2] == "both right"
    assert float(row[2]) == analysed["Agreement on reviews"].rows[0][2].value


def test_kept_evaluations_give_a_data_map(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(keep_predictions=True)
    table = tables_of(errors.analyse_errors(group_runs(read_records([tmp_path / "runs"])), tmp_path / "errors"))[
        "Data map of reviews"
    ]
    assert [row[0].text for row in table.rows] == ["easy"] * 5 + ["ambiguous"] * 5 + ["hard"] * 5
    easy, hard = table.rows[0], table.rows[10]
    assert easy[2].value > 0.8 > 0.4 > hard[2].value


def test_unseen_entities_where_the_training_split_was_evaluated(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run(task="ner", data_set="news", examples=80)
    folder = path / "predictions"
    predictions.write(predictions.read(folder / "test.parquet").slice(0, 10), folder / "train.parquet")
    table = tables_of(errors.analyse_errors(group_runs(read_records([path])), tmp_path / "errors"))["Slices of news"]
    assert {row[1].text for row in table.rows if row[0].text == "entity in training"} == {"seen", "unseen"}


def test_a_single_system_has_no_agreement(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    found = errors.analyse_errors(group_runs(read_records([tmp_path / "runs"])), tmp_path / "errors")
    assert "Agreement" not in found.sections and found.notes == []


def test_a_table_without_rows_is_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(examples=4)  # fewer than a slice has
    found = errors.analyse_errors(group_runs(read_records([tmp_path / "runs"])), tmp_path / "errors")
    assert "Slices" not in found.sections and found.sections["Examples"]
    assert not list((tmp_path / "errors").glob("slices*"))


def test_runs_without_predictions_are_reported(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run()
    for file in (path / "predictions").glob("*.parquet"):
        file.unlink()
    found = errors.analyse_errors(group_runs(read_records([path])), tmp_path / "errors")
    assert found == errors.ErrorAnalysis({}, ["reviews: the runs have no predictions to analyse."])


@pytest.mark.slow
def test_predictions_of_an_unknown_form_are_left_alone(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run(keep_predictions=True, hashed=False)
    for file in (path / "predictions").glob("*.parquet"):
        table = predictions.read(file)
        reported = json.dumps({"scorer": "labels", "labels": []}).encode()
        columns = {name: table.column(name) for name in table.column_names} | {"gold": [["a", "b"]] * len(table)}
        predictions.write(pa.table(columns).replace_schema_metadata({predictions.KEY: reported}), file)
    records = read_records([path])
    assert errors.analyse_errors(group_runs(records), tmp_path / "errors").sections == {}
    names = [path.stem for path in figures.draw_figures(group_runs(records), records, tmp_path / "figures")]
    assert names == ["learning-reviews"]


def test_edited_predictions_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run()
    table = predictions.read(path / "predictions" / "test.parquet")
    predictions.write(table.slice(1), path / "predictions" / "test.parquet")
    with pytest.raises(UserError, match=r"test\.parquet is not the file the run wrote"):
        errors.analyse_errors(group_runs(read_records([path])), tmp_path / "errors")


def test_the_best_of_many_systems_are_analysed_and_the_others_named(make_run: MakeRun, tmp_path: Path) -> None:
    for i in range(errors.MOST_SYSTEMS + 2):
        make_run(quality=0.5 + 0.05 * i, config={"optim.lr": 1e-5 * (i + 1)})
    found = errors.analyse_errors(group_runs(read_records([tmp_path / "runs"])), tmp_path / "errors")
    assert found.notes == ["Errors of reviews: The 6 best of 8 systems by validation score."]
    assert len(tables_of(found)["Agreement on reviews"].rows) == errors.MOST_SYSTEMS - 1


def test_shares_are_shown_in_per_cent_and_kept_as_fractions() -> None:
    shown = per_cent(0.12345)
    assert (shown.text, shown.value) == ("12.3", 0.12345) and per_cent(float("nan")).text == ""
