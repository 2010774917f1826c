"""R-Drop, FGM, the average of the weights and the decay by layer: their formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from research.batching.pack import MicroBatch, pack
from research.batching.repeat import twice
from research.cli import main
from research.methods.divergence import symmetric_divergence
from research.training import checkpoint
from research.training.module import TaskModule
from tests.methods.conftest import Build
from tests.methods.strengths import SHIFTED
from tests.small_runs import TASKS, SmallRuns


def micro_of(module: TaskModule, count: int = 7) -> MicroBatch:
    return pack(module.data.stores["train"], np.arange(count), module.backbone.packed)


def test_symmetric_divergence_is_torchs() -> None:
    """The mean of both directions, also where a class is not there (a padded position)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 6, generator=generator)
    logits[2, 4:] = logits[7, 4:] = -torch.inf
    logits.requires_grad_()
    p, q = torch.log_softmax(logits, -1).chunk(2)
    there = p > -torch.inf
    p, q = p.masked_fill(~there, -1e9), q.masked_fill(~there, -1e9)
    both = [F.kl_div(a, b, reduction="sum", log_target=True) for a, b in ((p, q), (q, p))]
    got = symmetric_divergence(logits)
    assert float(got.detach()) == pytest.approx(float(sum(both).detach()) / 2, rel=1e-5)
    got.backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all()) and bool(logits.grad.any())
    assert float(symmetric_divergence(torch.cat([logits[:5], logits[:5]])).detach()) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("packing", ["auto", "false"])
def test_r_drop_is_the_papers_loss(task: str, packing: str, make: Build, tmp_path: Path) -> None:
    """Half of both cross entropies and alpha times the mean divergence, each from a pass of its own."""
    (tmp_path / "shifted.py").write_text(SHIFTED)
    module = make(task, f"trainer.packing={packing}", methods={str(tmp_path / "shifted.py"): {"alpha": 2.0}})
    for p in module.backbone.model.parameters():  # or the tokens of a random model hardly feel one another
        p.data.mul_(5 if p.ndim > 1 else 1)
    [method] = module.methods.values()
    micro = micro_of(module)
    both = method.pair(micro)  # type: ignore[attr-defined]
    other = micro_of(module)
    other.tokens["input_ids"] = both.tokens["input_ids"][micro.size :]
    (first, a), (second, b) = module.loss(micro), module.loss(other)
    divergences = []

    def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(logits, -1).clamp(min=-1e9)

    for pair in zip(module.target_logits(micro, a), module.target_logits(other, b), strict=True):
        one, two = map(log_probabilities, pair)
        divergences.append(
            sum(F.kl_div(x, y, reduction="sum", log_target=True) for x, y in ((one, two), (two, one))) / 2
        )
    expected = (first + second) / 2 + 2.0 * torch.stack(divergences).mean()  # type: ignore[arg-type]
    got = module.training_loss(micro)[0]
    assert float(got) == pytest.approx(float(expected), rel=1e-5) and float(first) != float(second)
    plain = make(task, f"trainer.packing={packing}", methods={"r_drop": {"alpha": 2.0}})
    plain.load_state_dict(module.state_dict())
    assert float(plain.training_loss(micro)[0]) == pytest.approx(
        float(first), rel=1e-5
    )  # without dropout: no divergence


def test_twice_keeps_examples_apart(make: Build) -> None:
    micro = micro_of(make("choice"), 3)
    both = twice(micro)
    assert both.size == 2 * micro.size and len(set(both.examples.tolist())) == 6
    assert both.tokens["input_ids"].tolist() == 2 * micro.tokens["input_ids"].tolist()


@pytest.mark.slow
def test_ema_is_the_average_of_all_steps(small_runs: SmallRuns) -> None:
    """By its formula, from the raw weights of each checkpoint; the model that is scored and exported is the average."""
    kept = ("trainer.keep=9", "trainer.keep_checkpoints=all")
    keep = ("trainer.checkpoint_every_steps=1", "optim.warmup_ratio=0", *kept)
    run = small_runs.train("sentiment", *keep, methods={"ema": {"decay": 0.5}})
    saved = {checkpoint.step_of(path): load_file(path) for path in checkpoint.files(run.checkpoints)}
    assert sorted(saved) == [1, 2, 3, 4, 5, 6]
    name = "model.bert.encoder.layer.0.output.dense.weight"
    average = load_file(small_runs.model / "model.safetensors")[name.removeprefix("model.bert.")]
    for t in range(1, 7):
        decay = min(0.5, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * saved[t][name]
        torch.testing.assert_close(saved[t][name.replace("model.", "method.ema.", 1)], average, atol=1e-6, rtol=1e-5)
    exported = load_file(run.model / "model.safetensors")[name.removeprefix("model.")]
    best = (run.result or {})["best_step"]
    assert torch.equal(exported, saved[best][name.replace("model.", "method.ema.", 1)])
    assert not torch.equal(exported, saved[best][name])
    metrics = (run.result or {})["metrics"]
    assert main(["evaluate", str(run.path)]) == 0
    assert f'"loss": {metrics["test"]["loss"]:.5f}'[:14] in (run.path / "evaluations.jsonl").read_text()


def test_layer_decay_halves_each_layer_below(make: Build) -> None:
    module = make("sentiment", methods={"layer_decay": {"rate": 0.5}})
    factors = {name: module.rate_factor(name) for name, _ in module.named_parameters()}
    for part, factor in {
        "backbone.model.classifier": 1.0, "backbone.model.bert.pooler": 1.0, "backbone.model.bert.encoder.layer.1": 0.5,
        "backbone.model.bert.encoder.layer.0": 0.25, "backbone.model.bert.embeddings": 0.125,
    }.items():  # fmt: skip
        assert {value for name, value in factors.items() if name.startswith(f"{part}.")} == {factor}, part
    assert module.rows is not None and module.rows_factor == 0.125
    optimizer: Any = module.configure_optimizers()
    assert {group["factor"] for group in optimizer.param_groups} == {1.0, 0.5, 0.25, 0.125}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(factors) - 1  # without the rows


@pytest.mark.slow
def test_layer_decay_moves_lower_layers_less(small_runs: SmallRuns) -> None:
    """AdamW's first step is the learning rate itself in each weight that has a gradient."""
    run = small_runs.train(
        "sentiment", "optim.max_steps=1", "optim.warmup_ratio=0", "optim.weight_decay=0", "optim.eps=1e-12",
        methods={"layer_decay": {"rate": 0.5}},
    )  # fmt: skip
    before, after = load_file(small_runs.model / "model.safetensors"), load_file(run.model / "model.safetensors")
    for name, factor in {
        "encoder.layer.1.output.dense.weight": 0.5,
        "encoder.layer.0.output.dense.weight": 0.25,
        "embeddings.word_embeddings.weight": 0.125,
    }.items():
        moved = (after[f"bert.{name}"] - before[name]).abs().max()
        assert float(moved) == pytest.approx(5e-3 * factor, rel=1e-2), name
