"""What holds for every adapter of the folder: it builds on each family of models, and what it freezes is free."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from research.adapters.hooks import layer_stacks
from research.common.errors import UserError
from research.config import component
from research.config.schema import OptimConfig
from research.models.backbone import Backbone
from research.models.parameters import trained_parameters
from research.models.probe import probe_batch
from research.training.optimizer import make_optimizer
from tests.small_runs import SmallRuns, assert_same_bits, assert_same_up_to_rounding, weights

KEYS: dict[str, dict[str, Any]] = {
    "freeze": {"layers": 1},
    "lora": {"rank": 4},
    "adalora": {"rank": 2, "initial_rank": 3},
    "bottleneck": {"size": 8},
    "prompt": {"tokens": 3},
    "p_tuning": {"tokens": 3, "hidden": 8},
    "prefix": {"tokens": 3},
}
REFUSED = {("prefix", "gpt2"): "prefix does not go with 'gpt2' models", ("prefix", "t5"): "prefix does not go with",
           ("bitfit", "t5"): "have none"}  # fmt: skip


def make(name: str, **keys: Any) -> Any:
    return component.load("adapter", name).Adapter(component.choose("adapter", name, **{**KEYS.get(name, {}), **keys}))


def text_model(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=60, n_positions=64)).eval()
    own = T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=60)
    own.decoder_start_token_id = 0
    return T5ForConditionalGeneration(own).eval()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_each_adapter_serves_models_that_write_packed_as_padded(kind: str) -> None:
    for name in component.names("adapter"):
        model, adapter = text_model(kind), make(name)
        if reported := REFUSED.get((name, kind)):
            with pytest.raises(UserError, match=reported):
                adapter.apply(model)
            continue
        adapter.apply(model)
        with torch.no_grad():
            for key, p in model.named_parameters():
                if ".up." in key or "lora_B" in key:  # zero at first
                    p.normal_(std=0.1)
        scores = []
        for packing in (False, "auto"):
            backbone = Backbone(model, packing)
            adapter.feed(backbone, 48)
            with torch.no_grad():
                micro = probe_batch(model.config, backbone.packed)
                scores.append(backbone.vocabulary_logits(micro, torch.tensor([0, 3, 25, 27])))
            assert backbone.packed is (packing == "auto"), (name, backbone.packing_note)
        torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=1e-4, msg=name)


MERGED: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4, "dora": True, "targets": ["q", "o", "down"]},
    "adalora": {"targets": ["q", "down"]},
    "ia3": {},
}


@pytest.mark.parametrize("name", MERGED)
def test_a_merged_gpt2_puts_out_what_the_adapted_one_does(name: str) -> None:
    """Its Conv1D keeps weights (in, out), the other way round than a linear layer."""
    adapted, plain, adapter = text_model("gpt2"), text_model("gpt2"), make(name, **MERGED[name])
    ids = torch.arange(10, 30)[None]
    adapter.apply(adapted)
    with torch.no_grad():
        before = plain(ids).logits
        for key, p in adapted.named_parameters():
            if "lora_" in key or "ia3_" in key:
                p.mul_(1 + 0.5 * torch.rand_like(p)).add_(0.1 * torch.rand_like(p))
        expected = adapted(ids).logits
        plain.load_state_dict(adapter.plain_state(adapted, adapted.state_dict()))
        got = plain(ids).logits
    assert float((expected - before).abs().max()) > 0.01
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def _count(calls: list[int], layer: int, module: Any, into: Any, out: Any) -> None:
    calls.append(layer)


# adapter -> keys, layers of two with a backward pass
BACKWARD: list[tuple[str, dict[str, Any], int]] = [
    ("head", {}, 0), ("freeze", {"layers": 1}, 1), ("lora", {"top_layers": 1}, 1), ("lora", {}, 2), ("ia3", {}, 2),
    ("bottleneck", {"top_layers": 1}, 1), ("bitfit", {}, 2), ("prefix", {}, 2), ("full", {}, 2),
]  # fmt: skip


@pytest.mark.slow
def test_there_is_no_backward_pass_and_no_moment_below_the_lowest_trained_weight(tiny_model: Path) -> None:
    for name, keys, expected in BACKWARD:
        model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
        adapter = make(name, **keys)
        adapter.apply(model)
        backbone = Backbone(model, "auto")
        adapter.feed(backbone, 48)
        calls: list[int] = []
        [(_, stack)] = layer_stacks(model)
        for i, layer in enumerate(stack):
            layer.register_full_backward_hook(partial(_count, calls, i))
        optimizer = make_optimizer(model, OptimConfig(lr=1e-3))
        backbone.sequence_logits(probe_batch(model.config)).sum().backward()
        optimizer.step()
        assert sorted(calls) == list(range(2 - expected, 2)), name
        trained = trained_parameters(model)
        held = sum(t.numel() for state in optimizer.state.values() for t in state.values() if t.ndim)
        with_gradient = sum(p.numel() for p in trained.values() if p.grad is not None)
        assert held == 2 * with_gradient and all(
            p.grad is None for k, p in model.named_parameters() if k not in trained
        )


@pytest.mark.slow
@pytest.mark.process
def test_layers_thaw_one_by_one_on_any_number_of_ranks(small_runs: SmallRuns) -> None:
    """A layer more each 3 steps: 6 steps train the head and one layer; the lowest one and the embeddings stay."""
    gradual = {"name": "freeze", "unfreeze_every_steps": 3}
    run = small_runs.train("sentiment", "optim.warmup_ratio=0", adapter=gradual)
    top = {key for key, w in weights(run).items() if "layer.1." in key}
    frozen = small_runs.train("sentiment", "optim.max_steps=3", "optim.warmup_ratio=0", adapter=gradual)
    before = small_runs.train("sentiment", "optim.max_steps=1", adapter={"name": "head"})
    for key, weight in weights(before).items():
        if "layer" in key or "embeddings" in key:
            assert torch.equal(weights(frozen)[key], weight), key
            assert torch.equal(weights(run)[key], weight) is (key not in top), key
    assert_same_up_to_rounding(small_runs.train_ranks("sentiment", 2, "optim.warmup_ratio=0", adapter=gradual), run)
    again = small_runs.train("sentiment", "optim.warmup_ratio=0", adapter={**gradual, "unfreeze_every_steps": 99})
    plain = small_runs.train("sentiment", "optim.warmup_ratio=0", adapter="head")
    assert_same_bits(again, plain)
