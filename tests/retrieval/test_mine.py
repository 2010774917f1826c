"""Hard negatives and candidates of a run, against its vectors by `transformers` alone; then a reranker on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research.cli import main
from research.tracking.run import Run
from tests.conftest import copied, write_jsonl
from tests.retrieval.test_index import refused, trained
from tests.small_runs import SmallRuns
from tests.tasks.test_matching import embedded, rows


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_negatives_are_the_best_that_are_not_near_the_positive(
    small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(small_runs, tmp_path)
    given, corpus = rows(12, 200), [{"text": given["document"].upper()} for given in rows(3, 200)]
    source, more = write_jsonl(tmp_path / "in.jsonl", given), write_jsonl(tmp_path / "more.jsonl", corpus)
    mined = tmp_path / "mined.jsonl"
    command = ["mine", str(run.path), "--input", str(source), "--output", str(mined), "--corpus", str(more)]
    assert main([*command, "--negatives", "3", "--share", "0.97", "--skip", "1"]) == 0
    documents = list(dict.fromkeys([row["document"] for row in given] + [row["text"] for row in corpus]))
    cosines = embedded(run.model, [row["query"] for row in given]) @ embedded(run.model, documents).T
    filtered = 0
    for i, (row, found) in enumerate(zip(given, lines(mined), strict=True)):
        relevant = {other["document"].lower() for other in given if other["query"] == row["query"]}
        own = float(cosines[i, documents.index(row["document"])])
        assert found["similarity"] == pytest.approx(own, abs=1e-5) and found["document"] == row["document"]
        order = [d for d in cosines[i].argsort(descending=True).tolist() if documents[d].lower() not in relevant][1:]
        kept = [documents[d] for d in order if float(cosines[i, d]) < 0.97 * own]
        filtered += len(order) - len(kept)
        assert found["negatives"] == kept[:3]
    about = json.loads((tmp_path / "mined.provenance.json").read_text())
    assert about["filtered"] == filtered > 0 and about["settings"] == {"negatives": 3, "share": 0.97, "skip": 1}
    assert about["run"] == str(run.path) and about["input"]["path"] == str(source) and about["rows"] == 12
    reranked(small_runs, run, mined, source, tmp_path)
    for arguments, reason in (
        (["--share", "2"], "--share 2.0 must be in (0, 1]"),
        (["--negatives", "0"], "--negatives 0 must be at least 1"),
        (["--output", str(tmp_path / "x.csv")], "its suffix must be .jsonl"),
    ):
        assert reason in refused(capsys, *command, *arguments)
    write_jsonl(source, [given[0], {"query": "a"}])
    assert "in.jsonl, line 2: the query has no relevant document" in refused(capsys, *command)


def reranked(small_runs: SmallRuns, run: Run, mined: Path, source: Path, tmp_path: Path) -> None:
    """A reranker trained on the negatives is scored on the run's candidates, with those that were missed."""
    lists = tmp_path / "lists.jsonl"
    assert main(["mine", str(run.path), "--input", str(source), "--output", str(lists), "--lists", "3"]) == 0
    candidates = lines(lists)
    assert len(candidates) == 11 and all(len(row["documents"]) == 3 for row in candidates)  # two rows share a query
    missed = sum(row["missed"] for row in candidates)
    assert missed == 12 - sum(sum(row["relevant"]) for row in candidates) > 0
    data = {"train": str(mined), "validation": str(lists), "test": copied(lists, "test"), "max_length": 32}
    chained = small_runs.train("rerank", data=data)
    scores = chained.result["metrics"]["test"]
    at_best = sum(sum(row["relevant"]) / (sum(row["relevant"]) + row["missed"]) for row in candidates) / 11
    assert scores["recall_10"] == pytest.approx(at_best) and scores["mrr"] <= scores["recall_10"] + 1e-9
