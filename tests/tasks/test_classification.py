"""Classification of a text or a pair of texts: encoding, labels, class weights, label smoothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from research.batching.pack import pack
from research.cli import main
from research.common.errors import UserError
from research.tracking import predictions
from research.tracking.run import Run
from tests.tasks.conftest import Build


@pytest.fixture
def task() -> str:
    return "sentiment"


def encoded(module: Any, split: str = "train") -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and label of every example."""
    store = module.data.stores[split]
    rows = np.arange(len(store))
    ids, labels = store.columns["input_ids"].rows(rows), store.columns["label"].rows(rows)
    return [x.tolist() for x in ids], [x.tolist() for x in labels]


def test_texts_and_pairs_are_encoded_as_the_tokenizer_does(build: Build) -> None:
    rows = [
        {"text": "good film", "text_pair": "bad book", "label": "a"},
        {"text": "", "text_pair": "Oslo", "label": "b"},
        {"text": "Oslo", "text_pair": None, "label": "a"},
        {"text": "good " * 50, "text_pair": "bad " * 50, "label": "b"},
    ]
    module = build(rows)
    tokenizer = module.data.tokenizer
    expected = [tokenizer(r["text"], r["text_pair"], truncation=True, max_length=32)["input_ids"] for r in rows]
    ids, labels = encoded(module)
    assert ids == expected and labels == [[0], [1], [0], [1]]
    assert max(map(len, ids)) == 32
    alone = build([{"text": r["text"], "label": r["label"]} for r in rows])
    assert encoded(alone)[0][0] == tokenizer("good film")["input_ids"]


def test_a_pair_changes_the_outputs(build: Build) -> None:
    rows = [{"text": "good", "text_pair": pair, "label": label} for pair, label in (("bad", "a"), ("film", "b"))]
    module = build(rows).eval()
    with torch.no_grad():
        logits = module.outputs(pack(module.data.stores["train"], np.arange(2), module.backbone.packed))
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ([10, 9, 10], ["9", "10"]),
        ([True, False, True], ["false", "true"]),
    ],
)
def test_labels_of_any_kind_are_text(build: Build, tmp_path: Path, values: list[Any], labels: list[str]) -> None:
    module = build([{"text": f"film {i}", "label": value} for i, value in enumerate(values)])
    assert module.data.labels == labels
    assert [labels[i] for (i,) in encoded(module)[1]] == [str(v).lower() for v in values]
    assert module.backbone.model.config.id2label == dict(enumerate(labels))
    assert main(["train", str(tmp_path / "sentiment.yaml")]) == 0
    table = predictions.read(Run.read(tmp_path / "run").predictions / "validation.parquet")
    assert table.column("gold").to_pylist() == [str(v).lower() for v in values]


def test_declared_labels_keep_their_order(build: Build) -> None:
    module = build([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], "data.labels=[z, y, x]")
    assert module.data.labels == ["z", "y", "x"] and encoded(module)[1] == [[2], [1]]


def test_chinese_japanese_and_german_lose_nothing(build: Build) -> None:
    texts = ["酒店很好，下次还来", "東京タワーは高い", "Schöne Grüße aus Köln"]
    module = build([{"text": text, "label": str(i)} for i, text in enumerate(texts)], "data.max_length=64")
    ids, _ = encoded(module)
    assert len(ids[0]) == 2 + len(texts[0])  # each character is a word to this tokenizer
    assert module.data.splits["train"].rows["text"] == texts


def test_the_loss_is_the_summed_cross_entropy(build: Build) -> None:
    rows = [{"text": f"film {i}", "label": "abc"[i % 3]} for i in range(7)]
    module = build(rows, "optim.label_smoothing=0.1", "optim.class_weights={a: 3}", "model.dropout=0")
    store = module.data.stores["train"]
    micro = pack(store, np.arange(7), module.backbone.packed)
    labels = torch.tensor([label for (label,) in encoded(module)[1]])
    weight = torch.tensor([3.0, 1.0, 1.0])
    loss, logits = module.train().loss(micro)
    expected = F.cross_entropy(logits, labels, weight, reduction="sum", label_smoothing=0.1)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert store.targets.tolist() == weight[labels].tolist()  # so that the mean is the weighted mean
    loss, logits = module.eval().loss(micro)  # an evaluation's loss has neither weights nor smoothing
    expected = F.cross_entropy(logits, labels, reduction="sum")
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert module.data.stores["validation"].targets.tolist() == [1.0] * 7


def test_balanced_classes_weigh_alike(build: Build) -> None:
    rows = [{"text": f"film {i}", "label": "a" if i < 6 else "b"} for i in range(8)]
    module = build(rows, "optim.balance_classes=true")
    targets = module.data.stores["train"].targets
    assert targets[:6].sum() == pytest.approx(targets[6:].sum()) and targets.sum() == pytest.approx(8)


def test_probabilities_of_each_example(build: Build) -> None:
    rows = [{"text": f"film {i}", "label": "abc"[i % 3]} for i in range(7)]
    module = build(rows).eval()
    micro = pack(module.data.stores["validation"], np.arange(7), module.backbone.packed)
    logits = torch.tensor([[float(i == n % 3) for i in range(3)] for n in range(7)])
    table = module.data.table(module.data.splits["validation"], module.decode(micro, logits))
    assert table["prediction"] == table["gold"] == [r["label"] for r in rows]
    assert np.allclose(table["probabilities"], torch.softmax(logits, 1).tolist())


LONG = [
    {"text": " ".join([*(["good film"] * (i % 5) * 9), "Anna", "bad"][: 3 + 40 * i]), "label": "ab"[i % 2]}
    for i in range(10)
]


def test_a_text_of_several_windows_has_the_mean_of_their_logits(build: Build) -> None:
    module = build(LONG, "data.long=window", "optim.class_weights={a: 3, b: 1}").eval()
    store = module.data.stores["train"]
    micro = pack(store, np.arange(10), module.backbone.packed)
    counts = np.bincount(micro.examples)
    assert counts.tolist() == [1, 1, 2, 2, 3, 1, 1, 2, 2, 3]  # of 30 tokens each; the texts have up to 74
    assert store.targets.tolist() == [3, 1] * 5 and store.count("label", 2).tolist() == [5, 5]
    with torch.no_grad():
        windows = module.backbone.sequence_logits(micro)
        loss, logits = module.loss(micro)
    means = torch.stack([part.mean(0) for part in windows.split(counts.tolist())])
    assert torch.equal(logits, means)
    assert float(loss) == pytest.approx(float(F.cross_entropy(means, torch.tensor([0, 1] * 5), reduction="sum")))
    assert [len(p["probabilities"]) for p in module.decode(micro, logits).values()] == [2] * 10
    assert module.data.overview["train"].windowed == 6 and module.data.overview["train"].cut == 0


@pytest.mark.slow
def test_long_texts_are_reported_and_truncated_by_default(build: Build, tmp_path: Path) -> None:
    default, named = (encoded(build(LONG, *how))[0] for how in ((), ("data.long=truncate",)))
    ends = build(LONG, "data.long=head_tail", "data.max_overlap=1")
    assert named == default and max(map(len, default)) == 32
    assert ends.data.overview["train"].cut == 6 and encoded(ends)[0][4][-2] == default[0][-2]
    with pytest.raises(UserError, match=r"data\.long=middle must be one of truncate, head_tail, window"):
        build(LONG, "data.long=middle")
