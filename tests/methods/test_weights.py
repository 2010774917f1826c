"""Methods that act on weights: L1, L2-SP, mixout and the mean of weights, by their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from research.methods.mixout import kept_mask
from research.training import checkpoint
from tests.methods.conftest import Build
from tests.small_runs import SmallRuns

QUERY, HEAD, NORM = "bert.encoder.layer.0.attention.self.query.weight", "classifier.weight", "LayerNorm.weight"


def with_gradients(module: Any) -> dict[str, Any]:
    weights = dict(module.backbone.model.named_parameters())
    for p in weights.values():
        p.grad = torch.ones_like(p)
    return weights


def test_l1_adds_the_sign_of_each_matrix(make: Build) -> None:
    module = make("sentiment", methods={"l1": {"strength": 0.25}})
    weights = with_gradients(module)
    assert module.rows is None  # each row of the embedding is moved at each step
    module.methods["l1"].after_backward(module)
    for name in (QUERY, HEAD, "bert.embeddings.word_embeddings.weight"):
        torch.testing.assert_close(weights[name].grad, 1 + 0.25 * torch.sign(weights[name].detach()))
    assert bool((weights["bert.embeddings.LayerNorm.weight"].grad == 1).all())


def test_l2_sp_pulls_to_the_start_and_the_head_to_zero(make: Build) -> None:
    module = make("sentiment", methods={"l2_sp": {"alpha": 0.5, "beta": 0.2}})
    weights = with_gradients(module)
    with torch.no_grad():
        weights[QUERY].add_(0.3)
    module.methods["l2_sp"].after_backward(module)
    torch.testing.assert_close(weights[QUERY].grad, torch.full_like(weights[QUERY], 1 + 0.5 * 0.3))
    torch.testing.assert_close(weights[HEAD].grad, 1 + 0.2 * weights[HEAD].detach())
    key = QUERY.replace("query", "key")
    assert bool((weights[key].grad == 1).all())  # where it was pretrained


def test_mixout_is_the_papers_mixture(make: Build) -> None:
    """(mask u + (1 - mask) w - p u) / (1 - p), in the authors' form; the gradient of w has its factor; w comes back."""
    module = make("sentiment", methods={"mixout": {"p": 0.75}})
    method: Any = module.methods["mixout"]
    weights = dict(module.backbone.model.named_parameters())
    start = weights[QUERY].detach().clone()
    with torch.no_grad():
        weights[QUERY].add_(torch.randn(start.shape, generator=torch.Generator().manual_seed(0)))
    own, head = weights[QUERY].detach().clone(), weights[HEAD].detach().clone()
    kept = kept_mask(own, 0.75, module, QUERY)
    assert 0.2 < float(kept.float().mean()) < 0.3
    assert bool((kept == kept_mask(own, 0.75, module, QUERY)).all())
    with method.at_step(module):
        mask = (~kept).float()
        torch.testing.assert_close(weights[QUERY].data, (mask * start + (1 - mask) * own - 0.75 * start) / 0.25)
        assert torch.equal(weights[HEAD].data, head)  # not pretrained
        weights[QUERY].grad = torch.ones_like(own)
    assert torch.equal(weights[QUERY].data, own)
    torch.testing.assert_close(weights[QUERY].grad, kept.float() / 0.25)
    module.progress.step = 1
    assert not torch.equal(kept, kept_mask(own, 0.75, module, QUERY))
    with pytest.raises(KeyError), method.at_step(module):
        raise KeyError
    assert torch.equal(weights[QUERY].data, own)


@pytest.mark.slow
def test_swa_is_the_mean_of_its_steps(small_runs: SmallRuns) -> None:
    """Of steps 2, 4 and 6 of six, from the raw weights of each checkpoint; the mean is scored and exported."""
    keep = ("trainer.checkpoint_every_steps=1", "trainer.keep=9", "trainer.keep_checkpoints=all")
    run = small_runs.train("sentiment", *keep, methods={"swa": {"start": 0.3, "every_steps": 2}})
    saved = {checkpoint.step_of(path): load_file(path) for path in checkpoint.files(run.checkpoints)}
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not any("method.swa" in key and "dense" in key for key in saved[1])
    for done, steps in {2: (2,), 3: (2,), 5: (2, 4), 6: (2, 4, 6)}.items():
        mean = torch.stack([saved[step][f"model.{name}"] for step in steps]).mean(0)
        torch.testing.assert_close(saved[done][f"method.swa.{name}"], mean, atol=1e-7, rtol=1e-6)
    best = (run.result or {})["best_step"]
    exported = load_file(run.model / "model.safetensors")[name]
    assert torch.equal(exported, saved[best][f"method.swa.{name}"]) and not torch.equal(
        exported, saved[best][f"model.{name}"]
    )
