"""Queries and documents: the loss over the whole step, ranks over all documents, and the same on every layout."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer

from research.cli import main
from tests.conftest import write_jsonl
from tests.small_runs import SmallRuns, losses

WORDS = ["good", "bad", "film", "Anna", "Oslo", "river", "what", "is"]


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows 0 and 1 share their document, rows 2 and 3 their query."""
    found = []
    for i in range(first, first + count):
        query, document = i + (i == first + 3) * -1, i - (i == first + 1)
        text = f"{WORDS[document % 8]} {WORDS[document // 8 % 8]} {document}"
        found.append({"query": f"what is {WORDS[query % 8]} {query}", "document": text})
    return found


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    parts = {"train": rows(16), "validation": rows(12, 100), "test": rows(12, 200)}
    files = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", part)) for name, part in parts.items()}
    return {**files, "max_length": 16}


def embedded(folder: Path, texts: list[str], pooling: str = "mean") -> torch.Tensor:
    """Pooled vectors of length 1 by `transformers` alone."""
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    if pooling == "first":
        return F.normalize(hidden[:, 0], dim=1)
    mask = tokens["attention_mask"][..., None]
    return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def expected_loss(
    folder: Path, negatives: list[list[str]], pooling: str, symmetric: bool, size: int = 32, temperature: float = 0.1
) -> float:
    """Of the 16 training rows in one step, written out; of the first `size` numbers of each vector."""
    train = rows(16)
    documents = [row["document"] for row in train] + [text for more in negatives for text in more]
    sides = ([row["query"] for row in train], documents)
    query, document = (F.normalize(embedded(folder, side, pooling)[:, :size], dim=1) for side in sides)
    scores = query @ document.T / temperature
    for a, b in ((0, 1), (1, 0), (2, 3), (3, 2)):  # the same document, the same query
        scores[a, b] = -torch.inf
    target = torch.arange(16)
    if not symmetric:
        return float(F.cross_entropy(scores, target))
    back = F.cross_entropy(scores[:, :16].T, target)
    return float((F.cross_entropy(scores, target) + back) / 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("with_negatives", "pooling", "symmetric"), [(False, "mean", True), (True, "mean", True), (True, "first", False)]
)
def test_loss_is_over_the_whole_step(
    with_negatives: bool, pooling: str, symmetric: bool, small_runs: SmallRuns, data: dict[str, Any], tmp_path: Path
) -> None:
    negatives = [[f"bad river {i}"] * (i % 3 == 0) for i in range(16)]
    if with_negatives:
        train = [{**row, "negatives": more} for row, more in zip(rows(16), negatives, strict=True)]
        write_jsonl(Path(data["train"]), train)
    sections = {"data": data, "optim": {"batch_size": 16, "lr": 1e-9, "max_steps": 1}}
    keys = ("task.temperature=0.1", f"task.pooling={pooling}", f"task.symmetric={symmetric}")
    run = small_runs.train("matching", *keys, "trainer.tokens_per_microbatch=60", **sections)
    expected = expected_loss(run.model, negatives if with_negatives else [], pooling, symmetric)
    assert losses(run)[0] == pytest.approx(expected, abs=2e-5)


@pytest.mark.slow
def test_parts_of_vectors_and_the_learned_temperature(small_runs: SmallRuns, data: dict[str, Any]) -> None:
    """The loss is the mean over the sizes; AdamW's first step moves the temperature's logarithm by 100 times the
    rate, against the slope of the loss."""
    sections = {"data": data, "optim": {"batch_size": 16, "lr": 1e-6, "max_steps": 1, "warmup_ratio": 0.0}}
    keys = ("task.temperature=0.1", "task.dimensions=[8, 16]", "task.learn_temperature=true")
    run = small_runs.train("matching", *keys, **sections)

    def expected(temperature: float) -> float:
        of_sizes = [expected_loss(run.model, [], "mean", True, size, temperature) for size in (8, 16, 32)]
        return sum(of_sizes) / 3

    assert losses(run)[0] == pytest.approx(expected(0.1), abs=2e-4)
    slope = expected(0.11) - expected(0.09)
    assert run.result is not None and abs(slope) > 1e-3
    moved = math.log(run.result["temperature"] / 0.1)
    assert moved == pytest.approx(-math.copysign(1e-4, slope), rel=0.02)


@pytest.mark.slow
def test_every_layout_gives_the_same_and_ranks_are_right(small_runs: SmallRuns, data: dict[str, Any]) -> None:
    sections: dict[str, Any] = {"data": data, "optim": {"batch_size": 8, "lr": 5e-3, "max_steps": 6}}
    task = ("matching", "task.dimensions=[8]", "task.learn_temperature=true")
    run = small_runs.train(*task, **sections)
    for other in (
        small_runs.train_ranks(task[0], 2, *task[1:], **sections),
        small_runs.train(*task, "trainer.packing=false", **sections),
        small_runs.train(*task, "trainer.tokens_per_microbatch=40", **sections),
    ):
        assert losses(other) == pytest.approx(losses(run), abs=5e-5)
        assert run.result is not None and other.result is not None
        assert other.result["temperature"] == pytest.approx(run.result["temperature"], abs=1e-4) != 0.05
        assert other.result["metrics"]["test"]["mrr"] == pytest.approx(run.result["metrics"]["test"]["mrr"], abs=1e-6)
    assert losses(run)[-1] < losses(run)[0]
    table = pq.read_table(run.predictions / "test.parquet").to_pylist()
    test = rows(12, 200)
    distinct = [0, *range(2, 12)]  # row 1 repeats the document of row 0
    queries = embedded(run.model, [row["query"] for row in test])
    documents = embedded(run.model, [test[i]["document"] for i in distinct])
    for i, row in enumerate(table):
        order = (queries[i] @ documents.T).argsort(descending=True).tolist()
        assert row["prediction"] == [f"test-{distinct[d]}" for d in order[:10]]
        gold = {0: ["test-0"], 1: ["test-0"], 2: ["test-2", "test-3"], 3: ["test-2", "test-3"]}.get(i, [f"test-{i}"])
        assert row["gold"] == gold and row["repeats"] == (2 if i in (2, 3) else 1)
        assert row["ranks"] == sorted(order.index(distinct.index(int(g[5:]))) + 1 for g in gold)
        shorter = F.normalize(documents[:, :8], dim=1) @ F.normalize(queries[i, :8], dim=0)
        order = shorter.argsort(descending=True).tolist()
        assert row["ranks_8"] == sorted(order.index(distinct.index(int(g[5:]))) + 1 for g in gold)
    first = [1 / row["ranks_8"][0] / row["repeats"] for row in table]
    assert run.result["metrics"]["test"]["mrr_of_8"] == pytest.approx(sum(first) / 11)  # rows 2 and 3 are one query


def test_an_adapter_that_trains_nothing_that_is_read_is_refused(
    small_runs: SmallRuns, data: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The vectors are means over tokens; the head adapter trains the pooler alone."""
    arguments, _ = small_runs.arguments("matching", ["adapter=head"], {"data": data, "optim": {"max_steps": 1}})
    assert main(arguments) == 2
    assert "adapter=head trains no weight that the loss of task 'matching' depends on" in capsys.readouterr().err


@pytest.mark.slow
def test_bad_input(tmp_path: Path, tiny_model: Path, data: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    experiment = tmp_path / "e.yaml"
    experiment.write_text(json.dumps({"task": "matching", "model": {"name": str(tiny_model)}, "data": data}))
    for override, reason in (
        ("task.dimensions=[1000]", "the vectors of the model have"),
        ("optim.label_smoothing=0.1", "has no classes for optim.label_smoothing"),
        ("task.temperature=0", "task.temperature"),
    ):
        assert main(["show", str(experiment), override]) == 2
        assert reason in capsys.readouterr().err
    for row, reason in (
        ({"query": "a", "document": " "}, "line 2: the query has no relevant document"),
        ({"query": "a", "document": None}, "line 2: the query has no relevant document"),
        ({"query": " ", "document": "a"}, "line 2: the query is empty"),
    ):
        write_jsonl(Path(data["train"]), [rows(1)[0], row])
        assert main(["show", str(experiment)]) == 2
        assert reason in capsys.readouterr().err
