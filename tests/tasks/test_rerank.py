"""Reranking: the loss by `transformers` alone, three forms of rows, any layout, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pytrec_eval import RelevanceEvaluator

from research.batching.plan import Layout
from research.cli import main
from tests.conftest import copied, write_jsonl
from tests.small_runs import SmallRuns, assert_same_up_to_rounding
from tests.tasks.conftest import Build

WORDS = ["good", "bad", "film", "Anna", "Oslo"]


@pytest.fixture
def task() -> str:
    return "rerank"


def lists(count: int = 13) -> list[dict[str, Any]]:
    """Two to four documents a query, of which the first one or two that hold its word are relevant."""
    found = []
    for i in range(count):
        documents = [f"{WORDS[(i + k) % 5]} river {i}" for k in range(2 + i % 3)]
        relevant = [int(k == i % 2 or (i % 3 == 2 and k == 3)) for k in range(len(documents))]
        found.append({"query": f"what is {WORDS[i % 5]}", "documents": documents, "relevant": relevant, "id": f"q{i}"})
    return found


def test_loss_is_the_cross_entropy_over_the_candidates(build: Build) -> None:
    module = build(lists(), "trainer.packing=false").eval()
    model, tokenizer = module.backbone.model, module.data.tokenizer
    expected = []
    with torch.no_grad():
        for row in lists():
            pairs = [tokenizer(row["query"], text, return_tensors="pt") for text in row["documents"]]
            scores = torch.cat([model(**pair).logits[:, 0] for pair in pairs])
            relevant = torch.tensor(row["relevant"], dtype=torch.float)
            expected.append(float(-(torch.log_softmax(scores, 0) * relevant).sum() / relevant.sum()))
        module.data.layout = lambda: Layout(0, 1, 200, packed=False)
        losses = [float(module.loss(micro)[0]) for micro in module.data.evaluation_batches("validation")]
    assert len(losses) > 1 and sum(losses) == pytest.approx(sum(expected), rel=1e-5)


def test_pairs_and_negatives_are_lists(build: Build) -> None:
    pairs = [{"query": q, "document": f"{q} {k}", "label": int(k == 1)} for k in range(3) for q in ("what", "who")]
    split = build(pairs).data.splits["train"]
    assert split.rows["query"][:] == ["what", "who"] and split.rows["relevant"][:] == [[0, 1, 0]] * 2
    assert split.rows["documents"][1] == ["who 0", "who 1", "who 2"]
    rows = [{"query": "what", "document": "a", "negatives": ["b", "c"]}, {"query": "who", "document": "d"}]
    split = build(rows).data.splits["train"]
    assert split.rows["documents"][:] == [["a", "b", "c"], ["d"]] and split.rows["relevant"][:] == [[1, 0, 0], [1]]


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            [{"query": "a", "documents": ["b"], "relevant": [0]}],
            "line 1: the query has no relevant document among its 1",
        ),
        ([{"query": "a", "document": "b", "label": 0}], "line 1: the query has no relevant document among its 1"),
        ([{"query": "a", "document": "b", "label": "yes"}], "line 1: the label 'yes' of a pair must be 0 or 1"),
        ([{"query": "a", "documents": ["b", "c"], "relevant": [1]}], "'relevant' must be a 0 or 1 for each"),
        ([{"query": "a", "documents": ["b", " "], "relevant": [1, 0]}], "line 1: a document is empty"),
        ([{"query": " ", "documents": ["b"], "relevant": [1]}], "line 1: the query is empty"),
        ([{"query": "a", "text": "b"}], "rows of task rerank need a query and 'documents'"),
    ],
)
def test_bad_rows_are_refused(
    rows: list[dict[str, Any]], reason: str, build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(lists(2))
    bad = write_jsonl(tmp_path / "bad.jsonl", rows)
    assert main(["show", str(tmp_path / "rerank.yaml"), f"data.train={bad}"]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.process
def test_any_layout_gives_the_same_and_scores_are_official(small_runs: SmallRuns, tmp_path: Path) -> None:
    data = str(write_jsonl(tmp_path / "rows.jsonl", lists()))
    sections = {"data": {"train": data, "validation": copied(data), "test": copied(data, "test"), "max_length": 32}}
    run = small_runs.train("rerank", **sections)
    for other in (
        small_runs.train("rerank", "trainer.tokens_per_microbatch=40", **sections),
        small_runs.train("rerank", "trainer.packing=false", **sections),
        small_runs.train_ranks("rerank", 2, **sections),
    ):
        assert_same_up_to_rounding(other, run)
    table = pq.read_table(run.predictions / "test.parquet").to_pylist()
    relevant = {row["id"]: {str(i): 1 for i in row["gold"]} for row in table}
    found = {row["id"]: {str(i): score for i, score in enumerate(row["scores"])} for row in table}
    official = RelevanceEvaluator(relevant, {"recip_rank", "ndcg_cut_10", "map"}).evaluate(found)
    scores = run.result["metrics"]["test"]
    for name, theirs in (("mrr", "recip_rank"), ("ndcg_10", "ndcg_cut_10"), ("map", "map")):
        assert scores[name] == pytest.approx(np.mean([row[theirs] for row in official.values()]), abs=1e-9)
    assert json.loads((run.path / "result.json").read_text())["metric"]["signature"].endswith("candidates ranked")
