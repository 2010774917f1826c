"""SetFit: pairs of both kinds, the loss by hand, the head as scikit-learn fits it, and that of the best checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from research.batching.pack import pack
from research.cli import main
from research.common.errors import UserError
from research.models.sentence_head import SentenceEncoder, logistic_regression
from research.tasks.setfit import pairs_of
from tests.small_runs import SmallRuns, losses
from tests.tasks.conftest import Build
from tests.tasks.conftest import build as build


@pytest.fixture
def task() -> str:
    return "setfit"


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_is_that_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.integers(classes, size=40)
    weight, bias = logistic_regression(torch.from_numpy(x), torch.from_numpy(y), classes)
    expected = LogisticRegression(tol=1e-8, max_iter=1000).fit(x, y).predict_proba(x)
    found = torch.softmax(torch.from_numpy(x).float() @ weight.T + bias, -1)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_pairs_are_of_both_kinds() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    pairs, alike = pairs_of(labels, None, 0)
    assert len(pairs) == 2 * 9 and alike.sum() == 9  # 6 + 3 alike, a text with itself too, as setfit has them; 6 not
    assert ((labels[pairs[:, 0]] == labels[pairs[:, 1]]) == alike).all()
    assert len({tuple(pair) for pair in pairs[~alike].tolist()}) == 6
    few, alike = pairs_of(labels, 4, 0)
    assert len(few) == 5 * 2 * 4 and alike.sum() == 5 * 4
    with pytest.raises(UserError, match="needs two labels or more"):
        pairs_of(np.zeros(4), None, 0)
    with pytest.raises(UserError, match=r"make 2,001,000 pairs: set task.iterations=20"):
        pairs_of(np.arange(2000), None, 0)


@pytest.mark.slow
def test_the_loss_is_the_squared_error_of_cosines(build: Build) -> None:
    rows = [{"text": "good film " * (1 + i), "label": "ab"[i % 2]} for i in range(4)]
    module = build(rows, "model.dropout=0", "task.iterations=1")
    store = module.data.stores["train"]
    assert len(store) == 8
    micro = pack(store, np.array([0, 3]), module.backbone.packed)
    tokens = [part.tolist() for part in np.split(micro.tokens["input_ids"].numpy(), np.cumsum(micro.lengths)[:-1])]
    plain = AutoModel.from_pretrained(module.config.model.name).eval()
    with torch.inference_mode():
        vectors = [plain(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in tokens]
        expected = sum(
            float((torch.cosine_similarity(vectors[2 * k], vectors[2 * k + 1], dim=0) - label) ** 2)
            for k, label in enumerate(micro.sequences["label"][::2].tolist())
        )
    assert float(module.train().loss(micro)[0].detach()) == pytest.approx(expected, abs=1e-5)
    for override, said in (
        ("optim.balance_classes=true", "task 'setfit' learns from pairs: optim.label_smoothing"),
        ("methods.r_drop.alpha=1", "methods.r_drop does not go with task 'setfit'"),
    ):
        with pytest.raises(UserError, match=said):
            build(rows, override)


@pytest.mark.slow
def test_a_run_keeps_the_head_of_its_best_weights(small_runs: SmallRuns) -> None:
    keys = ["task.iterations=2", "data.max_train_examples=16", "data.max_overlap=1"]
    optim = {"batch_size": 4, "lr": 5e-3, "max_steps": 6}
    run = small_runs.train("setfit", *keys, "trainer.evaluate_every_steps=3", optim=optim)
    assert run.result is not None
    model = SentenceEncoder.from_pretrained(str(run.model)).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    rows = list(map(json.loads, Path(small_runs.data["sentiment"]["test"]).read_text("utf-8").splitlines()))
    right = 0
    for row in rows:
        with torch.inference_mode():
            states = model(**tokenizer(row["text"], return_tensors="pt", truncation=True, max_length=48))
        answer = int(model.sentence_head(states.last_hidden_state[0].mean(0)).argmax())
        right += model.config.id2label[answer] == row["label"]
    assert run.result["metrics"]["test"]["accuracy"] == pytest.approx(right / len(rows))
    assert main(["evaluate", str(run.path), "--split", "test"]) == 0
    for other in (
        small_runs.train("setfit", *keys, "trainer.packing=false", optim=optim),
        small_runs.train("setfit", *keys, "trainer.tokens_per_microbatch=40", optim=optim),
    ):
        assert losses(other) == pytest.approx(losses(run), rel=1e-4)
        assert other.result["metrics"]["test"]["loss"] == pytest.approx(run.result["metrics"]["test"]["loss"], rel=1e-3)
