"""SupCon and SimCSE, by their formulas, and the vectors they compare."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from research.batching.pack import pack
from research.methods.simcse import contrast
from research.methods.supcon import supervised_contrast
from research.training.backward import embedded_by
from tests.methods.conftest import Build


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def test_supervised_contrast_is_the_papers_sum() -> None:
    x, labels, t = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), [0, 1, 0, 2, 0], 0.3
    expected = 0.0
    for i in range(5):
        others = [j for j in range(5) if j != i]
        alike = [j for j in others if labels[j] == labels[i]]
        whole = sum(math.exp(cosine(x[i], x[k]) / t) for k in others)
        for j in alike:
            expected -= math.log(math.exp(cosine(x[i], x[j]) / t) / whole) / len(alike)
    assert float(supervised_contrast(x, torch.tensor(labels), t)) == pytest.approx(expected, rel=1e-5)
    assert float(supervised_contrast(x[:1], torch.tensor([0]), t)) == 0.0  # alone in its step


def test_contrast_is_the_papers_sum() -> None:
    generator, t = torch.Generator().manual_seed(0), 0.05
    h, other = torch.randn(4, 6, generator=generator), torch.randn(4, 6, generator=generator)
    expected = 0.0
    for i in range(4):
        whole = sum(math.exp(cosine(h[i], other[j]) / t) for j in range(4))
        expected -= math.log(math.exp(cosine(h[i], other[i]) / t) / whole)
    assert float(contrast(h, other, t)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["auto", "false"])
def test_the_vector_of_a_text_is_its_first_token(packing: str, make: Build) -> None:
    module = make("sentiment", f"trainer.packing={packing}", methods={"simcse": {"weight": 1.0}})
    method: Any = module.methods["simcse"]
    micro = pack(module.data.stores["train"], np.array([3, 1, 8]), module.backbone.packed)
    loss, vectors = embedded_by(module, micro)
    assert float(loss.detach()) == pytest.approx(float(module.loss(micro)[0].detach()), rel=1e-5)
    first, examples = vectors["first"]
    assert examples.tolist() == [3, 1, 8] and vectors["second"][1].tolist() == [3, 1, 8]
    model: Any = make("sentiment", "trainer.packing=false").backbone.model
    model.load_state_dict(module.backbone.model.state_dict())
    for row, example in enumerate(examples):
        ids = torch.from_numpy(
            module.data.stores["train"].columns["input_ids"].rows(np.array([example]))[0].astype(int)
        )
        hidden = model.base_model(input_ids=ids[None]).last_hidden_state[0, 0]
        torch.testing.assert_close(first[row], hidden, atol=1e-5, rtol=1e-4)
    assert method.texts.states is None
    module.loss(micro)
    assert method.texts.states is None  # nothing is kept of other passes
