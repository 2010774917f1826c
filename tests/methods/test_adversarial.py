"""Methods that move embedded tokens, against a direct computation: one example at a time, by `inputs_embeds`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from research.batching.pack import MicroBatch, pack
from research.methods import freelb, r3f, smart
from research.methods.embedded_tokens import noise, norms, unit
from research.training.module import TaskModule
from tests.methods.conftest import Build

KEYS: dict[str, dict[str, Any]] = {
    "fgm": {"epsilon": 0.5},
    "pgd": {"steps": 3, "step_size": 0.3, "epsilon": 0.5},
    "freelb": {"steps": 3, "step_size": 0.4, "epsilon": 0.5},
    "smart": {"strength": 2.0, "epsilon": 0.03, "sigma": 0.02, "step_size": 0.02, "steps": 2},
    "r3f": {"strength": 2.0, "sigma": 0.3, "noise": "uniform"},
}


def unit_of(x: Tensor) -> Tensor:
    return x / x.norm()


def clipped(x: Tensor, radius: float) -> Tensor:
    return x * min(1.0, radius / float(x.norm()))


def divergence(p: Tensor, q: Tensor) -> Tensor:
    p, q = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
    return F.kl_div(q, p, reduction="sum", log_target=True) + F.kl_div(p, q, reduction="sum", log_target=True)


def slope(f: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(f(at), at)
    return found


def direct(name: str, keys: dict[str, Any], f: Callable[[Tensor], Tensor], label: Tensor, draw: Any) -> Tensor:
    """The loss of one example; f: what is added to its embedded tokens (1, T, H) -> logits (1, C)."""

    def loss(move: Tensor) -> Tensor:
        return F.cross_entropy(f(move), label, reduction="sum")

    still = torch.zeros_like(draw(1))
    if name == "fgm":
        return loss(still) + loss(keys["epsilon"] * unit_of(slope(loss, still)))
    if name == "pgd":
        move = still
        for _ in range(keys["steps"]):
            move = clipped(move + keys["step_size"] * unit_of(slope(loss, move)), keys["epsilon"])
        return loss(still) + loss(move)
    if name == "freelb":
        move, losses = keys["epsilon"] * draw(freelb.START, uniform=True) / still.numel() ** 0.5, []
        for _ in range(keys["steps"]):
            losses.append(loss(move) / keys["steps"])
            move = clipped(move + keys["step_size"] * unit_of(slope(loss, move)), keys["epsilon"])
        return torch.stack(losses).sum()
    if name == "r3f":
        return loss(still) + 2.0 * divergence(f(still), f(keys["sigma"] * draw(r3f.NOISE, uniform=True)))
    move, clean = keys["sigma"] * draw(smart.START), f(still).detach()
    for _ in range(keys["steps"]):
        uphill = slope(lambda x: divergence(clean, f(x)), move)
        move = (move + keys["step_size"] * uphill / uphill.abs().max()).clamp(-keys["epsilon"], keys["epsilon"])
    return loss(still) + keys["strength"] * divergence(f(still), f(move))


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["auto", "false"])
@pytest.mark.parametrize("name", KEYS)
def test_the_loss_is_that_of_each_example_alone(name: str, packing: str, make: Build) -> None:
    module = make("sentiment", f"trainer.packing={packing}", methods={name: KEYS[name]})
    model: Any = module.backbone.model
    for p in model.parameters():  # or the tokens of a random model hardly feel one another
        p.data.mul_(3 if p.ndim > 1 else 1)
    reference = make("sentiment", "trainer.packing=false")
    reference.load_state_dict(module.state_dict())
    reference.train()
    store = module.data.stores["train"]
    micro = pack(store, np.arange(5), module.backbone.packed)
    expected = torch.zeros(())
    plain: Any = reference.backbone.model
    for row in range(5):
        alone = pack(store, np.array([row]), False)
        table = plain.get_input_embeddings()
        embedded = table(alone.tokens["input_ids"][None]).detach()

        def f(move: Tensor, embedded: Tensor = embedded, alone: MicroBatch = alone) -> Tensor:
            types = torch.zeros(1, embedded.shape[1], dtype=torch.int64)
            logits: Tensor = plain(inputs_embeds=embedded + move, token_type_ids=types)["logits"]
            return logits

        def draw(what: int, uniform: bool = False, embedded: Tensor = embedded, alone: MicroBatch = alone) -> Tensor:
            return noise(reference, alone, embedded, what, uniform)

        expected = expected + direct(name, KEYS[name], f, alone.sequences["label"], draw).detach()
    got = float(module.training_loss(micro)[0].detach())
    assert got == pytest.approx(float(expected), rel=1e-4)
    assert abs(got / float(module.loss(micro)[0].detach()) - 1) > 1e-3


@pytest.mark.slow
def test_the_bregman_term_is_the_divergence_from_averaged_weights(make: Build) -> None:
    """SMART's second part, by hand: f from the trained weights, g from the averages; both as they were afterwards."""
    own = {"smart": {"strength": 0.0, "bregman": 0.7, "momentum": 0.75}}
    module, other = make("sentiment", methods=own), make("sentiment")
    method: Any = module.methods["smart"]
    micro = pack(module.data.stores["train"], np.arange(5), module.backbone.packed)
    plain = module.loss(micro)[0].detach()
    assert float(module.training_loss(micro)[0].detach()) == float(plain)  # at first g is f
    generator = torch.Generator().manual_seed(0)
    for name, average in method.averages.items():
        average += 0.1 * torch.randn(average.shape, generator=generator)
        other.backbone.model.get_parameter(name).data.copy_(average)
    log_p, log_q = (torch.log_softmax(m.outputs(micro).detach(), 1) for m in (module, other))
    expected = plain + 0.7 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()
    before = {name: p.detach().clone() for name, p in module.backbone.model.named_parameters()}
    loss = module.training_loss(micro)[0]
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5) and abs(float(expected - plain)) > 1e-3
    loss.backward()
    assert all(torch.equal(p, before[name]) for name, p in module.backbone.model.named_parameters())
    name = "classifier.weight"
    average = method.averages[name].clone()
    method.after_step(module)
    torch.testing.assert_close(method.averages[name], 0.75 * average + 0.25 * before[name])


def test_norms_and_noise_belong_to_the_example(make: Build) -> None:
    """The same in a packed row and a padded grid; 0 and not a number where an example's gradient is."""
    packed, padded = make("sentiment"), make("sentiment", "trainer.packing=false")
    row, grid = (pack(m.data.stores["train"], np.arange(4), m.backbone.packed) for m in (packed, padded))
    T, L = row.first.layout.T, int(grid.lengths.max())
    flat = noise(packed, row, torch.empty(1, T, 3), 7)[0, : row.size]
    assert torch.equal(flat, grid.first.unpad(noise(padded, grid, torch.empty(4, L, 3), 7)))
    longer = pack(packed.data.stores["train"], np.array([9, 2, 0]), True)
    like = torch.empty(1, longer.first.layout.T, 3)
    again = noise(packed, longer, like, 7)[0].split([*longer.lengths.tolist(), longer.first.layout.filler])
    assert torch.equal(again[2], flat.split(row.lengths.tolist())[0])  # in another micro-batch
    packed.progress.step = 1
    assert not torch.equal(noise(packed, row, torch.empty(1, T, 3), 7)[0, : row.size], flat)

    x = torch.zeros(1, T, 3)
    x[0, : row.size] = flat
    ends = row.lengths.cumsum()
    for order in (2, float("inf")):
        parts = [torch.linalg.vector_norm(part, ord=order) for part in flat.split(row.lengths.tolist())]
        assert norms(x, row, order)[0, ends - 1, 0].tolist() == pytest.approx([float(part) for part in parts])
    x[0, 0] = torch.nan
    x[0, ends[0] : ends[1]] = 0
    found = unit(x, row)[0]
    assert bool((found[: ends[1]] == 0).all()) and float(found[ends[1] : ends[2]].norm()) == pytest.approx(1)


def test_freelb_has_the_same_dropout_in_all_steps(make: Build) -> None:
    """A way of no length is the plain loss, to the bit of a mean, with dropout on."""
    module = make("sentiment", "model.dropout=0.3", methods={"freelb": {"steps": 3, "step_size": 0.0, "epsilon": 1e-9}})
    micro = pack(module.data.stores["train"], np.arange(5), module.backbone.packed)
    torch.manual_seed(0)
    expected = float(module.loss(micro)[0].detach())
    torch.manual_seed(0)
    assert float(module.training_loss(micro)[0].detach()) == pytest.approx(expected, rel=1e-6)
    assert float(module.loss(micro)[0].detach()) != expected


def test_the_embedding_is_itself_again_after_an_error(make: Build) -> None:
    """A pass that fails leaves no text moved."""
    module = make("sentiment", methods={"fgm": {"epsilon": 5.0}})
    micro = pack(module.data.stores["train"], np.arange(3), module.backbone.packed)
    before = float(module.loss(micro)[0].detach())
    method: Any = module.methods["fgm"]

    def failing(given: MicroBatch) -> tuple[Tensor, Any]:
        module.backbone.model.get_input_embeddings()(given.tokens["input_ids"][None])
        raise KeyError

    with pytest.raises(KeyError):
        method.loss(module, micro, failing)
    assert float(module.loss(micro)[0].detach()) == before


def mixed_by_hand(module: TaskModule, share: float, pairs: list[tuple[int, int]]) -> Tensor:
    model: Any = module.backbone.model
    store, total = module.data.stores["train"], torch.zeros(())
    for i, j in pairs:
        own, other = (
            torch.from_numpy(store.columns["input_ids"].rows(np.array([k]))[0].astype(np.int64)) for k in (i, j)
        )
        E = model.get_input_embeddings()
        padded = torch.zeros(len(own), E(own).shape[-1])
        count = min(len(own), len(other))
        padded[:count] = E(other)[:count]
        x = share * E(own) + (1 - share) * padded
        logits = model(inputs_embeds=x[None], token_type_ids=torch.zeros(1, len(own), dtype=torch.int64))["logits"]
        labels = [torch.from_numpy(store.columns["label"].rows(np.array([k]))[0].astype(np.int64)) for k in (i, j)]
        losses = [F.cross_entropy(logits, label, reduction="sum") for label in labels]
        total = total + share * losses[0] + (1 - share) * losses[1]
    return total


@pytest.mark.slow
def test_mixup_mixes_each_text_with_one_of_its_step(make: Build) -> None:
    module, padded = (
        make("sentiment", f"trainer.packing={p}", methods={"mixup": {"alpha": 1.0}}) for p in ("auto", "false")
    )
    method: Any = module.methods["mixup"]
    batch = module.data.plan.global_batch(0)
    share, partners = method.drawn(module, batch)
    assert 0 < share < 1 and sorted(partners) == sorted(batch)
    assert method.drawn(module, batch[2:3])[1].tolist() == partners[2:3].tolist()
    padded.load_state_dict(module.state_dict())
    expected = float(mixed_by_hand(padded, share, list(zip(batch.tolist(), partners.tolist(), strict=True))).detach())
    for each in (module, padded):
        micro = pack(each.data.stores["train"], batch, each.backbone.packed)
        assert float(each.training_loss(micro)[0].detach()) == pytest.approx(expected, rel=1e-5)
