"""Attention over a packed row against torch's own attention, one sequence at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from research.batching.layout import make_layout
from research.models.attention import BucketAttention, packed_attention

HEADS, WIDTH = 3, 8
LENGTHS = [
    [1],
    [16],
    [5, 17, 3, 16, 33, 1, 2],
    [7] * 9,
    [64, 2, 50, 31, 32],
]


def draw(T: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    """Query, key, value and the gradient of the output, each (T, H, D)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(T, HEADS, WIDTH, generator=generator, dtype=dtype) for _ in range(4)]


def by_sequence(inputs: list[Tensor], lengths: list[int], scale: float, window: int | None) -> Tensor:
    """The same attention without packing: (T, H, D)."""
    parts = []
    for sequence in zip(*(x.split(lengths) for x in inputs), strict=True):
        place = torch.arange(len(sequence[0]))
        near = (place[:, None] - place).abs() < (window or len(place))
        q, k, v = (x.transpose(0, 1) for x in sequence)
        parts.append(F.scaled_dot_product_attention(q, k, v, attn_mask=near, scale=scale).transpose(0, 1))
    return torch.cat(parts)


def with_gradients(function: object, inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = function(*leaves)  # type: ignore[operator]
    out.backward(grad)
    return [out.detach(), *(x.grad for x in leaves if x.grad is not None)]


@pytest.mark.parametrize("window", [None, 1, 5, 16])
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda x: "-".join(map(str, x)))
def test_equals_attention_of_each_sequence(lengths: list[int], window: int | None) -> None:
    layout, scale = make_layout(np.array(lengths)), 0.31
    real = sum(lengths)
    *inputs, grad = draw(layout.T)
    grad[real:] = 0  # nothing reads the filler

    def packed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return BucketAttention.apply(q, k, v, layout, layout.biases(q.dtype, window), 0.0, scale)  # type: ignore

    got = with_gradients(packed, inputs, grad)
    cut = [x[:real] for x in inputs]
    expected = with_gradients(lambda *x: by_sequence(list(x), lengths, scale, window), cut, grad[:real])
    for name, a, b in zip(("out", "dq", "dk", "dv"), got, expected, strict=True):
        assert torch.isfinite(a).all(), name
        # A token that sees itself alone has a true dq and dk of zero: the scale is then that of the inputs, 1.
        near = 1e-5 * max(1.0, float(b.abs().max()))
        worst = float(((a[:real] - b).abs() - 1e-5 * b.abs()).max())
        assert worst <= near, f"{name}: {worst:.1e} over {near:.1e}"
        if name != "out":
            assert not a[real:].any(), f"{name}: the filler has a gradient"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.sampled_from([None, 2, 9]))
@settings(max_examples=25, deadline=None)
def test_equals_attention_of_each_sequence_for_any_lengths(lengths: list[int], window: int | None) -> None:
    layout = make_layout(np.array(lengths))
    q, k, v, _ = draw(layout.T)
    got = BucketAttention.apply(q, k, v, layout, layout.biases(q.dtype, window), 0.0, 0.3)[: sum(lengths)]
    expected = by_sequence([x[: sum(lengths)] for x in (q, k, v)], lengths, 0.3, window)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_gradcheck(window: int | None) -> None:
    """The hand-written backward pass against finite differences, in float64."""
    layout = make_layout(np.array([5, 2, 18, 7]))
    *inputs, _ = draw(layout.T, torch.float64)
    leaves = [x[:, :2, :3].contiguous().requires_grad_() for x in inputs]

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return BucketAttention.apply(q, k, v, layout, layout.biases(q.dtype, window), 0.0, 0.4)  # type: ignore

    assert torch.autograd.gradcheck(function, leaves, atol=1e-7, rtol=1e-6)


def test_gradcheck_with_dropout() -> None:
    """With the generator set anew before each call the mask is fixed: the gradient must use the same one."""
    layout = make_layout(np.array([4, 11]))
    *inputs, _ = draw(layout.T, torch.float64)
    leaves = [x[:, :2, :3].contiguous().requires_grad_() for x in inputs]

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(7)
        return BucketAttention.apply(q, k, v, layout, layout.biases(q.dtype, None), 0.3, 0.4)  # type: ignore

    assert torch.autograd.gradcheck(function, leaves, atol=1e-7, rtol=1e-6)


def test_dropout_keeps_the_mean() -> None:
    """Averaged over many masks, attention with dropout is attention without."""
    layout = make_layout(np.array([12, 20]))
    q, k, v, _ = draw(layout.T)
    biases = layout.biases(q.dtype, None)
    plain = BucketAttention.apply(q, k, v, layout, biases, 0.0, 0.3)
    torch.manual_seed(0)
    many = torch.stack([BucketAttention.apply(q, k, v, layout, biases, 0.25, 0.3) for _ in range(2000)])
    error = many.std(0) / 2000**0.5
    assert ((many.mean(0) - plain).abs() < 5.5 * error + 1e-6).all()


def test_bf16_is_as_close_as_bf16_can_be() -> None:
    layout = make_layout(np.array([30, 9, 41]))
    q, k, v, _ = draw(layout.T, torch.bfloat16)
    got = BucketAttention.apply(q, k, v, layout, layout.biases(q.dtype, None), 0.0, 0.35)[:80].float()
    expected = by_sequence([x[:80].float() for x in (q, k, v)], [30, 9, 41], 0.35, None)
    assert float((got - expected).abs().max()) < 2**-7 * float(v.float().abs().max())


def test_the_order_of_sequences_changes_nothing() -> None:
    """Buckets mix sequences of different places in the row; each gets its own result back."""
    lengths, order = [5, 30, 6, 29, 16, 1], [3, 0, 5, 4, 2, 1]
    parts = [[x.float() for x in draw(n, seed=n)[:3]] for n in lengths]

    def run(which: list[int]) -> list[Tensor]:
        layout = make_layout(np.array([lengths[i] for i in which]))
        row = [torch.cat([parts[i][j] for i in which]) for j in range(3)]
        row = [torch.cat([x, torch.zeros(layout.filler, HEADS, WIDTH)]) for x in row]
        out = BucketAttention.apply(*row, layout, layout.biases(torch.float32, None), 0.0, 0.3)
        return list(out[: sum(lengths)].split([lengths[i] for i in which]))

    straight, mixed = run(list(range(6))), run(order)
    for place, i in enumerate(order):
        torch.testing.assert_close(mixed[place], straight[i], rtol=1e-5, atol=1e-6)


def test_an_encoder_that_loses_the_layout_is_told() -> None:
    q = torch.zeros(1, 2, 16, 4)
    with pytest.raises(RuntimeError, match="does not hand keyword arguments down"):
        packed_attention(torch.nn.Module(), q, q, q, None)
