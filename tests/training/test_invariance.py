"""How a step is laid out, on ranks, in micro-batches, packed or padded, changes speed and nothing else.

Each run is the real command on small random models: dropout off, fp32, one evaluation at the end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from research.cli import main
from tests.attempts import attempt_ranks
from tests.conftest import make_tiny_model, write_jsonl

pytestmark = pytest.mark.slow
STEPS = 16  # of 3 examples: the last step of an epoch has 1, and on 4 ranks one always has none
TASKS = ("sentiment", "ner", "qa")
# Their true gradient is zero, for a softmax does not feel a common shift: AdamW makes steps of rounding noise.
WITHOUT_GRADIENT = {
    "sentiment": ("attention.self.key.bias",),
    "ner": ("attention.self.key.bias",),
    "qa": ("attention.self.key.bias", "layer.1.output.LayerNorm.bias", "qa_outputs.bias"),
}


@dataclass
class Outcome:
    task: str
    losses: list[float]
    weights: dict[str, Tensor]
    scores: dict[str, float]
    predictions: pa.Table


@dataclass
class Runner:
    """Runs the command on one task; what comes out of the reference layout is kept."""

    folder: Path
    experiments: dict[str, Path]
    kept: dict[tuple[str, ...], Outcome]

    def arguments(self, task: str, *overrides: str) -> tuple[list[str], Path]:
        place = self.folder / f"{task}-{len(list(self.folder.iterdir()))}"
        return ["train", str(self.experiments[task]), f"run_dir={place}", *overrides], place

    def run(self, task: str, *overrides: str) -> Outcome:
        """In this process."""
        arguments, place = self.arguments(task, *overrides)
        assert main(arguments) == 0
        return read(task, place)

    def reference(self, task: str, *overrides: str) -> Outcome:
        """One rank, one micro-batch, packed, rows of the embedding."""
        key = (task, *overrides)
        if key not in self.kept:
            self.kept[key] = self.run(task, *overrides)
        return self.kept[key]

    def run_ranks(self, task: str, ranks: int, *overrides: str) -> Outcome:
        """As the command does it: processes of their own, which talk by gloo."""
        arguments, place = self.arguments(
            task, f"trainer.devices={ranks}", "trainer.accelerator=cpu", "trainer.strategy=ddp", *overrides
        )
        code, output = attempt_ranks(arguments, ranks, self.folder / f"{place.name}.log")
        assert code == 0, output[-4000:]
        attempts = json.loads((place / "provenance.json").read_text())["attempts"]
        assert [attempt["ranks"] for attempt in attempts] == [ranks]
        return read(task, place)


def read(task: str, place: Path) -> Outcome:
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return Outcome(
        task=task,
        losses=[row["train/loss"] for row in rows if "train/loss" in row],
        weights=load_file(place / "model" / "model.safetensors"),
        scores=json.loads((place / "result.json").read_text())["metrics"]["validation"],
        predictions=pq.read_table(place / "predictions" / "validation.parquet"),
    )


@pytest.fixture(scope="module")
def runner(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, task_data: dict[str, dict[str, str]], forkserver: None
) -> Runner:
    folder = tmp_path_factory.mktemp("invariance")
    (folder / "runs").mkdir()
    experiments = {}
    for task in TASKS:
        train = [json.loads(line) for line in Path(task_data[task]["train"]).read_text().splitlines()]
        if task == "ner":  # words that leave no token: these sentences have no target
            for i, row in enumerate(train[3::9]):
                row.update(tokens=["\u200b"] * (1 + i % 2), tags=["O"] * (1 + i % 2))
        content: dict[str, Any] = {
            "task": task,
            "model": {"name": str(tiny_model), "dropout": 0.0},
            "data": {
                "train": str(write_jsonl(folder / f"{task}.jsonl", train)),
                "validation": task_data[task]["validation"],
                "max_length": 48,  # some contexts need several windows
                "stride": 8,
            },
            "optim": {"batch_size": 3, "max_steps": STEPS, "lr": 5e-4, "warmup_ratio": 0.25, "weight_decay": 0.1},
            "trainer": {"precision": "fp32", "log_every_steps": 1, "evaluate_every_steps": STEPS, "progress": False},
            "wandb": {"mode": "disabled"},
        }
        experiments[task] = folder / f"{task}.yaml"
        experiments[task].write_text(yaml.safe_dump(content))
    return Runner(folder / "runs", experiments, {})


def assert_same_up_to_rounding(got: Outcome, expected: Outcome) -> None:
    assert len(expected.losses) == STEPS
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-5)
    assert got.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        if not name.endswith(WITHOUT_GRADIENT[expected.task]):
            difference = float((got.weights[name] - weight).abs().max())
            largest = max(float(weight.abs().max()), 0.02)  # biases start at zero and have no scale of their own
            assert difference <= 1e-5 * largest, f"{name}: {difference:.1e}"
    assert got.scores.keys() == expected.scores.keys()
    for name, score in expected.scores.items():
        assert got.scores[name] == pytest.approx(score, rel=1e-5), name
    assert_same_rows(got.predictions, expected.predictions)


def assert_same_rows(got: pa.Table, expected: pa.Table) -> None:
    """Every row once, in order, with the same answers; probabilities and scores up to rounding."""
    assert got.schema.metadata == expected.schema.metadata
    assert got.num_rows == expected.num_rows == 21
    assert len(set(got.column("id").to_pylist())) == 21
    for row, (a, b) in enumerate(zip(got.to_pylist(), expected.to_pylist(), strict=True)):
        for name in b:
            if name == "n_best":
                a[name], b[name] = from_the_best(a[name]), from_the_best(b[name])
            assert close(a[name], b[name]), f"row {row}, {name}: {a[name]} and {b[name]}"


def from_the_best(spans: list[dict[str, Any]]) -> list[Any]:
    """The best span and how far the others are behind: what all logits share is noise, and equals have no order."""
    return [spans[0]["text"], *(span["score"] - spans[0]["score"] for span in spans)]


def close(a: Any, b: Any) -> bool:
    if isinstance(b, float):
        return a == pytest.approx(b, rel=1e-4, abs=1e-5)
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in b)
    if isinstance(b, list):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(a == b)


def assert_bit_equal(got: Outcome, expected: Outcome) -> None:
    assert got.losses == expected.losses
    assert all(torch.equal(got.weights[name], weight) for name, weight in expected.weights.items())
    assert got.scores == expected.scores
    assert got.predictions.equals(expected.predictions)


LAYOUTS = {
    "an example each": ("trainer.tokens_per_microbatch=1",),
    "some micro-batches": ("trainer.tokens_per_microbatch=60",),
    "padded": ("trainer.packing=false",),
    "padded, some micro-batches": ("trainer.packing=false", "trainer.tokens_per_microbatch=60"),
    "dense embedding": ("trainer.sparse_embedding=false",),
    "dense, padded, an example each": (
        "trainer.sparse_embedding=false",
        "trainer.packing=false",
        "trainer.tokens_per_microbatch=1",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("task", TASKS)
def test_layout_on_one_rank(runner: Runner, task: str, layout: str) -> None:
    assert_same_up_to_rounding(runner.run(task, *LAYOUTS[layout]), runner.reference(task))


@pytest.mark.parametrize("task", TASKS)
def test_two_ranks(runner: Runner, task: str) -> None:
    """With micro-batches of different number on each, packed; for the word tagger padded and dense."""
    other = ("trainer.packing=false", "trainer.sparse_embedding=false") if task == "ner" else ()
    got = runner.run_ranks(task, 2, "trainer.tokens_per_microbatch=40", *other)
    assert_same_up_to_rounding(got, runner.reference(task))


def test_texts_of_several_windows_in_any_layout(runner: Runner) -> None:
    """Scores and predictions are of texts, however their windows lie in micro-batches and on ranks."""
    long = ("data.long=window", "data.max_length=12")
    expected = runner.reference("sentiment", *long)
    assert expected.losses != runner.reference("sentiment", "data.max_length=12").losses
    for layout in ("an example each", "padded, some micro-batches"):
        assert_same_up_to_rounding(runner.run("sentiment", *long, *LAYOUTS[layout]), expected)
    assert_same_up_to_rounding(runner.run_ranks("sentiment", 2, *long, "trainer.tokens_per_microbatch=40"), expected)


def test_two_ranks_train_what_one_rank_trains(runner: Runner, tmp_path: Path) -> None:
    """A model with parameters that no loss reaches: DDP would wait for their gradients indefinitely."""
    model = make_tiny_model(tmp_path / "layoutlm", "layoutlm", max_2d_position_embeddings=32)
    one, two = runner.run("ner", f"model.name={model}"), runner.run_ranks("ner", 2, f"model.name={model}")
    assert_same_up_to_rounding(two, one)
    unused = {name: w for name, w in load_file(model / "model.safetensors").items() if "pooler" in name}
    assert len(unused) == 2
    for name, weight in unused.items():
        assert torch.equal(two.weights[f"layoutlm.{name}"], weight), name


@pytest.mark.parametrize("task", TASKS)
def test_four_ranks_of_which_one_has_nothing(runner: Runner, task: str) -> None:
    assert_same_up_to_rounding(runner.run_ranks(task, 4), runner.reference(task))


@pytest.mark.parametrize(("task", "ranks"), [("sentiment", 2), ("ner", 4), ("qa", 2)])
def test_ranks_that_share_the_model_out(runner: Runner, task: str, ranks: int) -> None:
    """The ranks would wait indefinitely if they had not equally many micro-batches, in training and in evaluation."""
    got = runner.run_ranks(task, ranks, "trainer.strategy=fsdp", "trainer.tokens_per_microbatch=40")
    assert_same_up_to_rounding(got, runner.reference(task))


def test_the_reference_moves(runner: Runner) -> None:
    """Or all of the above would hold of a harness that does nothing."""
    for task in TASKS:
        still = runner.run(task, "optim.lr=1e-12")
        got = runner.reference(task)
        assert max(abs(a - b) for a, b in zip(got.losses, still.losses, strict=True)) > 1e-3
        assert all(
            float((got.weights[name] - weight).abs().max()) > 1e-3
            for name, weight in still.weights.items()
            if not name.endswith((*WITHOUT_GRADIENT[task], "position_embeddings.weight", "type_embeddings.weight"))
        )


def test_a_step_without_any_target_changes_nothing_but_decays(runner: Runner) -> None:
    """A batch of one sentence of control characters: no NaN, no gradient."""
    got = runner.run("ner", "optim.batch_size=1")
    assert np.isfinite(got.losses).all()
    assert 0.0 in got.losses
    assert all(torch.isfinite(weight).all() for weight in got.weights.values())


def test_the_same_command_gives_the_same_bits(runner: Runner) -> None:
    for task in TASKS:
        assert_bit_equal(runner.run(task), runner.reference(task))


def test_loader_threads_change_no_bit(runner: Runner) -> None:
    for workers, task in product((0, 3), TASKS):
        assert_bit_equal(runner.run(task, f"data.num_workers={workers}"), runner.reference(task))


def test_dropout_gives_the_same_bits_twice(runner: Runner) -> None:
    first = runner.run("sentiment", "model.dropout=0.1")
    assert_bit_equal(runner.run("sentiment", "model.dropout=0.1", "data.num_workers=2"), first)
    assert first.losses != runner.reference("sentiment").losses


def test_the_two_seeds_move_independently(runner: Runner) -> None:
    base = runner.run("sentiment", "optim.lr=1e-12", "seed=3")
    order = runner.run("sentiment", "optim.lr=1e-12", "seed=3", "seed_order=4")
    init = runner.run("sentiment", "optim.lr=1e-12", "seed=3", "seed_init=4")
    both = runner.run("sentiment", "optim.lr=1e-12", "seed_init=3", "seed_order=3")
    head = "classifier.weight"

    def close_to(outcome: Outcome) -> bool:
        return torch.allclose(outcome.weights[head], base.weights[head], atol=1e-9)

    assert_bit_equal(both, base)
    assert close_to(order) and not close_to(init)  # the head is drawn from seed_init
    assert sorted(np.round(order.losses, 6)) != sorted(np.round(base.losses, 6))  # other examples meet in a step
    encoder = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.allclose(init.weights[encoder], base.weights[encoder], atol=1e-9)  # pretrained weights stay
