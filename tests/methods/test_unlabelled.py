"""Methods on unlabelled texts: their formulas by hand, the steps they read, layouts, ranks, kills, strength 0."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from research.batching.plan import StepPlan
from research.batching.unlabelled import PlanWithUnlabelled
from research.cli import main
from research.common.errors import UserError
from research.methods.mean_teacher import risen, squared_distance
from research.methods.uda import consistency, threshold
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.methods.conftest import Build
from tests.methods.strengths import UNLABELLED
from tests.methods.test_every_method import gradients
from tests.small_runs import SmallRuns, assert_same_bits, assert_same_up_to_rounding

CHANGES = {"swap": {"share": 1.0, "rate": 0.5}, "delete": {"share": 1.0, "rate": 0.3}}


def unlabelled(small_runs: SmallRuns) -> Path:
    rows = [
        {"text": f"the {word} film {i} was not {word} in Oslo"} for i, word in enumerate(["good", "bad", "river"] * 7)
    ]
    return write_jsonl(small_runs.folder.parent / "unlabelled.jsonl", rows)


def pseudo(folder: Path, count: int = 21) -> Path:
    """A file of predictions, every third of them below the threshold."""
    p = [[0.9, 0.1] if i % 3 == 0 else [0.2, 0.8] if i % 3 == 1 else [0.45, 0.55] for i in range(count)]
    table = {
        "id": [f"input-{i}" for i in range(count)],
        "prediction": ["negative" if a > b else "positive" for a, b in p],
    }
    pq.write_table(pa.table({**table, "probabilities": p}), folder / "pseudo.parquet")
    return folder / "pseudo.parquet"


def sections(small_runs: SmallRuns, name: str, folder: Path) -> dict[str, Any]:
    own = {**UNLABELLED[name], **({"file": str(pseudo(folder))} if name == "pseudo_labels" else {})}
    data = {"max_length": 48, **small_runs.data["sentiment"], "unlabelled": str(unlabelled(small_runs))}
    return {"methods": {name: own}, "data": data, **({} if name == "pseudo_labels" else {"augment": CHANGES})}


def test_consistency_of_uda_by_hand() -> None:
    written, changed = torch.tensor([[2.0, 0.0], [0.1, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    q = 1 / (1 + math.exp(-2 / 0.4))  # sharpened; the second text's best class has 0.525 and counts nothing
    p = 1 / (1 + math.exp(1))
    by_hand = (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))) / 2
    assert float(consistency(written, changed, 0.4, 0.8)) == pytest.approx(by_hand, rel=1e-5)
    assert float(consistency(written, written, 1.0, 0.0)) == pytest.approx(0.0, abs=1e-7)
    assert float(consistency(written[:0], changed[:0], 0.4, 0.8)) == 0.0


def test_annealing_and_ramp_by_hand() -> None:
    for schedule in ("linear", "log", "exp"):
        assert threshold(schedule, 1.0, 4) == pytest.approx(1.0, abs=0.006)
    assert threshold("linear", 0.5, 4) == pytest.approx(0.5 * 0.75 + 0.25)
    assert threshold("log", 0.2, 2) == pytest.approx((1 - math.exp(-1)) / 2 + 0.5)
    assert threshold("exp", 0.8, 2) == pytest.approx(math.exp(-1) / 2 + 0.5)
    assert risen(0.0, 0.5) == pytest.approx(math.exp(-5)) and risen(0.25, 0.5) == pytest.approx(math.exp(-1.25))
    assert risen(0.5, 0.5) == risen(0.0, 0.0) == 1.0
    # softmax of (0, 0) is (0.5, 0.5), of (log 3, 0) it is (0.75, 0.25): both differ by a quarter
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3), 0.0]])
    assert float(squared_distance(student, teacher)) == pytest.approx(1 / 16)


def test_unlabelled_examples_go_through_their_own_epochs() -> None:
    plan = PlanWithUnlabelled(StepPlan(10, 4, seed=3), np.arange(10, 31), ratio=2)
    labelled = StepPlan(10, 4, seed=3)
    seen = []
    for step in range(6):
        batch = plan.global_batch(step)
        own = labelled.global_batch(step)
        assert batch[: len(own)].tolist() == own.tolist() and plan.steps_per_epoch == labelled.steps_per_epoch
        seen.append(batch[len(own) :].tolist())
    assert sorted(chain(*seen[:3])) == list(range(10, 31)) == sorted(chain(*seen[3:]))
    assert [len(each) for each in seen] == [8, 8, 5, 8, 8, 5] and seen[0] != seen[3]


@pytest.mark.slow
@pytest.mark.parametrize("name", UNLABELLED)
def test_layouts_kills_and_strength_zero(name: str, make: Build, small_runs: SmallRuns, tmp_path: Path) -> None:
    own = sections(small_runs, name, tmp_path)
    expected = gradients(make("sentiment", "optim.batch_size=6", **own))
    plain = gradients(make("sentiment", "optim.batch_size=6"))
    assert any(not torch.equal(g, plain[key]) for key, g in expected.items() if key in plain and key != "loss")
    largest = max(float(g.abs().max()) for key, g in expected.items() if key != "loss")
    for layout in ("trainer.tokens_per_microbatch=1", "trainer.packing=false"):
        got = gradients(make("sentiment", "optim.batch_size=6", layout, **own))
        assert got.keys() == expected.keys()
        for key, g in expected.items():
            difference = float((got[key] - g).abs().max())
            assert difference <= 2e-5 * max(largest, 1.0), f"{layout}, {key}: {difference:.1e}"
    dropout = ("model.dropout=0.1",)
    reference = small_runs.train("sentiment", *dropout, **own)
    arguments, folder = small_runs.stopped(4, "sentiment", *dropout, **own)
    assert main(arguments) == 0
    assert_same_bits(Run(folder), reference)
    assert reference.provenance["data"]["unlabelled"]["examples"] == 21
    off = {
        **own,
        "methods": {name: {**own["methods"][name], "weight": 0.0, **({"tsa": "none"} if name == "uda" else {})}},
    }
    without = {"data": {k: v for k, v in own["data"].items() if k != "unlabelled"}, "augment": own.get("augment", {})}
    assert_same_bits(small_runs.train("sentiment", *dropout, **off), small_runs.train("sentiment", *dropout, **without))


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks(small_runs: SmallRuns, tmp_path: Path) -> None:
    for name in UNLABELLED:
        own = sections(small_runs, name, tmp_path)
        reference = small_runs.train("sentiment", **own)
        assert_same_up_to_rounding(small_runs.train_ranks("sentiment", 2, **own), reference)


@pytest.mark.slow
def test_what_does_not_fit_is_refused(make: Build, small_runs: SmallRuns, tmp_path: Path) -> None:
    def refused(said: str, name: str, **changed: Any) -> None:
        with pytest.raises(UserError, match=said):
            make("sentiment", **{**sections(small_runs, name, tmp_path), **changed})

    own = sections(small_runs, "uda", tmp_path)
    plain = {"max_length": 48, **small_runs.data["sentiment"]}
    refused("methods.uda needs texts without labels: set data.unlabelled", "uda", data=plain)
    refused("methods.uda compares a text with its changed copy: say in augment", "uda", augment={})
    refused("No method of this experiment reads data.unlabelled", "uda", methods={}, augment={})
    refused("methods.uda reads a text in one window", "uda", data={**own["data"], "max_length": 8, "long": "window"})
    refused("each reads the outputs of its own passes", "mean_teacher", methods={**ON_PAIR})
    many = write_jsonl(tmp_path / "tested.jsonl", [{"text": f"film {i} good"} for i in range(60)])
    tested = write_jsonl(
        tmp_path / "test.jsonl", [{"text": f"Film {i}, good!", "label": "negative"} for i in range(60)]
    )
    refused(
        "test.jsonl: test has 60 of 60 texts in common with unlabelled", "uda",
        data={**plain, "unlabelled": str(many), "test": str(tested)},
    )  # fmt: skip
    refused("no prediction of .* is so sure; the surest has 0.900", "pseudo_labels",
            methods={"pseudo_labels": {"file": str(tmp_path / "pseudo.parquet"), "threshold": 0.99}})  # fmt: skip
    refused("needs the predictions of an earlier run", "pseudo_labels", methods={"pseudo_labels": {}})
    (tmp_path / "other").mkdir()
    file = pseudo(tmp_path / "other", 20)
    refused("not predictions of .*unlabelled.jsonl", "pseudo_labels", methods={"pseudo_labels": {"file": str(file)}})


ON_PAIR = {"mean_teacher": UNLABELLED["mean_teacher"], "r_drop": {"alpha": 1.0}}


@pytest.mark.slow
def test_rounds_of_self_training(small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = sections(small_runs, "pseudo_labels", tmp_path)
    own["methods"]["pseudo_labels"] = {"threshold": 0.0}
    (_, path, *_), _ = small_runs.arguments("sentiment", (), own)
    arguments = ["self-train", path, "--rounds", "2", "--output", str(tmp_path / "out"), "seed=1"]
    assert main(arguments) == 0
    assert "| 2 | 21 of 21 |" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "self_training.json").read_text())
    runs = [Run.read(each["run"]) for each in found]
    assert [each["pseudo_labels"] for each in found] == [0, 21, 21] and runs[0].config.methods == {}
    assert runs[2].config.methods["pseudo_labels"].file == str(tmp_path / "out" / "round1" / "predictions.parquet")
    times = [(run.path / "result.json").stat().st_mtime_ns for run in runs]
    assert main(arguments) == 0
    assert times == [(run.path / "result.json").stat().st_mtime_ns for run in runs]
