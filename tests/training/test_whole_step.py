"""A loss over all examples of a step: the same gradients for any micro-batches and ranks (GradCache)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from research.batching.pack import Planner
from research.common.errors import UserError
from research.config.load import load_config
from research.training import backward
from research.training.build import build
from research.training.trainer import make_trainer
from tests.conftest import make_tiny_model
from tests.small_runs import SmallRuns, assert_same_up_to_rounding, losses

# Each text shall be nearest to those of its own label, among all texts of the step (Khosla et al. 2020).
CONTRASTIVE = """
import torch

from research.tasks import classification
from research.tasks.classification import Data


class Module(classification.Module):
    def embed(self, micro):
        return {"text": (self.backbone.sequence_logits(micro), micro.examples)}

    def step_loss(self, vectors, examples):
        x, rows = 3 * torch.nn.functional.normalize(vectors["text"], dim=-1), self.data.splits["train"].rows["label"]
        labels = [rows[int(i)] for i in examples["text"]]
        same = torch.tensor([[a == b for b in labels] for a in labels])
        own = torch.eye(len(x), dtype=torch.bool)
        log_p = torch.log_softmax((x @ x.T).masked_fill(own, -1e9), -1)
        positives = same & ~own
        return -(log_p * positives).sum(1).div(positives.sum(1).clamp(min=1)).sum()
"""


@pytest.fixture
def task(tmp_path: Path) -> str:
    (tmp_path / "contrastive.py").write_text(CONTRASTIVE)
    return str(tmp_path / "contrastive.py")


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_gradients_are_those_of_one_graph(dropout: float, task: str, small_runs: SmallRuns) -> None:
    """In four micro-batches, with the dropout masks of the first pass drawn again in the second."""
    sections = {"task": task, "optim": {"batch_size": 12, "lr": 5e-3, "max_steps": 6}}
    (_, path, *given), _ = small_runs.arguments("sentiment", (f"model.dropout={dropout}",), sections)
    config = load_config(path, given)
    module: Any = build(config).train()
    module.rows = None
    table = module.backbone.model.get_input_embeddings()
    module.trainer = make_trainer(config, [], [])
    module.trainer.strategy.connect(module)
    item = Planner(module.data.stores["train"], module.data.plan, 0, 1, 60, module.backbone.packed, False)(0)
    assert len(item.micro) >= 4 and sum(map(len, item.rows)) == 12
    names = {name: p for name, p in module.named_parameters() if p is not table.weight}

    torch.manual_seed(1)
    parts = [module.embed(micro)["text"] for micro in item.micro]
    examples = np.concatenate([rows for _, rows in parts])
    order = np.argsort(examples, kind="stable")
    vectors = torch.cat([part for part, _ in parts])[torch.from_numpy(order)]
    expected = module.step_loss({"text": vectors}, {"text": examples[order]}) / item.targets
    gradients = torch.autograd.grad(expected, list(names.values()), allow_unused=True)

    torch.manual_seed(1)
    loss = backward.backward(module, item)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-6) and float(loss) > 0.1
    largest = max(float(g.abs().max()) for g in gradients if g is not None)
    for (name, p), gradient in zip(names.items(), gradients, strict=True):
        if gradient is not None:
            assert p.grad is not None and float((p.grad - gradient).abs().max()) < 1e-4 * largest, name
    assert largest > 1e-5


@pytest.mark.slow
@pytest.mark.process
def test_micro_batches_and_ranks_change_nothing(task: str, small_runs: SmallRuns, tmp_path: Path) -> None:
    """With weights so wide that texts differ: near equal vectors would leave little but rounding of their gradients."""
    small_runs.model = make_tiny_model(tmp_path / "wide", initializer_range=0.2)
    slow = "optim.lr=2e-4"
    reference = small_runs.train(task, slow)
    for layout in ("trainer.tokens_per_microbatch=1", "trainer.tokens_per_microbatch=30", "trainer.packing=false"):
        assert_same_up_to_rounding(small_runs.train(task, slow, layout), reference)
    assert_same_up_to_rounding(small_runs.train_ranks(task, 2, slow), reference)
    assert losses(reference) != losses(small_runs.train("sentiment", slow))


def test_a_method_of_micro_batches_is_refused(task: str, small_runs: SmallRuns) -> None:
    (_, path, *given), _ = small_runs.arguments("sentiment", (), {"task": task, "methods": {"r_drop": {}}})
    with pytest.raises(UserError, match=r"methods\.r_drop does not go with task .* whose loss is of whole steps"):
        build(load_config(path, given))
