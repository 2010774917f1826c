"""Learning without forgetting: what the loss gains, written out example by example from the formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from research.batching.pack import pack
from research.common.errors import UserError
from research.config.load import load_config
from research.tasks.multi_recorded import Recorded, write_scores
from research.training.build import build

STRENGTH, TEMPERATURE = 3.0, 2.0


@pytest.mark.slow
def test_the_gain_is_the_divergence_from_what_was_recorded(
    tmp_path: Path, tiny_model: Path, task_data: dict[str, dict[str, str]]
) -> None:
    """`ner` is new. A head on texts is read once an example, a head on tokens at each, and both count as the targets
    of the example: strength * T² * KL(then || now)."""
    for task in ("sentiment", "ner"):
        experiment = {"task": task, "model": {"name": str(tiny_model)}, "data": {**task_data[task], "max_length": 48}}
        (tmp_path / f"{task}.yaml").write_text(json.dumps(experiment))
    joint = {
        "tasks": ["sentiment.yaml", "ner.yaml"],
        "task": {"train": ["ner"], "follow": STRENGTH, "temperature": TEMPERATURE},
        "model": {"dropout": 0.0},
        "trainer": {"precision": "fp32", "devices": 1},
        "run_dir": str(tmp_path / "run"),
    }
    (tmp_path / "joint.yaml").write_text(json.dumps(joint))
    module: Any = build(load_config(tmp_path / "joint.yaml"))
    recorded = tmp_path / "recorded.safetensors"
    write_scores(module, ["sentiment", "ner"], recorded)
    store, outputs = module.data.stores["train"], module.data.outputs
    examples = np.sort(module.data.plan.global_batch(0))[:6]

    def scores() -> list[torch.Tensor]:
        """Of each example alone: (T, all outputs)."""
        with torch.no_grad():
            return [module.backbone.token_logits(pack(store, np.array([i])))["logits"] for i in examples]

    then = scores()
    torch.manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.05 * torch.randn_like(p)
    expected = 0.0
    for before, now, targets in zip(then, scores(), store.targets[examples].tolist(), strict=True):
        for rows, of_task in ((slice(0, 1), "sentiment"), (slice(None), "ner")):
            q, p = (torch.softmax(x[rows, outputs[of_task]] / TEMPERATURE, -1).double() for x in (before, now))
            divergence = (q * (q / p).log()).sum(-1).mean()
            expected += targets * STRENGTH * TEMPERATURE**2 * float(divergence)
    module.train()
    module.shares = module.data.shares("train", examples)
    with torch.no_grad():
        plain = float(module.loss(pack(store, examples))[0])
        module.recorded = Recorded(str(recorded))
        gained = float(module.loss(pack(store, examples))[0]) - plain
    assert gained == pytest.approx(expected, rel=1e-4) and expected > 1e-3
    with pytest.raises(UserError, match=r"task\.recorded=.*none is not there; research continual writes it"):
        Recorded(str(tmp_path / "none"))
