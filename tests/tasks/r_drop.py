"""R-Drop on a task: without dropout it is the plain loss, with dropout the paper's formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from research.batching.pack import pack
from research.batching.repeat import twice


def assert_r_drop(build: Callable[..., Any], labels: int) -> None:
    """`build(*overrides)` makes the module; `labels`: classes of each of its targets."""
    keys = ("methods.r_drop.alpha=2.0", "model.dropout=0.0")
    plain = build(*keys).train()
    micro = pack(plain.data.stores["train"], np.arange(6), plain.backbone.packed)
    same = plain.loss(micro)[0].item()
    assert plain.training_loss(micro)[0].item() == pytest.approx(same, rel=1e-5)  # each target beside its own copy

    module = build(keys[0], "model.dropout=0.3").train()
    torch.manual_seed(0)
    loss, outputs = module.loss(twice(micro))
    [logits] = module.target_logits(twice(micro), outputs)
    p, q = torch.log_softmax(logits, -1).chunk(2)
    divergence = F.kl_div(p, q, reduction="sum", log_target=True) + F.kl_div(q, p, reduction="sum", log_target=True)
    assert p.shape[1] == labels and divergence.item() > 1e-4
    torch.manual_seed(0)
    assert module.training_loss(micro)[0].item() == pytest.approx((loss / 2 + divergence).item(), rel=1e-5)
