"""The checklists: numbers over all runs, sentences, and what is asked of the author."""

import json
from pathlib import Path

import pytest

from research.common.errors import UserError
from research.report.checklist import items as checklist
from research.report.checklist import paper_sentences
from research.report.checklist.items import ARR, OLDER, Item
from research.report.grouping import group_runs
from research.report.records import read_records
from research.report.tables import provenance
from research.report.tables.cells import Table
from tests.report.sweeps import write_sweep
from tests.report.synthetic import COST, MakeRun


@pytest.fixture
def answered(make_run: MakeRun, tmp_path: Path) -> dict[str, Item]:
    """Four finished runs, a pruned, a failed and a killed one; a quarter of an hour's device hours each."""
    for seed in range(3):
        make_run(seed=seed)
    make_run(seed=3, status="pruned")
    make_run(seed=4, status="failed")
    make_run(seed=5, status="unfinished")
    make_run(task="ner", data_set="news", seed=0)
    records = read_records([tmp_path / "runs"])
    lists = checklist.write_checklist(records, group_runs(records), tmp_path).lists
    return {item.number: item for items in lists.values() for item in items}


def rows(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_every_item_of_both_lists_is_there(answered: dict[str, Item]) -> None:
    assert [number for number in answered if number[0] in "BC"] == ["B6", "C1", "C2", "C3", "C4"]
    assert [number for number in answered if number[0] in "RHD"] == [
        *(f"R{i}" for i in range(1, 8)), *(f"H{i}" for i in range(1, 6)), *(f"D{i}" for i in range(1, 7))
    ]  # fmt: skip


def test_data_is_reported_per_split(answered: dict[str, Item]) -> None:
    item = answered["B6"]
    assert item.sentence == (
        "Of reviews we use 600 train, 60 validation and 60 test examples. "
        "Of news we use 600 train, 60 validation and 60 test examples."
    )
    table = rows(item.tables[0])
    assert len(table) == 6
    validation = next(row for row in table if row[:2] == ["reviews", "validation"])
    counts = dict(part.split() for part in validation[4].split(", "))
    assert sum(map(int, counts.values())) == 60 and set(counts) == {"negative", "positive"}
    assert validation[5] == "reviews/validation.jsonl"  # of /data/reviews/validation.jsonl, which may name its owner


def test_cost_counts_failed_and_pruned_runs(answered: dict[str, Item]) -> None:
    item = answered["C1"]
    assert "encoder-a has 22.6 M parameters." in item.sentence
    assert "All 7 runs (1 unfinished, 1 pruned and 1 failed among them) took 1.50 CPU process hours" in item.sentence
    assert "on AMD EPYC (2 cores, no GPU)." in item.sentence
    by_state = {row[0]: row[1:3] for row in rows(item.tables[0])}
    assert by_state == {
        "finished": ["4", "1.000"], "unfinished": ["1", "0.000"], "pruned": ["1", "0.250"], "failed": ["1", "0.250"],
        "all": ["7", "1.500"],
    }  # fmt: skip
    assert any("1 run recorded no hours" in question for question in item.questions)
    assert any("Energy was not measured for 7 of 7 runs" in question for question in item.questions)


def test_gpu_hours_and_energy(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run()
    result = json.loads((path / "result.json").read_text())
    result["cost"] = COST | {"device_hours": 8.0, "energy_joules": 7.2e6, "devices": 4}
    (path / "result.json").write_text(json.dumps(result))
    recorded = json.loads((path / "provenance.json").read_text())
    recorded["attempts"][0]["hardware"]["gpus"] = ["NVIDIA A100"] * 4
    (path / "provenance.json").write_text(json.dumps(recorded))
    records = read_records([path])
    sentence = {i.number: i for i in checklist.arr(records, group_runs(records), [])}["C1"].sentence
    assert "took 8.00 GPU hours on 4 × NVIDIA A100." in sentence
    assert "The devices of 1 run used 2.00 kWh." in sentence
    assert provenance.costs(records).rows[-1][-1].text == "2.000"


def test_statistics_say_mean_or_single_run(answered: dict[str, Item], make_run: MakeRun) -> None:
    assert "Scores are means over 1 to 3 runs" in answered["C3"].sentence
    assert "Single runs: encoder-a on news." in answered["C3"].sentence
    spread = {tuple(row[:3]): row for row in rows(answered["C3"].tables[0])}
    assert spread["reviews", "encoder-a", "test"][4] == "3"
    assert spread["news", "encoder-a", "test"][6] == "single run"
    lone = read_records([make_run("alone", data_set="other")])
    assert "Every score is that of a single run" in checklist.arr(lone, group_runs(lone), [])[3].sentence


def test_without_a_search_the_author_is_asked(answered: dict[str, Item]) -> None:
    assert any("no search" in question for question in answered["C2"].questions)
    assert any("no search" in question for question in answered["H2"].questions)


def test_a_search_is_reported_with_bounds_method_trials_and_best(tmp_path: Path) -> None:
    trials = [(1e-5, 0.0, 0.6, "finished"), (3e-5, 0.1, 0.9, "finished"), (1e-4, 0.2, 0.5, "pruned")]
    records = read_records([write_sweep(tmp_path / "sweeps" / "lr", trials)])
    lists = checklist.write_checklist(records, group_runs(records), tmp_path).lists
    item = {i.number: i for i in lists[ARR]}["C2"]
    assert (
        "We searched optim.lr (1e-5 to 1e-4, log scale) and optim.warmup_ratio (0 to 0.2) by random sampling with "
        "median pruning over 3 trials (2 finished and 1 pruned) of 1 seed each, by validation accuracy. The best trial "
        "had optim.lr 3e-5 and optim.warmup_ratio 0.1 (validation accuracy 0."
    ) in item.sentence
    assert item.questions == []
    space = next(table for table in item.tables if table.title.startswith("Space"))
    assert rows(space) == [["optim.lr", "1e-5 to 1e-4, log scale", "3e-5"], ["optim.warmup_ratio", "0 to 0.2", "0.1"]]
    assert {i.number: i for i in lists[OLDER]}["H1"].sentence == (
        "3 training runs were started: 2 finished and 1 pruned. Test data was evaluated 2 times, once a run."
    )


def test_packages_of_one_version_and_of_two(answered: dict[str, Item], make_run: MakeRun, tmp_path: Path) -> None:
    assert answered["C4"].sentence.startswith("We use PyTorch 2.13.0, Transformers 5.23.0 and NumPy 2.4.6. Scores are")
    assert "conlleval" in answered["C4"].sentence
    path = make_run(seed=9)
    recorded = json.loads((path / "provenance.json").read_text())
    recorded["packages"]["torch"] = "2.14.0"
    (path / "provenance.json").write_text(json.dumps(recorded))
    records = read_records([tmp_path / "runs"])
    item = checklist.arr(records, group_runs(records), [])[4]
    assert "PyTorch 2.13.0 and 2.14.0" in item.sentence
    assert any("version of torch" in question for question in item.questions)
    assert ["torch", "2.13.0 (7 runs), 2.14.0 (1 run)"] in rows(item.tables[0])


def test_uncommitted_changes_are_asked_about(make_run: MakeRun) -> None:
    path = make_run()
    recorded = json.loads((path / "provenance.json").read_text())
    recorded["attempts"][0]["code"]["uncommitted_diff"] = "--- a\n+++ b\n"
    (path / "provenance.json").write_text(json.dumps(recorded))
    records = read_records([path])
    item = {i.number: i for i in checklist.older(records, group_runs(records), [])}["R2"]
    assert "commit 4e08262418+" in item.sentence
    assert any("uncommitted" in question for question in item.questions)


def test_runs_from_before_costs_were_recorded_count_their_training(make_run: MakeRun) -> None:
    path = make_run()
    result = json.loads((path / "result.json").read_text())
    del result["cost"]
    (path / "result.json").write_text(json.dumps(result))
    assert provenance.cost(read_records([path])[0]) == {
        "device_hours": 600 / 3600,
        "wall_seconds": 600.0,
        "flops": 1e13,
    }


def test_markdown_has_each_table_once_and_is_escaped(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(data_set="<i>a|b")
    records = read_records([tmp_path / "runs"])
    checklist.write_checklist(records, group_runs(records), tmp_path)
    text = (tmp_path / "checklist.md").read_text(encoding="utf-8")
    assert text.count("\n**Data.**") == 1 and "Table “Data” above." in text
    assert "<i>" not in text and "&lt;i&gt;a\\|b" in text
    assert text.count("- [ ] To the author:") >= 10


def test_runs_that_recorded_nothing_leave_questions_not_errors(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(seed=0)
    killed = make_run(seed=1, status="unfinished")
    for name in ("provenance.json", "metrics.jsonl"):
        (killed / name).unlink()
    records = read_records([tmp_path / "runs"])
    item = checklist.arr(records, group_runs(records), [])[0]
    assert any("1 run ended before its data was recorded" in question for question in item.questions)


def test_each_evaluation_of_test_data_is_counted(make_run: MakeRun, tmp_path: Path) -> None:
    paths = [make_run(str(seed), seed=seed) for seed in range(2)]
    records = read_records(paths)
    assert paper_sentences.runs(records).endswith("Test data was evaluated 2 times, once a run.")
    rows = [{"split": "test"}, {"split": "validation"}, {"split": "test"}, {"split": "test"}]
    (paths[1] / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = paper_sentences.runs(read_records(paths))
    assert said.endswith(
        "Test data was evaluated 5 times: at the end of 2 runs, and 3 times more by `research evaluate`."
    )
    (paths[1] / "evaluations.jsonl").write_text('{"split": "te')
    with pytest.raises(UserError, match=r"evaluations.jsonl is damaged"):
        paper_sentences.runs(read_records(paths))


def test_a_capped_test_set_is_called_what_it_is(make_run: MakeRun) -> None:
    record = read_records([make_run(config={"data.max_eval_examples": 60})])
    assert paper_sentences.data(record) == (
        "Of reviews we use 600 train, 60 (as many as data.max_eval_examples admits) validation and "
        "60 (as many as data.max_eval_examples admits) test examples."
    )


def test_cut_texts_and_counted_labels_are_told(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(seed=0)
    facts = json.loads((run / "provenance.json").read_text())
    counted = {"examples": 600, "cut": 12, "windowed": 0, "labels": {"negative": 250, "positive": 350}}
    facts["data"]["train"]["overview"] = counted
    (run / "provenance.json").write_text(json.dumps(facts))
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "learned": {"labels": ["negative", "positive"]}}))
    records = read_records([run])
    assert paper_sentences.preprocessing(records).endswith("Of reviews 12 of 600 train examples were cut.")
    assert checklist.about_length(records) == [] and checklist.about_data(records) == []
    assert rows(provenance.splits(records))[0][4] == "negative 250, positive 350"
    del facts["data"]["train"]["overview"]
    (run / "provenance.json").write_text(json.dumps(facts))
    older = read_records([run])
    assert "Some runs did not count them" in checklist.about_data(older)[0] and len(checklist.about_length(older)) == 1
