"""The schedule wsd: the rates of transformers' warmup_stable_decay with a linear decay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers.optimization import get_wsd_schedule

from research.common.errors import UserError
from research.config.load import load_config
from research.config.schema import OptimConfig
from research.training.schedule import learning_rate


@pytest.mark.parametrize(("ratio", "decay"), [(None, 4), (0.25, 10), (1.0, 35)])
def test_rates_are_those_of_transformers(ratio: float | None, decay: int) -> None:
    optim = OptimConfig(lr=0.5, schedule="wsd", warmup_steps=5, decay_ratio=ratio)
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = get_wsd_schedule(sgd, 5, decay, num_training_steps=40, decay_type="linear")
    for step in range(41):
        assert learning_rate(optim, step, 40) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        sgd.step()
        theirs.step()
    assert learning_rate(optim, 40, 40) == 0


def test_a_decay_is_refused_where_it_would_not_act(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    experiment = {"task": "ner", "model": {"name": "m"}, "data": {"train": str(rows)}, "optim": {"decay_ratio": 0.2}}
    (tmp_path / "mine.yaml").write_text(json.dumps(experiment))
    with pytest.raises(UserError, match=r"optim\.decay_ratio=0\.2 acts where optim\.schedule is wsd, not linear"):
        load_config(tmp_path / "mine.yaml")
    assert load_config(tmp_path / "mine.yaml", ["optim.schedule=wsd"]).optim.decay_ratio == 0.2
    with pytest.raises(UserError, match=r"optim\.decay_ratio=0.* must be in \(0, 1\]"):
        load_config(tmp_path / "mine.yaml", ["optim.schedule=wsd", "optim.decay_ratio=0"])
