"""Labels in a hierarchy: scores by hand, answers that keep to it, files that give none, and a run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from research.cli import main
from research.common.errors import UserError
from research.data.hierarchy import path_to, read_hierarchy
from research.metrics.hierarchical import Metric
from research.tasks.hierarchical import answer
from research.tracking.run import Run
from tests.conftest import copied, write_jsonl

PARENTS = {"science": None, "physics": "science", "optics": "physics", "biology": "science", "sport": None}
LABELS = ["biology", "optics", "physics", "science", "sport"]


def test_scores_by_hand() -> None:
    """Kiritchenko's sets: optics is {science, physics, optics}, and so on."""
    golds = ["optics", "optics", "biology", "sport", "science"]
    predictions = ["optics", "biology", "biology", "science", "physics"]
    metric = Metric({"labels": LABELS, "parents": PARENTS})
    scores = metric.score(metric.table(predictions, golds))
    both, predicted, gold = 3 + 1 + 2 + 0 + 1, 3 + 2 + 2 + 1 + 2, 3 + 3 + 2 + 1 + 1
    assert scores["hierarchical_precision"] == both / predicted and scores["hierarchical_recall"] == both / gold
    assert scores["hierarchical_f1"] == pytest.approx(2 * both / (predicted + gold))
    assert scores["accuracy"] == 2 / 5
    assert [scores[f"level_accuracy/{k}"] for k in (1, 2, 3)] == [4 / 5, 2 / 3, 1 / 2]
    assert scores["level_accuracy"] == pytest.approx((4 / 5 + 2 / 3 + 1 / 2) / 3)
    flat = Metric({"labels": ["a", "b"], "parents": {"a": None, "b": None}})
    found = flat.score(flat.table(["a", "b", "a"], ["a", "a", "b"]))
    assert found["hierarchical_f1"] == found["level_accuracy/1"] == found["accuracy"] == 1 / 3


def test_answers_keep_to_the_hierarchy() -> None:
    p = dict(zip(LABELS, (0.25, 0.2, 0.16, 0.05, 0.34), strict=True))
    # sport has more than any other label, but science holds 0.66; under it physics 0.36, of which optics has the most
    assert answer(p, PARENTS) == "optics"
    assert answer({**p, "physics": 0.3}, PARENTS) == "physics"  # more probable than what is below it
    assert answer({"sport": 0.6, "optics": 0.4}, PARENTS) == "sport"
    assert path_to("optics", PARENTS) == ["science", "physics", "optics"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("h.json", '{"a": "b", "b": "c", "c": "a"}', "the hierarchy has a cycle: a -> b -> c -> a."),
        ("h.yaml", "a: b\n", "'b', the parent of 'a', has no entry of its own"),
        ("h.tsv", "a\tb\nb\t\na\t\n", "line 3: 'a' is there twice"),
        ("h.csv", "a,b,c\n", "line 1: write a label, a comma, and its value"),
        ("h.json", "[1]", "must have a line for each label"),
        ("h.json", "{", "cannot be read"),
        ("h.txt", "a", "its suffix must be one of .json, .yaml"),
    ],
)
def test_files_that_are_no_hierarchy(name: str, content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        read_hierarchy(str(tmp_path / name))
    assert said in str(error.value)


@pytest.mark.slow
def test_a_run(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": f"{['good', 'bad', 'river'][i % 3]} film {i}", "label": ["optics", "sport", "science"][i % 3]}
            for i in range(12)]  # fmt: skip
    lines = "".join(f"{label}\t{parent or ''}\n" for label, parent in PARENTS.items())
    (tmp_path / "tree.tsv").write_text(lines)
    file = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    content = {
        "task": {"name": "hierarchical", "hierarchy": "tree.tsv"}, "model": {"name": str(tiny_model)},
        "data": {"train": file, "validation": copied(file), "max_length": 16},
        "optim": {"max_steps": 2, "batch_size": 4},
        "trainer": {"precision": "fp32", "devices": 1}, "wandb": {"mode": "disabled"}, "run_dir": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "e.yaml").write_text(json.dumps(content))
    assert main(["train", str(tmp_path / "e.yaml")]) == 0
    run = Run.read(tmp_path / "run")
    scores = (run.result or {})["metrics"]["validation"]
    assert {"hierarchical_f1", "level_accuracy/3"} <= scores.keys() and "level_accuracy/4" not in scores
    for row in pq.read_table(run.predictions / "validation.parquet").to_pylist():
        assert row["path"] == path_to(row["prediction"], PARENTS)
    (tmp_path / "tree.tsv").write_text("optics\t\nscience\t\n")  # a finished run keeps its own
    assert main(["evaluate", str(run.path), "--split", "validation"]) == 0
    capsys.readouterr()
    assert main(["show", str(tmp_path / "e.yaml")]) == 2
    assert "tree.tsv lacks 1 of the 3 labels: 'sport'; give each its parent" in capsys.readouterr().err
