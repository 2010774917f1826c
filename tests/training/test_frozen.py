"""Frozen weights: they do not move by a bit, and cost no optimiser state, no checkpoint and no backward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from research.cluster.group import RankGroup
from research.config.load import load_config
from research.config.schema import Config
from research.models.parameters import counts, flops_per_token, frozen_parameters, trained_parameters
from research.tracking.run import Run
from research.training import checkpoint
from research.training.build import build
from research.training.module import TaskModule
from research.training.run import train
from tests.conftest import write_experiment


@pytest.fixture
def config(tiny_model: Path, task_data: dict[str, dict[str, str]], tmp_path: Path) -> Config:
    optim = {"batch_size": 4, "lr": 1e-2, "max_steps": 3, "warmup_ratio": 0.0}
    path, data = tmp_path / "experiment.yaml", task_data["sentiment"]
    return load_config(
        write_experiment(path, "sentiment", tiny_model, data, optim=optim, trainer={"log_every_steps": 1})
    )


def freeze(*parts: str) -> Any:
    """A `load` whose models have the weights frozen whose names hold one of the parts."""
    from research.models.load import load_model

    def loading(*arguments: Any) -> Any:
        model = load_model(*arguments)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = not any(part in name for part in parts)
        return model

    return loading


@pytest.mark.slow
@pytest.mark.parametrize("sparse", ["auto", False])
def test_frozen_weights_do_not_move_by_a_bit(sparse: Any, config: Config) -> None:
    config.trainer.sparse_embedding = sparse
    made: list[TaskModule] = []

    def make(config: Config, group: RankGroup) -> TaskModule:
        made.append(build(config, group=group, load=freeze("embeddings", "layer.0")))
        return made[-1]

    assert train(config, make_module=make) == 0
    untouched = dict(build(config, load=freeze("embeddings", "layer.0")).backbone.model.named_parameters())
    [module] = made
    model = module.backbone.model
    frozen = frozen_parameters(model)
    assert len(frozen) == 5 + 16 and all(torch.equal(p, untouched[name]) for name, p in frozen.items())
    moved = [name for name, p in trained_parameters(model).items() if not torch.equal(p, untouched[name])]
    assert "bert.encoder.layer.1.output.dense.weight" in moved and "classifier.weight" in moved
    optimizer: Any = module.optimizers()
    assert len(optimizer.optimizer.state) == len(trained_parameters(model)) == 16 + 2 + 2

    run = Run.read(str(config.run_dir))
    saved = checkpoint.newest(run.checkpoints)
    assert saved is not None and len(saved.state["identity"]["frozen"]) == 32
    held = {name.removeprefix("model.") for name in saved.tensors() if name.startswith("model.")}
    assert held == set(trained_parameters(model))
    assert run.result is not None and run.result["trained_parameters"] < run.result["parameters"]
    assert (
        run.result["trained_parameters"] == run.provenance["trained_parameters"] == counts(model)["trained_parameters"]
    )


@pytest.mark.slow
def test_other_frozen_weights_are_not_resumed(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint holds the trained weights alone: on another base they mean nothing."""
    from research.common.errors import UserError

    def make(shift: float) -> Any:
        def making(config: Config, group: RankGroup) -> TaskModule:
            module = build(config, group=group, load=freeze("embeddings"))
            embeddings: Any = module.backbone.model.get_input_embeddings()
            embeddings.weight.data += shift
            return module

        return making

    stop = lambda step, scores: "enough"  # noqa: E731
    config.optim.max_steps, config.trainer.evaluate_every_steps = 6, 3
    assert train(config, make_module=make(0.0), on_evaluation=stop) == 0
    with pytest.raises(UserError, match="it is of another experiment: frozen: "):
        train(config, make_module=make(1e-3))


@pytest.mark.slow
def test_operations_follow_the_lowest_trained_layer(config: Config) -> None:
    """Two per weight forward, two for its own gradient, two for its input's above the lowest trained weight."""
    model: Any = build(config).backbone.model
    sizes = {name: p.numel() for name, p in model.named_parameters() if "word_embeddings" not in name}
    whole = sum(sizes.values())
    assert flops_per_token(model) == 6.0 * whole
    assert counts(model) == {name: whole + model.get_input_embeddings().weight.numel() for name in counts(model)}

    head = build(config, load=freeze("bert")).backbone.model
    top = sizes["classifier.weight"] + sizes["classifier.bias"]
    assert flops_per_token(head) == 2.0 * whole + 4.0 * top

    biases = build(config, load=freeze("weight")).backbone.model
    first = next(i for i, name in enumerate(sizes) if name.endswith("bias"))
    above = sum(list(sizes.values())[first:])
    own = sum(size for name, size in sizes.items() if "weight" not in name)
    assert flops_per_token(biases) == 2.0 * whole + 2.0 * above + 2.0 * own


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_no_backward_pass_below_the_lowest_trained_layer(config: Config, gradient_checkpointing: bool) -> None:
    """Nothing of a frozen layer asks for a gradient, not even its outputs: no activation is kept for it."""
    import numpy as np

    from research.batching.pack import pack

    config.model.gradient_checkpointing = gradient_checkpointing
    module: Any = build(config, load=freeze("embeddings", "layer.0")).train()
    assert module.backbone.packed
    asks: dict[str, bool] = {}
    for i, layer in enumerate(module.backbone.model.base_model.encoder.layer):
        layer.register_forward_hook(
            lambda _, __, out, i=i: asks.update({f"layer.{i}": (out if torch.is_tensor(out) else out[0]).requires_grad})
        )
    module.loss(pack(module.data.stores["train"], np.arange(3)))[0].backward()
    assert asks == {"layer.0": False, "layer.1": True}
