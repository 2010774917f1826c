"""AdaLoRA really reallocates: as peft's allocator does, step by step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig
from peft.tuners.adalora.layer import RankAllocator
from transformers import AutoModelForSequenceClassification

from research.adapters import adalora
from research.adapters.adalora import Adapter, Keys, adapted_layers, budget_of
from research.common.errors import UserError
from tests.small_runs import SmallRuns

STEPS = 20
KEYS = Keys(rank=1, initial_rank=3, targets=["q", "v", "down"], warmup_ratio=0.1, final_ratio=0.3, every_steps=2)


def test_the_allocation_is_that_of_peft(tiny_model: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    adapter = Adapter(KEYS)
    adapter.apply(model)
    theirs = copy.deepcopy(model)
    config = AdaLoraConfig(target_r=1, init_r=3, tinit=2, tfinal=6, deltaT=2, total_step=STEPS, beta1=0.85, beta2=0.85)
    allocator: Any = RankAllocator(theirs, config, "default")
    ranks, pattern = [], None
    for step in range(1, STEPS + 1):
        for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
            if mine.requires_grad:
                mine.grad = torch.randn_like(mine)
                other.grad = mine.grad.clone()
                change = 0.1 * torch.randn_like(mine)
                mine.data += change
                other.data += change
        adapter.after_step(model, step, STEPS)
        if step < STEPS - 6:
            allocator.update_and_allocate(theirs, step)
        elif step == STEPS - 6:
            _, pattern = allocator.update_and_allocate(theirs, step, force_mask=True)
        else:
            allocator.mask_using_rank_pattern(theirs, pattern)
        own, peft = adapted_layers(model), adapted_layers(theirs)
        if not step % 2 or step > STEPS - 6:  # between two allocations peft lets dropped triplets grow again
            for name, layer in own.items():
                assert torch.equal(layer.lora_E["default"], peft[name].lora_E["default"]), (step, name)
        ranks.append(sum(int((layer.lora_E["default"] != 0).sum()) for layer in own.values()))
        for name, layer in own.items():
            peft[name].lora_E["default"].data.copy_(layer.lora_E["default"])
    assert ranks[:2] == [18, 18] and ranks[-7:] == [6] * 7
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) > 3
    final = [int((layer.lora_E["default"] != 0).sum()) for layer in own.values()]
    assert len(set(final)) > 1, "every layer has the same rank: nothing was reallocated"


def test_the_penalty_is_the_gradient_of_its_formula(tiny_model: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    adapter = Adapter(Keys(rank=1, initial_rank=3, orthogonality=0.5))
    adapter.apply(model)
    layers = adapted_layers(model)
    matrices = [matrix for layer in layers.values() for matrix in (layer.lora_A["default"], layer.lora_B["default"])]
    norms = []
    for i, matrix in enumerate(matrices):
        rows = matrix.T if i % 2 else matrix
        norms.append((rows @ rows.T - torch.eye(3)).norm())
    (0.5 * torch.stack(norms).mean()).backward()
    expected = [matrix.grad.clone() for matrix in matrices if matrix.grad is not None]
    for matrix in matrices:
        matrix.grad = torch.zeros_like(matrix)
    adapter.after_backward(model)
    for matrix, gradient in zip(matrices, expected, strict=True):
        torch.testing.assert_close(matrix.grad, gradient, atol=1e-7, rtol=1e-5)


def test_the_budget_falls_by_a_cubic() -> None:
    found = [budget_of(step, STEPS, 6, KEYS) for step in range(1, STEPS + 1)]
    cubic = {step: int(12 * (1 - (step - 2) / 12) ** 3 + 6) for step in range(4, 15, 2)}
    assert found == [cubic.get(step) for step in range(1, STEPS + 1)] and cubic[14] == 6


@pytest.mark.parametrize(
    ("keys", "reported"),
    [
        (Keys(rank=3, initial_rank=3), "adapter.rank=3 must be below adapter.initial_rank=3"),
        (Keys(warmup_ratio=0.5, final_ratio=0.5), "leave no steps in which the budget falls"),
        (Keys(initial_rank=33), "adapter.rank=33 is more than the width 32"),
        (Keys(targets=["gate"]), "'gate' hits no linear layer"),
    ],
)
def test_bad_keys(keys: Keys, reported: str, tiny_model: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    with pytest.raises(UserError, match=reported):
        adalora.Adapter(keys).apply(model)


@pytest.mark.slow
def test_ranks_differ_in_a_run(small_runs: SmallRuns) -> None:
    """The file of the adapter holds the ranks that are left."""
    from peft import LoraConfig

    keys = {"name": "adalora", "rank": 1, "initial_rank": 3, "targets": ["q", "k", "v", "down"], "final_ratio": 0.2}
    run = small_runs.train("sentiment", "optim.max_steps=20", adapter=keys)
    ranks = LoraConfig.from_pretrained(str(run.path / "adapter")).rank_pattern
    assert sum(ranks.values()) >= 8 and len(set(ranks.values())) > 1


@pytest.mark.slow
def test_lora_plus_lets_b_learn_faster(small_runs: SmallRuns) -> None:
    """After one step of Adam without decay, B has moved by the ratio."""
    from safetensors.torch import load_file

    moved = []
    for ratio in (1, 4):
        run = small_runs.train(
            "sentiment", "optim.max_steps=1", "optim.warmup_ratio=0", "optim.weight_decay=0",
            adapter={"name": "lora", "rank": 2, "lr_ratio": ratio},
        )  # fmt: skip
        tensors = load_file(run.path / "adapter" / "adapter_model.safetensors")
        moved.append({name: t for name, t in tensors.items() if "lora_B" in name})
    for name, once in moved[0].items():
        torch.testing.assert_close(moved[1][name], 4 * once, atol=1e-6, rtol=1e-3)
