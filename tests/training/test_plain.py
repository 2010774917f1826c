"""Our modules and data under a plain `lightning.Trainer`: the steps and losses of `research train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import research
from research.common.errors import UserError
from research.config.component import choose
from research.config.schema import Config
from research.tracking.run import Run
from research.training.build import build
from tests.small_runs import SmallRuns

KEYS = ("trainer.sparse_embedding=false", "trainer.evaluate_every_steps=4", "optim.max_steps=7")


class Losses(L.Callback):
    """Notes the loss of each step and the scores of each evaluation."""

    def __init__(self) -> None:
        self.steps: dict[int, float] = {}
        self.scores: dict[int, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *batch: Any) -> None:
        self.steps[module.step] = float(module.global_loss())

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        if not trainer.sanity_checking:
            self.scores[module.step] = float(trainer.callback_metrics["validation/loss"])


def trainer_of(folder: Path, noted: Losses, **settings: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", callbacks=[noted], logger=False, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, **settings,
    )  # fmt: skip


@pytest.fixture
def recorded(small_runs: SmallRuns) -> Run:
    return small_runs.train("sentiment", *KEYS)


@pytest.mark.slow
def test_a_module_fitted_by_lightning_makes_the_steps_of_research_train(recorded: Run, tmp_path: Path) -> None:
    rows = recorded.metrics()
    module, noted = research.build(recorded.path / "config.yaml"), Losses()
    trainer_of(tmp_path / "whole", noted, max_epochs=50).fit(module, datamodule=module.data)
    assert noted.steps == {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    expected = {row["step"]: row["validation/loss"] for row in rows if "validation/loss" in row}
    assert list(expected) == [4, 7] and noted.scores == pytest.approx(expected, rel=1e-6)  # Lightning logs in float32
    assert len(noted.steps) == 7

    trainer_of(tmp_path / "begun", first := Losses(), max_epochs=1).fit(
        module := research.build(recorded.path / "config.yaml"), datamodule=module.data
    )
    [saved] = (tmp_path / "begun").rglob("*.ckpt")
    again = research.build(recorded.path / "config.yaml")
    trainer_of(tmp_path / "resumed", second := Losses(), max_epochs=50).fit(
        again, datamodule=again.data, ckpt_path=saved, weights_only=False
    )
    assert list(first.steps) == [1, 2, 3, 4] and list(second.steps) == [5, 6, 7]
    assert first.steps | second.steps == noted.steps


class Mine(L.LightningModule):
    """A module that knows nothing of ours: a bag of embeddings, and its own optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.steps = torch.nn.Embedding(2000, 2), list[tuple[int, int, int]]()
        torch.nn.init.zeros_(self.table.weight)
        self.losses: list[float] = []

    def training_step(self, step: Any, i: int) -> Any:
        losses = []
        for micro in step.micro:
            bag = self.table(micro.pad(micro.tokens["input_ids"], 0)) * micro.first.mask[..., None]
            target = micro.sequences["label"]
            losses.append(torch.nn.functional.cross_entropy(bag.sum(1), target, reduction="sum"))
        self.steps.append((step.step, step.examples, len(step.micro)))
        loss = torch.stack(losses).sum() / step.targets
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.slow
def test_a_module_of_ones_own_is_trained_on_our_steps(recorded: Run) -> None:
    losses = []
    for budget in (4096, 24):  # one micro-batch a step, and several
        data = research.open_data(recorded.path / "config.yaml", **{"trainer.tokens_per_microbatch": budget})
        module = Mine()
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.fit(module, datamodule=data)
        assert [(step, examples) for step, examples, _ in module.steps] == [(i, 4) for i in range(20)]
        assert (max(count for *_, count in module.steps) > 1) == (budget == 24)
        losses.append(module.losses)
    assert losses[0][0] == pytest.approx(0.693147, abs=1e-6)  # ln 2, of zeros
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and losses[0][-1] < losses[0][0]


def test_weights_outside_of_the_model_are_refused(
    tiny_model: Path, task_data: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.tasks import classification

    class Module(classification.Module):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.scale = torch.nn.Parameter(torch.ones(1))

    monkeypatch.setattr(classification, "Module", Module)
    config = Config(task=choose("task", "classification"))
    config.model.name, config.data.train, config.trainer.precision = (
        str(tiny_model),
        task_data["sentiment"]["train"],
        "fp32",
    )
    with pytest.raises(UserError, match=r"weights of its own \(scale\), which no checkpoint would hold"):
        build(config)


def test_names_of_the_package_clash_with_no_subpackage() -> None:
    packages = {path.stem for path in Path(research.__file__).parent.iterdir()}
    assert not packages & set(research.__all__)
