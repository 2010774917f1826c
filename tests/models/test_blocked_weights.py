"""Weights in oneDNN's layout give the numbers of the plain ones, and only where nothing is trained."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from research.common.compat import multiplies_bf16
from research.models.blocked_weights import block_weights

SIZE: dict[str, Any] = {
    "vocab_size": 60, "num_attention_heads": 4, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 72,
}  # fmt: skip
MODELS = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SIZE)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE, tie_word_embeddings=True)),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=60, d_model=32, d_kv=8, d_ff=72, num_layers=2, num_heads=4)
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", MODELS)
def test_outputs_and_weights_are_those_of_the_plain_model(kind: str, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and not multiplies_bf16():
        pytest.skip("no bf16 instructions: left as it is")
    torch.manual_seed(0)
    plain: Any = MODELS[kind]().eval()
    blocked = copy.deepcopy(plain)
    linear = sum(type(layer) is nn.Linear for layer in plain.modules())
    assert block_weights(blocked, dtype) == linear > 8
    ids = torch.randint(0, 60, (3, 9))
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids[:, :4]} if kind == "t5" else {})}
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        mine, theirs = blocked(**inputs).logits, plain(**inputs).logits
    if dtype == torch.bfloat16:
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert all(map(torch.equal, plain.state_dict().values(), blocked.state_dict().values()))


def test_gradients_other_precisions_and_empty_inputs_take_the_plain_weights() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(8, 4)
    layer = copy.deepcopy(plain)
    assert block_weights(layer, torch.float32) == 1
    x = torch.randn(5, 8)
    layer(x).sum().backward()
    plain(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=0, atol=0)
    with torch.inference_mode():
        assert layer(x[:0]).shape == (0, 4)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x), plain(x)) and layer(x).dtype == torch.bfloat16
    assert block_weights(layer, torch.float32) == 0  # once
