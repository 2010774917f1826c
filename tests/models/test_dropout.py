"""The cheap dropout: its rate, its scale, and one mask for both passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from research.models.dropout import FastDropout, keep_mask, swap_dropout, zero_dropped


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_keep_rate_and_scale(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n = 400_003
    out = FastDropout(p)(torch.ones(n, dtype=dtype))
    kept = out != 0
    rate = kept.double().mean()
    assert abs(float(rate) - (1 - p)) < 5 * (p * (1 - p) / n) ** 0.5  # five standard errors
    scale = torch.tensor(1 / (1 - p), dtype=dtype)
    assert torch.equal(out[kept], scale.expand(int(kept.sum())))


def test_rate_is_the_same_in_every_lane() -> None:
    """Four elements share a 64-bit draw; none of the four is kept more often, and they are independent."""
    torch.manual_seed(0)
    lanes = keep_mask(torch.empty(1_000_000), 0.1).view(-1, 4).double()
    assert (lanes.mean(0) - 0.9).abs().max() < 3e-3
    correlation = torch.corrcoef(lanes.T) - torch.eye(4)
    assert correlation.abs().max() < 0.01


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 7), (0,)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    keep = keep_mask(x, 0.5)
    assert keep.shape == x.shape and keep.dtype == torch.int16
    assert set(keep.unique().tolist()) <= {0, 1}


def test_no_view_of_a_negative_zero_or_nan_survives() -> None:
    x = torch.tensor([-1.0, 3.0, -0.0, 5.0], dtype=torch.bfloat16)
    keep = torch.tensor([0, 1, 0, 0], dtype=torch.int16)
    assert zero_dropped(x, keep).tolist() == [0.0, 3.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_uses_the_same_mask(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x = torch.rand(57, 31, dtype=dtype).add_(0.5).requires_grad_()
    out = FastDropout(0.3)(x)
    grad = torch.rand(57, 31, dtype=dtype).add_(0.5)
    out.backward(grad)
    kept = out.detach() != 0
    assert 0 < int(kept.sum()) < kept.numel()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(kept, grad, 0).mul(1 / 0.7))


def test_p_zero_and_evaluation_are_the_identity() -> None:
    x = torch.randn(8, 8)
    assert FastDropout(0.0)(x) is x
    assert FastDropout(0.5).eval()(x) is x


def test_torch_generator_decides() -> None:
    x, dropout = torch.ones(1000), FastDropout(0.2)
    torch.manual_seed(3)
    first = dropout(x)
    second = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x))
    assert not torch.equal(first, second)


def test_swap_reaches_every_dropout() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.Sequential(nn.Dropout(0.2), nn.Dropout1d(0.3))).eval()
    before = list(model.state_dict())
    swap_dropout(model)
    layers = [m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    found = [(type(layer).__name__, layer.p, layer.training) for layer in layers]
    assert found == [("FastDropout", 0.1, False), ("FastDropout", 0.2, False), ("Dropout1d", 0.3, False)]
    assert list(model.state_dict()) == before
