"""Learning curves of active learning: what each round trains on, areas by hand, a second call that trains nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from research.cli import main
from research.data.chosen_ids import read_ids
from research.rounds.active_report import area, with_interval
from research.tracking.run import Run
from tests.conftest import write_jsonl


def test_area_is_the_mean_height() -> None:
    assert area([10, 20, 40], [0.5, 0.7, 0.9]) == pytest.approx((10 * 0.6 + 20 * 0.8) / 30)
    assert area([10], [0.5]) == 0.5
    # t(0.975, 2 degrees) = 4.303, deviation 1, root of 3: 2.484
    assert with_interval(np.array([0.01, 0.02, 0.03])) == "+2.0 (-0.5 to 4.5)"


def write_experiment(folder: Path, model: Path) -> Path:
    data: dict[str, object] = {"max_length": 16, "columns": {"text": "line", "label": "class"}, "max_overlap": 1.0}
    for split, count in (("train", 30), ("test", 12)):
        words = [["good", "bad", "river"][i % 3] for i in range(count)]
        rows = [{"line": f"{word} the film {i} {split}", "class": word} for i, word in enumerate(words)]
        data[split] = str(write_jsonl(folder / f"{split}.jsonl", rows))
    content = {
        "task": "sentiment", "model": {"name": str(model)}, "data": data, "wandb": {"mode": "disabled"},
        "optim": {"max_steps": 3, "batch_size": 4, "lr": 3e-3}, "trainer": {"precision": "fp32", "progress": False},
    }  # fmt: skip
    path = folder / "pool.yaml"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
def test_rounds_chain_and_are_not_made_again(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_experiment(tmp_path, tiny_model), tmp_path / "out"
    arguments = ["simulate-active", str(path), "--start", "4", "--budget", "3", "--rounds", "2", "--seeds", "0,1"]
    arguments += ["--strategy", "badge", "--strategy", "margin", "--output", str(out)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "| strategy | seeds | area | last | against random |" in said and "| badge | 2 |" in said
    found = json.loads((out / "active.json").read_text())
    assert found["score"] == "accuracy" and found["labelled"] == [4, 7, 10] and (out / "active.png").is_file()
    assert [(each["strategy"], each["seed"]) for each in found["curves"]] == [
        (name, seed) for name in ("random", "badge", "margin") for seed in (0, 1)
    ]
    for each in found["curves"]:
        runs = [Run.read(path) for path in each["runs"]]
        ids = [read_ids(str(run.config.data.ids)) for run in runs]
        assert [len(set(shown)) for shown in ids] == [4, 7, 10] and ids[0] == ids[1][:4] and ids[1] == ids[2][:7]
        assert each["scores"] == [(run.result or {})["metrics"]["test"]["accuracy"] for run in runs]
        assert each["area"] == pytest.approx(np.trapezoid(each["scores"], [4, 7, 10]) / 6)
        assert all(set(read_ids(str(run.path / "splits.json"))) == set(own) for run, own in zip(runs, ids, strict=True))
        assert all((run.result or {})["learned"]["labels"] == ["bad", "good", "river"] for run in runs)
        assert runs[0].path.parent.name == "start"  # one sample for all strategies
    times = {run: (Path(run) / "result.json").stat().st_mtime_ns for each in found["curves"] for run in each["runs"]}
    assert main(arguments) == 0  # all is there
    assert times == {run: (Path(run) / "result.json").stat().st_mtime_ns for run in times}
    assert json.loads((out / "active.json").read_text()) == found
    arguments[arguments.index("--budget") + 1] = "2"
    assert main(arguments) == 2 and "was made with other --start or --budget" in capsys.readouterr().err
    arguments[arguments.index("--rounds") + 1] = "20"
    assert main(arguments) == 2
    assert "label 44 examples; the training data have 30." in capsys.readouterr().err


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('["train-0", "no"]', "'no' is the id of no example of"),
        ('["train-0", "train-0"]', "lists the id 'train-0' twice"),
        ('{"a": 1}', "must hold a JSON list of ids"),
        ("[", "cannot be read"),
    ],
)
def test_ids_that_are_none(
    content: str, said: str, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_experiment(tmp_path, tiny_model)
    (tmp_path / "ids.json").write_text(content)
    assert main(["show", str(path), "data.ids=ids.json"]) == 2
    assert said in capsys.readouterr().err
