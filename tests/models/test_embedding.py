"""The embedding that updates only the rows of a step, against torch's dense AdamW in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from research.config.schema import OptimConfig
from research.models.embedding import RowEmbedding
from research.training.optimizer import use_row_embedding

V, H, EPS = 400, 16, 1e-8
Step = tuple[Tensor, Tensor, float]


def table(std: float = 0.02) -> Tensor:
    return torch.randn(V, H, generator=torch.Generator().manual_seed(0)) * std


def steps(count: int, lr: float, scale: float = 1e-3) -> Iterator[Step]:
    """ids (R,), their gradient (R, H) and the learning rate: Zipf's law, linear warmup and decay."""
    generator = torch.Generator().manual_seed(1)
    frequency = 1 / torch.arange(1, V + 1) ** 1.1
    for step in range(count):
        ids = torch.multinomial(frequency, 40, generator=generator).unique()
        grad = torch.randn(len(ids), H, generator=generator) * scale
        yield ids, grad, lr * min(step / 50, 1 - step / count)


def dense(start: Tensor, todo: Iterator[Step], weight_decay: float, beta1: float = 0.9) -> Tensor:
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([weight], betas=(beta1, 0.999), weight_decay=weight_decay, eps=EPS, fused=True)
    for ids, grad, lr in todo:
        weight.grad = torch.zeros_like(weight).index_copy(0, ids, grad.to(weight.dtype))
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    return weight.detach()


def make_rows(start: Tensor, weight_decay: float, beta1: float = 0.9) -> RowEmbedding:
    return RowEmbedding(nn.Embedding.from_pretrained(start.clone()), beta1, 0.999, EPS, weight_decay)


def take(rows: RowEmbedding, todo: Iterator[Step]) -> None:
    for ids, grad, lr in todo:
        rows.begin(ids).grad = grad
        rows.step(lr)


def finished(rows: RowEmbedding) -> Tensor:
    with rows.up_to_date():
        return rows.weight.detach().clone()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "lr", "weight_decay", "std"),
    [
        (600, 5e-5, 0.01, 0.02),
        (600, 2e-5, 0.1, 0.05),
        (600, 1e-3, 0.01, 0.02),
        (600, 5e-5, 0.0, 0.02),
        (400, 5e-5, 0.01, 1.0),
    ],
)
def test_no_farther_from_dense_adamw_than_rounding(count: int, lr: float, weight_decay: float, std: float) -> None:
    """The distance to AdamW in float64 is below that of dense AdamW in float32, which rounds at every step."""
    start = table(std)
    reference = dense(start.double(), steps(count, lr), weight_decay)
    in_float32 = dense(start, steps(count, lr), weight_decay)
    rows = make_rows(start, weight_decay)
    take(rows, steps(count, lr))
    movement = (reference - start).norm()
    row_error = float((finished(rows) - reference).norm() / movement)
    dense_error = float((in_float32 - reference).norm() / movement)
    print(f"rows {row_error:.1e}, dense float32 {dense_error:.1e} of the movement")
    assert row_error <= max(dense_error, 1e-5)  # eps counts to first order only: 5e-6 here, whatever the rounding
    assert row_error < 5e-3


@pytest.mark.slow
def test_gradients_as_small_as_eps() -> None:
    """There eps decides the step, and what a row owes is right to first order in eps only."""
    start = table()
    reference = dense(start.double(), steps(600, 1e-3, scale=1e-7), 0.01)
    rows = make_rows(start, 0.01)
    take(rows, steps(600, 1e-3, scale=1e-7))
    assert float((finished(rows) - reference).norm() / (reference - start).norm()) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.95, 0.99])
def test_any_beta1(beta1: float) -> None:
    """How long momentum is remembered follows beta1. The rows wait 1,000 steps while one other row moves."""
    start = table(0.0)

    def todo() -> Iterator[Step]:
        generator = torch.Generator().manual_seed(2)
        for _ in range(30):
            yield torch.arange(20), torch.rand(20, H, generator=generator), 1e-3
        for _ in range(1000):
            yield torch.tensor([30]), torch.ones(1, H), 1e-3

    reference = dense(start.double(), todo(), 0.0, beta1)
    rows = make_rows(start, 0.0, beta1)
    take(rows, todo())
    waiting = slice(0, 20)
    error = (finished(rows)[waiting] - reference[waiting]).norm() / reference[waiting].norm()
    assert float(error) < 1e-5


def test_rows_never_used_only_decay() -> None:
    rows = make_rows(table(), 0.1)
    take(rows, [(torch.tensor([3]), torch.ones(1, H), 0.01)] * 10)  # type: ignore[arg-type]
    expected = table().double() * (1 - 0.001) ** 10
    torch.testing.assert_close(finished(rows)[4:].double(), expected[4:], rtol=1e-6, atol=0)


@pytest.mark.slow
def test_state_goes_on_bit_equal() -> None:
    todo = list(steps(300, 1e-3))
    rows = make_rows(table(), 0.01)
    take(rows, iter(todo[:150]))
    state = {name: tensor.clone() for name, tensor in rows.optimizer_state().items()}
    weight = rows.weight.detach().clone()
    take(rows, iter(todo[150:]))

    again = make_rows(table(), 0.01)
    again.weight.data.copy_(weight)
    again.load_optimizer_state(state)
    take(again, iter(todo[150:]))
    assert torch.equal(again.weight, rows.weight)
    assert torch.equal(finished(again), finished(rows))
    for name, tensor in rows.optimizer_state().items():
        assert torch.equal(tensor, again.optimizer_state()[name]), name


def test_loading_a_state_copies_it() -> None:
    rows, other = make_rows(table(), 0.01), make_rows(table(), 0.01)
    take(rows, steps(20, 1e-3))
    other.load_optimizer_state(rows.optimizer_state())
    before = finished(other)
    take(rows, steps(20, 1e-3))
    assert torch.equal(finished(other), before)


def test_up_to_date_pays_and_takes_back() -> None:
    rows = make_rows(table(), 0.01)
    take(rows, steps(100, 1e-3))
    owed = rows.weight.detach().clone()
    in_evaluation = rows.eval()(torch.arange(V).view(2, -1))
    with rows.up_to_date():
        assert not torch.equal(rows.weight, owed)
        assert torch.equal(in_evaluation.view(V, -1), rows.weight)
    assert torch.equal(rows.weight, owed)
    with pytest.raises(KeyError), rows.up_to_date():
        raise KeyError
    assert torch.equal(rows.weight, owed)


@pytest.mark.parametrize("padding", [None, 0])
def test_forward_and_gradient_of_nn_embedding(padding: int | None) -> None:
    """Repeated ids add up; the padding row gets no gradient."""
    reference = nn.Embedding(V, H, padding_idx=padding)
    rows = RowEmbedding(nn.Embedding(V, H, padding, _weight=reference.weight.detach().clone()), 0.9, 0.999, EPS, 0.0)
    input_ids = torch.tensor([[5, 9, 5, 0], [77, 9, 0, 0]])
    weights = torch.randn(2, 4, H)
    ids = input_ids.unique()
    leaf = rows.train().begin(ids)
    out = rows(input_ids)
    assert torch.equal(out, reference(input_ids))
    (out * weights).sum().backward()
    (reference(input_ids) * weights).sum().backward()
    assert leaf.grad is not None and reference.weight.grad is not None
    assert torch.equal(leaf.grad, reference.weight.grad[ids])
    assert rows.weight.grad is None


def test_a_tied_or_special_table_keeps_its_own_optimiser() -> None:
    class Model(nn.Module):
        def __init__(self, embedding: nn.Module) -> None:
            super().__init__()
            self.embedding = embedding

        def get_input_embeddings(self) -> nn.Module:
            return self.embedding

        def set_input_embeddings(self, new: nn.Module) -> None:
            self.embedding = new

    plain = Model(nn.Embedding(V, H))
    assert isinstance(use_row_embedding(plain, OptimConfig()), RowEmbedding)
    assert list(plain.state_dict()) == ["embedding.weight"]
    tied = Model(nn.Embedding(V, H))
    tied.output = nn.Linear(H, V, bias=False)
    tied.output.weight = tied.embedding.weight  # type: ignore[assignment]
    assert use_row_embedding(tied, OptimConfig()) is None
    assert use_row_embedding(Model(nn.Embedding(V, H, max_norm=1.0)), OptimConfig()) is None
