"""Attention over packed rows against torch's own attention, one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from research.batching.layout import AttentionPlan, make_layout, plan_attention
from research.models.attention import CROSS, BucketAttention, Plans, packed_attention
from research.models.load import DECODER, ENCODER

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


def within(lengths: list[int]) -> AttentionPlan:
    return make_layout(np.array(lengths)).attention


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: AttentionPlan,
    scale: float = 0.3,
    window: int | None = None,
    p: float = 0.0,
    causal: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    out: Tensor = BucketAttention.apply(q, k, v, plan, plan.biases(q.dtype, window, causal), p, scale, bias)
    return out


def by_sequence(
    inputs: list[Tensor],
    q_lengths: list[int],
    scale: float = 0.3,
    window: int | None = None,
    causal: bool = False,
    bias: Tensor | None = None,
    k_lengths: list[int] | None = None,
) -> Tensor:
    """The same attention without packing: (T, H, D)."""
    k_lengths = k_lengths or q_lengths
    rows = zip(*(x.split(n) for x, n in zip(inputs, (q_lengths, k_lengths, k_lengths), strict=True)), strict=True)
    parts = []
    for sequence in rows:
        q, k, v = (x.transpose(0, 1) for x in sequence)
        distance = torch.arange(q.shape[1])[:, None] - torch.arange(k.shape[1])
        near = distance.abs() < (window or 10**6)
        mask = torch.zeros(near.shape).masked_fill(~(near & (distance >= 0) if causal else near), -torch.inf)
        if bias is not None:
            mask = mask + bias[0, :, : q.shape[1], : k.shape[1]]
        parts.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(0, 1))
    return torch.cat(parts)


def with_gradients(function: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    out.backward(grad)
    return [out.detach(), *(x.grad for x in leaves if x.grad is not None)]


def assert_equal_to_rounding(got: list[Tensor], expected: list[Tensor], names: str) -> None:
    for name, a, b in zip(names.split(), got, expected, strict=True):
        assert torch.isfinite(a).all(), name
        # A token that sees itself alone has a true dq and dk of zero: the scale is then that of the inputs, 1.
        near = 1e-5 * max(1.0, float(b.abs().max()))
        worst = float(((a[: len(b)] - b).abs() - 1e-5 * b.abs()).max())
        assert worst <= near, f"{name}: {worst:.1e} over {near:.1e}"
        if name != "out" and a.shape != b.shape:
            assert not a[len(b) :].any(), f"{name}: the filler has a gradient"


@pytest.mark.in_check(8)
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("window", [None, 1, 5, 16])
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda x: "-".join(map(str, x)))
def test_equals_attention_of_each_sequence(lengths: list[int], window: int | None, causal: bool) -> None:
    plan, real = within(lengths), sum(lengths)
    *inputs, grad = draw(plan.q.T)
    grad[real:] = 0  # nothing reads the filler
    got = with_gradients(lambda q, k, v: attend(q, k, v, plan, 0.31, window, causal=causal), inputs, grad)
    cut = [x[:real] for x in inputs]
    expected = with_gradients(lambda *x: by_sequence(list(x), lengths, 0.31, window, causal), cut, grad[:real])
    assert_equal_to_rounding(got, expected, "out dq dk dv")


@pytest.mark.parametrize(
    ("targets", "sources"), [([1], [40]), ([16, 4], [16, 12]), ([5, 17, 3, 33, 2], [40, 1, 17, 16, 6])]
)
def test_cross_attention_equals_that_of_each_pair(targets: list[int], sources: list[int]) -> None:
    rows = [make_layout(np.array(lengths), always_fill=True) for lengths in (targets, sources)]
    plan = plan_attention(rows[0].lengths, rows[1].lengths)
    q, _, _, grad = draw(rows[0].T)
    _, k, v, _ = draw(rows[1].T, seed=1)
    grad[sum(targets) :] = 0
    got = with_gradients(lambda q, k, v: attend(q, k, v, plan), [q, k, v], grad)
    cut = [q[: sum(targets)], k[: sum(sources)], v[: sum(sources)]]
    expected = with_gradients(lambda *x: by_sequence(list(x), targets, k_lengths=sources), cut, grad[: sum(targets)])
    assert_equal_to_rounding(got, expected, "out dq dk dv")


def test_streams_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="2 sequences cannot attend to 3, one each"):
        plan_attention(np.array([4, 4]), np.array([1, 2, 3]))


@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("heads", [1, HEADS])
def test_position_bias_has_a_gradient(causal: bool, heads: int) -> None:
    """One bias over the longest sequence serves all, and gathers the gradients of all."""
    lengths = [5, 17, 3, 40]
    plan, real = within(lengths), sum(lengths)
    *inputs, grad = draw(plan.q.T)
    grad[real:] = 0
    bias = torch.randn(1, heads, plan.q.longest, plan.q.longest, generator=torch.Generator().manual_seed(3))
    got = with_gradients(lambda q, k, v, bias: attend(q, k, v, plan, causal=causal, bias=bias), [*inputs, bias], grad)
    expected = with_gradients(
        lambda *x: by_sequence(list(x[:3]), lengths, causal=causal, bias=x[3].expand(-1, HEADS, -1, -1)),
        [*(x[:real] for x in inputs), bias],
        grad[:real],
    )
    assert_equal_to_rounding(got, expected, "out dq dk dv dbias")


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.sampled_from([None, 2, 9]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_equals_attention_of_each_sequence_for_any_lengths(
    lengths: list[int], window: int | None, causal: bool
) -> None:
    plan = within(lengths)
    q, k, v, _ = draw(plan.q.T)
    got = attend(q, k, v, plan, window=window, causal=causal)[: sum(lengths)]
    expected = by_sequence([x[: sum(lengths)] for x in (q, k, v)], lengths, window=window, causal=causal)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 3])
def test_gradcheck(window: int | None) -> None:
    """The hand-written backward pass against finite differences, in float64."""
    plan = within([5, 2, 18, 7])
    *inputs, _ = draw(plan.q.T, torch.float64)
    leaves = [x[:, :2, :3].contiguous().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, plan, 0.4, window), leaves, atol=1e-7, rtol=1e-6)


@pytest.mark.slow
def test_gradcheck_with_dropout() -> None:
    """With the generator set again before each call the mask is fixed: the gradient must use the same one."""
    plan = within([4, 11])
    *inputs, _ = draw(plan.q.T, torch.float64)
    leaves = [x[:, :2, :3].contiguous().requires_grad_() for x in inputs]

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(7)
        return attend(q, k, v, plan, 0.4, p=0.3)

    assert torch.autograd.gradcheck(function, leaves, atol=1e-7, rtol=1e-6)


@pytest.mark.slow
def test_dropout_keeps_the_mean() -> None:
    """Averaged over many masks, attention with dropout is attention without."""
    plan = within([12, 20])
    q, k, v, _ = draw(plan.q.T)
    plain = attend(q, k, v, plan)
    torch.manual_seed(0)
    many = torch.stack([attend(q, k, v, plan, p=0.25) for _ in range(2000)])
    error = many.std(0) / 2000**0.5
    assert ((many.mean(0) - plain).abs() < 5.5 * error + 1e-6).all()


def test_bf16_is_as_close_as_bf16_can_be() -> None:
    plan = within([30, 9, 41])
    q, k, v, _ = draw(plan.q.T, torch.bfloat16)
    got = attend(q, k, v, plan, 0.35)[:80].float()
    expected = by_sequence([x[:80].float() for x in (q, k, v)], [30, 9, 41], 0.35)
    assert float((got - expected).abs().max()) < 2**-7 * float(v.float().abs().max())


def test_the_order_of_sequences_changes_nothing() -> None:
    """Buckets mix sequences of different places in the row; each gets its own result back."""
    lengths, order = [5, 30, 6, 29, 16, 1], [3, 0, 5, 4, 2, 1]
    parts = [[x.float() for x in draw(n, seed=n)[:3]] for n in lengths]

    def run(which: list[int]) -> list[Tensor]:
        plan = within([lengths[i] for i in which])
        row = [torch.cat([parts[i][j] for i in which]) for j in range(3)]
        q, k, v = (torch.cat([x, torch.zeros(plan.q.T - sum(lengths), HEADS, WIDTH)]) for x in row)
        return list(attend(q, k, v, plan)[: sum(lengths)].split([lengths[i] for i in which]))

    straight, mixed = run(list(range(6))), run(order)
    for place, i in enumerate(order):
        torch.testing.assert_close(mixed[place], straight[i], rtol=1e-5, atol=1e-6)


def call(module: Any, q: Tensor, k: Tensor, v: Tensor, plans: Plans | None, **others: Any) -> Tensor:
    """As `transformers` calls it, with (T, H, D) tensors."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    out, _ = packed_attention(module, q, k, v, None, plans=plans, **others)
    return out[0]


def test_the_role_is_the_modules_not_the_shapes() -> None:
    """Encoder, decoder and cross attention over rows of equal length differ by what the module says of itself."""
    lengths = [9, 20, 3]
    plan = within(lengths)
    q, k, v, _ = draw(plan.q.T)
    plans = Plans({ENCODER: plan, DECODER: plan, CROSS: within([20, 9, 3])})
    causal = call(SimpleNamespace(is_causal=True), q, k, v, plans)[:32]
    both_ways = call(SimpleNamespace(is_causal=False), q, k, v, plans)[:32]
    across = call(SimpleNamespace(is_causal=False, attends_across=True), q, k, v, plans)[:32]
    cut = [x[:32] for x in (q, k, v)]
    torch.testing.assert_close(causal, by_sequence(cut, lengths, WIDTH**-0.5, causal=True), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both_ways, by_sequence(cut, lengths, WIDTH**-0.5), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(across, by_sequence(cut, [20, 9, 3], WIDTH**-0.5), rtol=1e-5, atol=1e-5)
    assert plans.calls == {ENCODER: 1, DECODER: 1, CROSS: 1}


def test_grouped_heads_share_keys_and_values() -> None:
    plan = within([10, 6])
    q, k, v, _ = draw(plan.q.T)
    module, plans = SimpleNamespace(is_causal=True), Plans({DECODER: plan})
    shared = call(module, torch.cat([q, q.flip(0)], 1)[:, :6], k, v, plans)
    each = call(
        module, torch.cat([q, q.flip(0)], 1)[:, :6], k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), plans
    )
    assert shared.equal(each) and shared.shape == (16, 6, WIDTH)


def test_rotary_queries_in_float32_meet_values_in_bfloat16() -> None:
    """Under autocast rotary embeddings return float32; the backward pass must not mix the types."""
    plan = within([10, 6])
    q, k, v, _ = draw(plan.q.T)
    q, k, v = q.requires_grad_(), k.requires_grad_(), v.bfloat16().requires_grad_()
    out = call(SimpleNamespace(is_causal=True), q, k, v, Plans({DECODER: plan}))
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert q.grad is not None and q.grad.dtype == torch.float32 and bool(q.grad.isfinite().all())


def test_what_cannot_be_computed_is_refused() -> None:
    plan = within([10, 6])
    q, k, v, _ = draw(plan.q.T)
    causal, plans = SimpleNamespace(is_causal=True), Plans({DECODER: plan})
    with pytest.raises(RuntimeError, match="does not hand keyword arguments down"):
        call(causal, q, k, v, None)
    with pytest.raises(RuntimeError, match="its attention asks for s_aux, softcap"):
        call(causal, q, k, v, plans, softcap=50.0, s_aux=torch.zeros(3), use_cache=True)
    with pytest.raises(RuntimeError, match="it has encoder attention"):
        call(SimpleNamespace(is_causal=False), q, k, v, plans)
    with pytest.raises(RuntimeError, match="its attention is over 16 and 17 tokens, not 16 and 16"):
        call(causal, q, torch.cat([k, k[:1]]), torch.cat([v, v[:1]]), plans)
    assert call(causal, q, k, v, plans, softcap=None, output_attentions=False).shape == q.shape
