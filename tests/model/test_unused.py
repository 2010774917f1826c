"""Parameters that no loss reaches: DDP would wait for their gradients for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from research import train
from research.config import load_config
from research.model.unused import freeze_unused
from research.run import Run
from tests.attempts import Attempt, attempt
from tests.conftest import make_tiny_model
from tests.slurm_cluster import free_port

SIZES = {"layoutlm": {"max_2d_position_embeddings": 32}, "roformer": {"embedding_size": 32}, "bert": {}}
UNUSED = {
    "layoutlm": {"layoutlm.pooler.dense.weight", "layoutlm.pooler.dense.bias"},  # for another head
    "roformer": {"roformer.encoder.embed_positions.weight"},  # a table of sines
    "bert": set[str](),
}


def experiment(folder: Path, kind: str, files: dict[str, str]) -> Path:
    content = {
        "task": "ner",
        "model": {"name": str(make_tiny_model(folder / kind, kind, **SIZES[kind])), "dropout": 0.0},
        "data": {**files, "max_length": 48},
        "optim": {"batch_size": 4, "max_steps": 6, "lr": 1e-3},
        "trainer": {"accelerator": "cpu", "precision": "fp32", "log_every_steps": 1},
        "wandb": {"mode": "disabled"},
    }
    path = folder / f"{kind}.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", SIZES)
def test_what_is_frozen_has_no_gradient_and_the_rest_has(
    kind: str, tmp_path: Path, task_data: dict[str, dict[str, str]]
) -> None:
    module = train.build(load_config(experiment(tmp_path, kind, task_data["ner"])))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    frozen = freeze_unused(module)
    assert {name.split("model.", 1)[1] for name in frozen} == UNUSED[kind]
    assert all(p.requires_grad is (name not in frozen) for name, p in module.named_parameters() if name in before
               and "word_embeddings" not in name)  # fmt: skip
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in module.named_parameters())


@pytest.mark.slow
def test_two_ranks_train_what_one_rank_trains(
    experiments: dict[str, Path], task_data: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    path = experiment(tmp_path, "layoutlm", task_data["ner"])
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    code, said = attempt(["train", str(path), f"run_dir={one.path}"], tmp_path / "one.log")
    assert code == 0, said
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    arguments = ["train", str(path), f"run_dir={two.path}"]
    ranks = [
        Attempt(arguments, tmp_path / f"{n}.log", {**place, "RANK": str(n), "LOCAL_RANK": str(n)}) for n in range(2)
    ]
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output + ranks[1].output
    weights = [load_file(run.model / "model.safetensors") for run in (one, two)]
    for name, tensor in weights[0].items():
        if not name.endswith("attention.self.key.bias"):  # its true gradient is zero: made of rounding
            assert (tensor - weights[1][name]).abs().max() < 1e-5, name
