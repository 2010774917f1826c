"""Index and search of a corpus: equal to the run's own predictions, of its model alone, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import research
from research.cli import main
from research.common.errors import UserError
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.small_runs import SmallRuns
from tests.tasks.test_matching import rows

KEYS = ("task.dimensions=[8]", "task.query_prefix=ask ", "task.document_prefix=say ", "task.learn_temperature=true")


def trained(small_runs: SmallRuns, tmp_path: Path, *overrides: str) -> Run:
    parts = {"train": rows(16), "validation": rows(12, 100), "test": rows(12, 200)}
    files = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", part)) for name, part in parts.items()}
    optim = {"batch_size": 8, "lr": 5e-4, "max_steps": 6}
    return small_runs.train("matching", *overrides, data={**files, "max_length": 16}, optim=optim)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


@pytest.mark.slow
def test_search_finds_what_the_predictions_say(
    small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = trained(small_runs, tmp_path, *KEYS), trained(small_runs, tmp_path)
    assert run.result["temperature"] != pytest.approx(0.05, rel=1e-3) and "temperature" not in other.result
    distinct = [0, *range(2, 12)]  # row 1 repeats the document of row 0
    corpus = [{"id": f"test-{i}", "document": rows(12, 200)[i]["document"], "page": i} for i in distinct]
    source, folder = str(write_jsonl(tmp_path / "corpus.jsonl", corpus)), tmp_path / "index"
    assert main(["index", str(run.path), "--input", source, "--output", str(folder)]) == 0
    queries = str(write_jsonl(tmp_path / "queries.jsonl", [{"query": row["query"]} for row in rows(12, 200)]))
    capsys.readouterr()
    assert main(["search", str(run.path), "--index", str(folder), "--input", queries]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    table = pq.read_table(run.predictions / "test.parquet").to_pylist()
    assert [[hit["id"] for hit in row["results"]] for row in found] == [row["prediction"] for row in table]
    own = {row["id"]: row["document"] for row in corpus}
    for row, expected in zip(found, table, strict=True):
        scores = {hit["id"]: hit["score"] for hit in row["results"]}
        name = "test-0" if expected["id"] == "test-1" else expected["id"]
        assert name not in scores or scores[name] == pytest.approx(expected["similarity"], abs=1e-5)
        assert all(hit["document"] == own[hit["id"]] and f"test-{hit['page']}" == hit["id"] for hit in row["results"])
    assert main(["search", str(run.path), "what is good", "--index", str(folder), "--top", "2"]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 2
    of_first_numbers(run, source, queries, tmp_path, capsys)
    approximate(run, source, tmp_path)
    refusals(run, other, folder, tmp_path, capsys)


def of_first_numbers(run: Run, source: str, queries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A smaller index gives the ranks that the run was scored by."""
    folder = tmp_path / "small"
    assert main(["index", str(run.path), "--input", source, "--output", str(folder), "--size", "8"]) == 0
    assert np.load(folder / "vectors.npy").shape == (11, 8)
    capsys.readouterr()
    assert main(["search", str(run.path), "--index", str(folder), "--input", queries, "--top", "11"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for row, expected in zip(found, pq.read_table(run.predictions / "test.parquet").to_pylist(), strict=True):
        order = [hit["id"] for hit in row["results"]]
        assert sorted(order.index(each) + 1 for each in expected["gold"]) == expected["ranks_8"]
    said = refused(capsys, "index", str(run.path), "--input", source, "--output", str(folder), "--size", "9")
    assert "--size 9:" in said and "was trained for 8 or all 32 numbers of a vector (task.dimensions)" in said


def approximate(run: Run, source: str, tmp_path: Path) -> None:
    """The graph finds the same among so few documents, and Python gives what the command gives."""
    pytest.importorskip("faiss")
    finished = research.load(run.path)
    finished.index(source, tmp_path / "graph", kind="hnsw")
    finished.index(["a good film", "the river Oslo"], tmp_path / "texts")
    assert finished.search(tmp_path / "texts", ["what"], 1)[0][0]["document"] in ("a good film", "the river Oslo")
    finished.index(source, tmp_path / "exact")
    asked = [row["query"] for row in rows(12, 200)]
    exact, graph = (finished.search(tmp_path / kind, asked, 3) for kind in ("exact", "graph"))
    assert [[hit["id"] for hit in row] for row in exact] == [[hit["id"] for hit in row] for row in graph]
    flat = [[[hit["score"] for hit in row] for row in rows] for rows in (exact, graph)]
    np.testing.assert_allclose(flat[0], flat[1], atol=1e-5)


def refusals(run: Run, other: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command: Any = ("search", str(run.path), "--index", str(folder))
    said = refused(capsys, "search", str(other.path), "good", "--index", str(folder))
    assert f"index {folder} is of another model (that of {run.path})" in said and "research index" in said
    assert "give queries on the command line, or a file" in refused(capsys, *command)
    assert "a query is empty" in refused(capsys, *command, " ")
    assert "--top 0 must be at least 1" in refused(capsys, *command, "good", "--top", "0")
    assert "is no index" in refused(capsys, "search", str(run.path), "good", "--index", str(tmp_path))
    index = ("index", str(run.path), "--output", str(tmp_path / "new"), "--input")
    empty = str(write_jsonl(tmp_path / "empty.jsonl", [{"text": "a"}, {"text": " "}]))
    assert f"{empty}, line 2: the document is empty" in refused(capsys, *index, empty)
    lacking = str(write_jsonl(tmp_path / "lacking.jsonl", [{"body": "a"}]))
    assert "no column 'text'" in refused(capsys, *index, lacking) and not (tmp_path / "new").exists()
    said = refused(capsys, "index", str(run.path), "--input", empty, "--output", str(run.path))
    assert "holds something that is no index" in said and run.model.is_dir()
    (folder / "vectors.npy").write_bytes((folder / "vectors.npy").read_bytes()[:-8])
    assert f"The index {folder} is damaged" in refused(capsys, *command, "good")


CONFIG = "task: sentiment\nmodel: {name: m}\ndata: {train: train.jsonl}\n"


def made_by_hand(folder: Path, config: str, task: str) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(config)
    (folder / "result.json").write_text(json.dumps({"task": task, "metrics": {}, "learned": {}, "files": {}}))
    return folder


def test_a_task_without_vectors_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_by_hand(tmp_path / "run", CONFIG, "classification")
    index = ("index", str(run), "--output", str(tmp_path / "index"), "--input")
    corpus = str(write_jsonl(tmp_path / "corpus.jsonl", [{"text": "a"}]))
    assert "is of task 'classification', which makes no vectors" in refused(capsys, *index, corpus)
    assert "none.jsonl: no such file" in refused(capsys, *index, str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="kind 'flat' must be one of exact, hnsw"):
        research.load(run).index(corpus, tmp_path / "index", kind="flat")


def test_code_that_a_result_names_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil, ran = tmp_path / "evil.py", tmp_path / "ran"
    evil.write_text(f"open({str(ran)!r}, 'w')\nclass Data: ...\nclass Module: ...\n")
    run = made_by_hand(tmp_path / "run", CONFIG, str(evil))
    corpus = str(write_jsonl(tmp_path / "corpus.jsonl", [{"query": "a", "document": "b"}]))
    for command in ("index", "mine"):
        said = refused(capsys, command, str(run), "--input", corpus, "--output", str(tmp_path / "out.jsonl"))
        assert "makes no vectors" in said and not ran.exists()
