"""The Fisher and EWC against both written out by hand on a tiny problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from research.batching.pack import pack
from research.batching.plan import random_bits
from research.common.errors import UserError
from research.inference.fisher import DRAWN, encoder_parameters, fisher
from research.methods.ewc import FILE
from tests.methods.conftest import Build
from tests.small_runs import SmallRuns

EXAMPLES = np.arange(5)


@pytest.mark.slow
def test_fisher_and_pull_are_those_written_out(make: Build, small_runs: SmallRuns) -> None:
    """Per-example gradients with drawn labels, to 1e-6; the pull by automatic differentiation of the penalty."""
    module = make("sentiment", "trainer.sparse_embedding=false").eval()
    found = fisher(module, EXAMPLES, seed=3)
    weights = encoder_parameters(module)
    assert not any("classifier" in name or "pooler" in name for name in weights)
    by_hand: dict[str, Tensor] = {name: torch.zeros_like(p) for name, p in weights.items()}
    for i in EXAMPLES.tolist():
        micro = pack(module.data.stores["train"], np.array([i]))
        logits = module.outputs(micro)
        generator = torch.Generator().manual_seed(int(random_bits(3, i, DRAWN).random_raw() >> 1))
        label = torch.multinomial(torch.softmax(logits.detach(), -1), 1, generator=generator)[0]
        module.zero_grad(set_to_none=True)
        F.cross_entropy(logits, label).backward()
        for name, p in weights.items():
            by_hand[name] += (0 if p.grad is None else p.grad**2) / len(EXAMPLES)
    assert max(float(x.max()) for x in found.values()) > 1e-5
    for name, expected in by_hand.items():
        assert float((found[name] - expected).abs().max()) <= 1e-6, name
    whole = fisher_of_batch(module, weights)
    assert sum(float(x.sum()) for x in found.values()) > 1.5 * sum(float(x.sum()) for x in whole.values())

    folder = small_runs.folder / "earlier"
    folder.mkdir()
    start = {name: p.detach() + 0.3 * torch.ones_like(p) for name, p in weights.items()}
    tensors = {f"fisher.{name}": x for name, x in found.items()} | {f"weight.{name}": x for name, x in start.items()}
    save_file(tensors, folder / FILE)
    held = make("sentiment", methods={"ewc": {"strength": 700.0, "runs": [str(folder)]}})
    own = encoder_parameters(held)
    penalty: Any = 700.0 / 2 * sum((found[name] * (p - start[name]) ** 2).sum() for name, p in own.items())
    expected_pull = torch.autograd.grad(penalty, list(own.values()))
    held.zero_grad(set_to_none=True)
    held.methods["ewc"].after_backward(held)
    for (name, p), pull in zip(own.items(), expected_pull, strict=True):
        assert p.grad is not None and float((p.grad - pull).abs().max()) <= 1e-6, name
    with pytest.raises(UserError, match=r"is not the file it was \(its sha256"):
        make("sentiment", methods={"ewc": {"runs": [str(folder)], "sha256": ["0"]}})
    with pytest.raises(UserError, match="2 runs and 1 sha256; give one for each run"):
        make("sentiment", methods={"ewc": {"runs": [str(folder)] * 2, "sha256": ["0"]}})
    with pytest.raises(UserError, match="is not there; research continual writes it"):
        make("sentiment", methods={"ewc": {"runs": [str(small_runs.folder)]}})
    with pytest.raises(UserError, match="holds weights to those of earlier runs: name them"):
        make("sentiment", methods={"ewc": {}})


def fisher_of_batch(module: object, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The square of the mean gradient: another, smaller quantity."""
    micro = pack(module.data.stores["train"], EXAMPLES)  # type: ignore[attr-defined]
    loss = F.cross_entropy(module.outputs(micro), micro.sequences["label"])  # type: ignore[attr-defined]
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: torch.zeros(1) if g is None else g**2 for name, g in zip(weights, gradients, strict=True)}
