"""The chunked cross entropy against that of torch, alone and inside models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from research.models import backbone as feeding
from research.models.backbone import Backbone
from research.models.linear_cross_entropy import linear_cross_entropy
from tests.models.test_backbone import assert_gradients_close
from tests.models.test_families import BART, DECODERS, ENCODER_DECODERS, WINDOWED, build, make_micro


def inputs(bias: bool, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(37, 16, generator=generator).requires_grad_()
    weight = torch.randn(211, 16, generator=generator).requires_grad_()
    b = torch.randn(211, generator=generator).requires_grad_() if bias else None
    return x, weight, b, torch.randint(0, 211, (37,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [5, 37, 100])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradients_are_those_of_torch(smoothing: float, rows: int, bias: bool) -> None:
    x, weight, b, targets = inputs(bias)
    loss, nll = linear_cross_entropy(x, weight, b, targets, smoothing, rows)
    (loss * 0.7).backward()
    got = [t.grad for t in (x, weight, b) if t is not None]
    x, weight, b, targets = inputs(bias)
    scores = F.linear(x, weight, b)
    expected = F.cross_entropy(scores, targets, reduction="sum", label_smoothing=smoothing)
    (expected * 0.7).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(nll, F.cross_entropy(scores, targets, reduction="none"))
    for mine, tensor in zip(got, [t for t in (x, weight, b) if t is not None], strict=True):
        torch.testing.assert_close(mine, tensor.grad, rtol=1e-4, atol=1e-5)


def test_in_bf16_sums_are_in_float32() -> None:
    """Against scores that bf16 makes and float32 sums: the loss to 1e-6, gradients to the rounding of bf16."""
    x, weight, _, targets = inputs(False)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = linear_cross_entropy(x, weight, None, targets, rows=5)
        scores = F.linear(x, weight).float()
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(F.cross_entropy(scores, targets, reduction="sum").item(), rel=1e-6)
    x2, weight2, _, _ = inputs(False)
    F.cross_entropy(F.linear(x2, weight2), targets, reduction="sum").backward()
    for mine, exact in ((x.grad, x2.grad), (weight.grad, weight2.grad)):
        assert mine is not None and exact is not None
        assert float((mine - exact).norm() / exact.norm()) < 2e-2


def test_nothing_asked_is_a_loss_of_zero() -> None:
    x, weight, _, targets = inputs(False)
    loss, nll = linear_cross_entropy(x[:0], weight, None, targets[:0], 0.1)
    loss.backward()
    assert loss.item() == 0.0 and nll.shape == (0,) and weight.grad is not None and not weight.grad.any()


def test_a_frozen_layer_gets_no_gradient() -> None:
    x, weight, _, targets = inputs(False)
    linear_cross_entropy(x, weight.detach(), None, targets)[0].backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def of_model(backbone: Backbone, smoothing: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    micro, asked = make_micro(backbone)
    backbone.model.zero_grad()
    loss, nll = backbone.vocabulary_losses(micro, asked, asked + 2, smoothing)
    loss.backward()
    return loss.detach(), nll, {n: p.grad.clone() for n, p in backbone.model.named_parameters() if p.grad is not None}


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**DECODERS["llama"], "tie_word_embeddings": True}, "t5": ENCODER_DECODERS["t5"], "marian": BART,
    "bert": DECODERS["bert"],
}  # fmt: skip


@pytest.mark.in_check(1)
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_model_has_the_same_loss_and_gradients(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tied tables, Marian's bias beside the layer and BERT's own included."""
    model = build(kind, FAMILIES[kind])
    if kind == "marian":
        model.final_logits_bias.normal_()
    backbone = Backbone(model)
    for smoothing in (0.0, 0.1):
        monkeypatch.setattr(feeding, "LARGE_SCORES", 10**9)
        expected, likelihoods, gradients = of_model(backbone, smoothing)
        monkeypatch.setattr(feeding, "LARGE_SCORES", 0)
        loss, nll, grads = of_model(backbone, smoothing)
        assert backbone.is_linear_head
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(nll, likelihoods, rtol=1e-4, atol=1e-4)
        assert_gradients_close(grads, gradients)


def test_scores_that_are_capped_are_not_chunked() -> None:
    backbone = Backbone(build("gemma2", {**WINDOWED, "final_logit_softcapping": 1.0}))
    assert not backbone.is_linear_head
