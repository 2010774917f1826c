"""Retrieval scores are those of trec_eval."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval

from research.metrics.retrieval import CUTS, Metric, scores_of_ranks

OURS = {
    "recip_rank": "mrr", "map": "map", **{f"ndcg_cut_{k}": f"ndcg_{k}" for k in CUTS},
    **{f"recall_{k}": f"recall_{k}" for k in CUTS},
}  # fmt: skip
MEASURES = {"recip_rank", "ndcg_cut.1,5,10", "map", "recall.1,5,10"}


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_trec_eval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevant, runs, ranks = {}, {}, []
    for query in map(str, range(20)):
        scores = rng.permutation(40).astype(float)
        wanted = rng.choice(40, size=rng.integers(1, 15), replace=False)
        relevant[query] = {str(d): 1 for d in wanted}
        runs[query] = {str(d): score for d, score in enumerate(scores)}
        ranks.append(sorted((40 - scores[wanted]).astype(int).tolist()))
    official = pytrec_eval.RelevanceEvaluator(relevant, MEASURES).evaluate(runs)
    metric = Metric({})
    golds = [["a"]] * 20
    found = metric.score(metric.table(golds, golds, ranks=ranks, repeats=[1] * 20))
    for theirs, ours in OURS.items():
        assert found[ours] == pytest.approx(np.mean([each[theirs] for each in official.values()]), abs=1e-12)


def test_a_repeated_query_counts_once() -> None:
    metric = Metric({})
    golds = [["a"]] * 3
    found = metric.score(metric.table(golds, golds, ranks=[[1], [4], [4]], repeats=[1, 2, 2]))
    assert found["mrr"] == pytest.approx((1 + 1 / 4) / 2)
    assert scores_of_ranks([2, 11]) == {
        "mrr": 0.5, "ndcg_1": 0.0, "ndcg_5": pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3))),
        "ndcg_10": pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3))), "recall_1": 0.0,
        "recall_5": 0.5, "recall_10": 0.5, "map": pytest.approx((1 / 2 + 2 / 11) / 2),
    }  # fmt: skip


def test_documents_are_shown_by_their_texts() -> None:
    """Of matching by the rows that they belong to, of rerank by their places in the list."""
    metric, ids = Metric({}), {"ranks": [[1], [2]], "repeats": [1, 1], "query": ["p", "q"]}
    table = metric.table([["0", "1"], ["0", "1"]], [["0"], ["1"]], document=["one", "two"], **ids)
    assert metric.shown(table) == (["one", "two"], ["one", "one"]) and metric.text(table) == ["p", "q"]
    documents = [["x", "y"], ["v", "w"]]
    table = metric.table([[0, 1], [1, 0]], [[0, 1], []], documents=documents, **ids)
    assert metric.shown(table) == (["x | y", "(none)"], ["x", "w"])
