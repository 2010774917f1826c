"""Few-shot samples: k of each class, nested over sizes, disjoint from their validation data, refused where too few."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from research.cli import main
from research.common.errors import UserError
from research.config.several_runs import load_all
from research.data.shots import shots_of
from research.report.build import build as build_report
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.small_runs import SmallRuns, assert_same_bits, assert_same_up_to_rounding
from tests.tasks.conftest import Build
from tests.tasks.conftest import build as build

ROWS = [{"text": f"film {i}", "label": "aab"[i % 3]} for i in range(60)]  # 40 of a, 20 of b


@pytest.fixture
def task() -> str:
    return "classification"


def test_samples_are_nested_and_depend_on_the_seed() -> None:
    labels = [row["label"] for row in ROWS]
    four, eight = (shots_of(labels, "ab", k, 0, last=False) for k in (4, 8))
    assert set(four) < set(eight) and Counter(labels[i] for i in eight) == {"a": 8, "b": 8}
    assert set(four) != set(shots_of(labels, "ab", 4, 1, last=False))
    last, more = (shots_of(labels, "ab", k, 0, last=True) for k in (4, 8))
    assert set(last) < set(more) and not set(more) & set(eight)


@pytest.mark.slow
def test_train_and_validation_are_drawn_alike(build: Build, tmp_path: Path) -> None:
    drawn = ["data.validation=null", "data.shots=3", "data.shots_seed=5"]
    splits = build(ROWS, *drawn).data.splits
    ids = {name: set(split.rows["id"][:]) for name, split in splits.items()}
    assert len(ids["train"]) == len(ids["validation"]) == 6 and not ids["train"] & ids["validation"]
    assert Counter(splits["validation"].rows["label"][:]) == {"a": 3, "b": 3}
    again = build(ROWS, *drawn, "seed=7").data.splits
    assert set(again["train"].rows["id"][:]) == ids["train"]
    own = build(ROWS, "data.shots=3", "data.max_overlap=1").data.splits  # validation has data of its own
    assert len(own["validation"].rows) == 6


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.validation=null", "data.shots=11"], "class 'b' has 20 examples .* must have 11 to train on and 11 oth"),
        (["data.shots=21"], "class 'b' has 20 examples in .*rows.jsonl, which must have 21; take fewer shots"),
        (["data.shots=2", "data.labels=[a, b, c]"], "class 'c' has 0 examples"),
        (["data.shots=2", "data.max_train_examples=9"], "both say how many to train on"),
    ],
)
def test_too_few_examples_are_refused(build: Build, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build(ROWS, *overrides)


def test_a_task_without_classes_is_refused(small_runs: SmallRuns, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, _ = small_runs.arguments("ner", ["data.shots=2"], {})
    assert main(arguments) == 2
    assert "data.shots=2: task 'ner' has no class for each example" in capsys.readouterr().err


@pytest.mark.slow
def test_samples_by_seeds_and_their_report(small_runs: SmallRuns, tmp_path: Path) -> None:
    """Two samples of two seeds: folders, evaluation again, and a report that tells samples from seeds."""
    train = write_jsonl(tmp_path / "all.jsonl", [{**row, "text": f"{row['text']} good"} for row in ROWS])
    data = {"train": str(train), "test": small_runs.data["sentiment"]["test"], "max_length": 48, "shots": 3}
    test = write_jsonl(tmp_path / "test.jsonl", [{"text": f"book {i}", "label": "ab"[i % 2]} for i in range(13)])
    data["test"] = str(test)
    arguments, folder = small_runs.arguments("sentiment", ["data.shots_seed=13,21", "seed=0,1"], {"data": data})
    assert [Path(str(c.run_dir)).relative_to(folder).as_posix() for c in load_all(arguments[1:])[0]] == [
        f"shots3-{sample}/seed{seed}" for sample in (13, 21) for seed in (0, 1)
    ]
    assert main(arguments) == 0
    run = Run.read(folder / "shots3-13" / "seed0")
    ids = json.loads((run.path / "splits.json").read_text())
    assert {name: len(rows) for name, rows in ids.items()} == {"train": 6, "validation": 6}
    assert main(["evaluate", str(run.path), "--split", "validation"]) == 0
    (again,) = map(json.loads, (run.path / "evaluations.jsonl").read_text().splitlines())
    assert again["scores"]["accuracy"] == run.result["metrics"]["validation"]["accuracy"]
    build_report([str(folder)], tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "few-shot sample" in page and "2 samples with 2 or more seeds each" in page and "both together" not in page


@pytest.mark.slow
@pytest.mark.process
def test_a_few_shot_run_is_resumed_to_the_bit_and_has_its_sample_on_two_ranks(
    small_runs: SmallRuns, tmp_path: Path
) -> None:
    train = write_jsonl(tmp_path / "all.jsonl", [{**row, "text": f"{row['text']} good"} for row in ROWS])
    data = {"train": str(train), "max_length": 48, "shots": 5, "shots_seed": 13}
    reference = small_runs.train("sentiment", "trainer.evaluate_every_steps=2", data=data)
    arguments, folder = small_runs.stopped(3, "sentiment", "trainer.evaluate_every_steps=2", data=data)
    assert main(arguments) == 0
    assert_same_bits(Run(folder), reference)
    two = small_runs.train_ranks("sentiment", 2, "trainer.evaluate_every_steps=2", data=data)
    assert_same_up_to_rounding(two, reference)
    drawn = [json.loads((run.path / "splits.json").read_text()) for run in (reference, Run(folder), two)]
    assert drawn[0] == drawn[1] == drawn[2] and {name: len(ids) for name, ids in drawn[0].items()} == {
        "train": 10, "validation": 10
    }  # fmt: skip
