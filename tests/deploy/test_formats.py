"""Every architecture and head computes the same in every format: alone, together, short, long and ragged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from research.deploy.formats import load_engine, write_model
from research.deploy.signal_stack import signal_stack
from tests.conftest import make_tokenizer

HEADS = {
    "classification": AutoModelForSequenceClassification,
    "tokens": AutoModelForTokenClassification,
    "spans": AutoModelForQuestionAnswering,
}
SHAPES = ((1, 3), (1, 8), (3, 16), (2, 120))
CASES = [  # an export takes half a minute: each architecture, head and format at least once
    ("bert", "spans", "onnx"), ("roberta", "tokens", "openvino"), ("distilbert", "classification", "torch"),
    ("electra", "tokens", "onnx"), ("modernbert", "classification", "openvino"),
]  # fmt: skip


def tiny(kind: str, head: Any, tokenizer: Any) -> Any:
    """A random model of an architecture with a head, whose weights are large enough for differences to show."""
    size = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
            "intermediate_size": 64, "max_position_embeddings": 130, "pad_token_id": tokenizer.pad_token_id,
            "num_labels": 2 if head is AutoModelForQuestionAnswering else 3}  # fmt: skip
    torch.manual_seed(0)
    model = head.from_config(AutoConfig.for_model(kind, **size)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.2)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head", "format"), CASES)
def test_a_format_computes_as_the_model(kind: str, head: str, format: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = tiny(kind, HEADS[head], tokenizer)
    write_model(model, tokenizer, tmp_path, format, "fp32")
    stack = signal_stack()
    engine = load_engine(tmp_path, format, "fp32", model.config)
    assert signal_stack() == stack  # or a signal is a segmentation fault after several engines
    for rows, length in SHAPES:
        inputs = {"input_ids": torch.randint(5, len(tokenizer), (rows, length))}
        mask = torch.ones(rows, length, dtype=torch.long)
        for row in range(rows):
            mask[row, length - row * length // 4 :] = 0
        inputs["attention_mask"] = mask
        with torch.inference_mode():
            expected = {name: value for name, value in model(**inputs).items() if "logits" in name}
            found = engine(**inputs)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert value.std() > 0.05
            read = mask.bool() if value.dim() > 1 and value.shape[1] == length else torch.ones(rows, dtype=torch.bool)
            torch.testing.assert_close(found[name][read], value[read], atol=1e-5, rtol=1e-5)
