"""One optimiser step: the loss's denominator, and what happens when a micro-batch runs out of memory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from research.batching.pack import MicroBatch, pack
from research.batching.plan import micro_batches
from research.cli import main
from research.config.component import choose
from research.config.schema import Config
from research.training.build import build
from research.training.module import TaskModule


def config_of(task: str, tiny_model: Path, task_data: dict[str, dict[str, str]], **optim: Any) -> Config:
    config: Any = Config(task=choose("task", task))
    config.model.name, config.model.dropout = str(tiny_model), 0.0
    config.data.train, config.data.max_length = task_data[task]["train"], 48
    if task != "sentiment":
        config.task.stride = 8
    config.trainer.precision = "fp32"
    for name, value in optim.items():
        setattr(config.optim, name, value)
    return config


def smoothed(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Mean label-smoothed cross entropy, window by window: (N, L) logits, minus infinity after a window's end."""
    losses = []
    for row, label in zip(logits, target, strict=True):
        real = row[row > -torch.inf][None]
        losses.append(F.cross_entropy(real, label[None], label_smoothing=smoothing))
    return torch.stack(losses).mean()


def expected_loss(module: TaskModule, micro: MicroBatch, smoothing: float) -> Tensor:
    """torch's own weighted mean over the whole batch at once."""
    outputs: Any = module.outputs(micro)
    if module.config.task.name == "qa":
        start, end = outputs
        starts, ends = micro.sequences["start"], micro.sequences["end"]
        return (smoothed(start, starts, smoothing) + smoothed(end, ends, smoothing)) / 2
    labels = micro.sequences["label"] if module.config.task.name == "sentiment" else micro.tokens["label"]
    weights = module.data.class_weights
    weight = None if weights is None else torch.from_numpy(weights).float()
    return F.cross_entropy(outputs, labels, weight, label_smoothing=smoothing)


SETTINGS = [
    ("sentiment", {}),
    ("sentiment", {"label_smoothing": 0.1, "class_weights": {"positive": 3.5}}),
    ("sentiment", {"label_smoothing": 0.2, "balance_classes": True}),
    ("ner", {"class_weights": {"O": 0.2, "B-PER": 5.0}}),
    ("ner", {"label_smoothing": 0.1, "balance_classes": True}),
    ("qa", {}),
    ("qa", {"label_smoothing": 0.1}),
]


@pytest.mark.in_check(3)
@pytest.mark.parametrize(("task", "optim"), SETTINGS, ids=lambda x: x if isinstance(x, str) else "-".join(x) or "plain")
def test_loss_is_torchs_mean_for_any_cut(
    task: str, optim: dict[str, Any], tiny_model: Path, task_data: dict[str, dict[str, str]]
) -> None:
    """The sum over micro-batches / the sum of the weights of all targets = the mean over the batch."""
    module = build(config_of(task, tiny_model, task_data, **optim)).train()
    store, batch = module.data.stores["train"], np.arange(3, 28)
    with torch.no_grad():
        expected = expected_loss(module, pack(store, batch), optim.get("label_smoothing", 0.0))
        for budget in (10**6, 200, 60, 1):
            parts = micro_batches(batch, store.stream_tokens[batch], budget)
            total = sum(module.loss(pack(store, part))[0] for part in parts)
            assert float(total) / store.targets[batch].sum() == pytest.approx(float(expected), rel=2e-6)
    assert len(parts) == 25


def test_smoothing_and_weights_are_for_training_alone(tiny_model: Path, task_data: dict[str, dict[str, str]]) -> None:
    optim = {"label_smoothing": 0.1, "class_weights": {"positive": 3.5}}
    weighted = build(config_of("sentiment", tiny_model, task_data, **optim)).eval()
    plain = build(config_of("sentiment", tiny_model, task_data)).eval()
    micro = pack(plain.data.stores["train"], np.arange(10))
    with torch.no_grad():
        assert float(weighted.loss(micro)[0]) == float(plain.loss(micro)[0])
        assert float(weighted.train().loss(micro)[0]) != float(plain.train().loss(micro)[0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_micro_batch_without_targets_adds_exactly_zero(
    smoothing: float, tiny_model: Path, task_data: dict[str, dict[str, str]]
) -> None:
    module = build(config_of("ner", tiny_model, task_data, label_smoothing=smoothing)).train()
    micro = pack(module.data.stores["train"], np.array([4]))
    micro.tokens["label"] = torch.full_like(micro.tokens["label"], -100)
    loss, _ = module.loss(micro)
    loss.backward()
    assert loss.item() == 0.0
    assert all(not p.grad.any() for p in module.parameters() if p.grad is not None)


@pytest.fixture
def experiment(tmp_path: Path, tiny_model: Path, task_data: dict[str, dict[str, str]]) -> Path:
    file = tmp_path / "sentiment.yaml"
    file.write_text(
        f"task: sentiment\nmodel: {{name: {tiny_model}, dropout: 0.0}}\n"
        f"data: {{train: {task_data['sentiment']['train']}}}\n"
        "optim: {batch_size: 20, max_steps: 6, lr: 5e-4}\n"
        "trainer: {precision: fp32, log_every_steps: 1, progress: false}\nwandb: {mode: disabled}\n"
    )
    return file


def losses_and_weights(place: Path) -> tuple[list[float], dict[str, Tensor]]:
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss"] for row in rows if "train/loss" in row], load_file(place / "model" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["auto", "false"])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_micro_batches(
    experiment: Path,
    packing: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A device that holds 70 tokens: the budget is halved until they fit, the message says so, nothing else changes."""
    from research.tasks.classification import Module

    whole, place = experiment.parent / "whole", experiment.parent / "cut"
    arguments = ["train", str(experiment), f"trainer.packing={packing}"]
    assert main([*arguments, f"run_dir={whole}"]) == 0
    capsys.readouterr()
    loss, tried = Module.loss, []

    def small_device(self: Module, micro: MicroBatch) -> tuple[Tensor, Any]:
        tried.append(micro.size)
        summed, outputs = loss(self, micro)
        if micro.size > 70:
            summed.backward()  # memory ran out at the very end: what gradients there are must be forgotten
            raise error
        return summed, outputs

    monkeypatch.setattr(Module, "loss", small_device)
    assert main([*arguments, f"run_dir={place}"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("Out of memory with a micro-batch of") == len([size for size in tried if size > 70]) <= 4
    assert "trying the step again with at most" in said and "set trainer.tokens_per_microbatch=" in said
    assert sum(size > 35 for size in tried) > 6  # halved as often as it took, and not at each step again
    (expected_losses, expected), (got_losses, got) = losses_and_weights(whole), losses_and_weights(place)
    np.testing.assert_allclose(got_losses, expected_losses, rtol=1e-5)
    for name, weight in expected.items():
        if not name.endswith("attention.self.key.bias"):
            assert float((got[name] - weight).abs().max()) <= 1e-5 * max(float(weight.abs().max()), 0.02), name


@pytest.mark.slow
def test_one_of_several_ranks_says_what_to_set(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other ranks wait for it in the middle of the step, so the step cannot be tried again."""
    from research.tasks.classification import Module

    def no_memory(self: Module, micro: MicroBatch) -> tuple[Tensor, Any]:
        monkeypatch.setattr(L.Trainer, "world_size", 2)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Module, "loss", no_memory)
    assert main(["train", str(experiment), f"run_dir={experiment.parent / 'run'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    used, proposed = re.findall(r"Rank 0 ran out of memory .* (\d+) tokens.*tokens_per_microbatch=(\d+):", said)[0]
    assert int(proposed) == int(used) // 2 > 0


@pytest.mark.slow
def test_one_example_that_does_not_fit_is_an_error(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from research.tasks.classification import Module

    def no_memory(self: Module, micro: MicroBatch) -> tuple[Tensor, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Module, "loss", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        main(["train", str(experiment), f"run_dir={experiment.parent / 'run'}"])


@pytest.mark.slow
def test_another_error_is_not_retried(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from research.tasks.classification import Module

    tried = []

    def broken(self: Module, micro: MicroBatch) -> tuple[Tensor, Any]:
        tried.append(micro.size)
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Module, "loss", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        main(["train", str(experiment), f"run_dir={experiment.parent / 'run'}"])
    assert len(tried) == 1
