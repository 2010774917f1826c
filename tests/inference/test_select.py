"""What to label next: strategies on numbers by hand, and a pool that must not overlap the test data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from research.cli import main
from research.inference.acquisition import badge, chosen, coreset
from tests.conftest import write_jsonl
from tests.small_runs import SmallRuns

RNG = np.random.default_rng(0)
P = np.array([[0.9, 0.1, 0.0], [0.4, 0.3, 0.3], [0.5, 0.49, 0.01], [0.98, 0.01, 0.01]])


def test_strategies_by_hand() -> None:
    assert chosen("entropy", 2, RNG, P).tolist() == [1, 2]
    assert chosen("margin", 2, RNG, P).tolist() == [2, 1]
    assert sorted(chosen("random", 4, RNG, P).tolist()) == [0, 1, 2, 3]
    line = np.array([[0.0], [1.0], [5.0], [9.0]])
    assert coreset(line, np.array([[0.0]]), 2).tolist() == [3, 2]  # 9 from 0; then 5, which is 4 from 9
    rng = np.random.default_rng(0)
    p, vectors = rng.dirichlet([1, 1, 1], 30), rng.normal(size=(30, 4))
    picked = badge(p, vectors, 10, np.random.default_rng(1))
    gradients = ((p - np.eye(3)[p.argmax(1)])[:, :, None] * vectors[:, None]).reshape(30, -1)
    assert picked[0] == (gradients**2).sum(1).argmax() and len(set(picked.tolist())) == 10
    assert len(set(badge(np.full((5, 2), 0.5), np.ones((5, 3)), 4, rng).tolist())) == 4  # all alike


@pytest.mark.slow
def test_a_pool(small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_runs.train("sentiment")
    pool = [{"text": f"city {i} good" if i % 2 else f"river {i}", "note": i} for i in range(20)]
    file, output = write_jsonl(tmp_path / "pool.jsonl", pool), tmp_path / "next.jsonl"
    for strategy in ("entropy", "margin", "badge", "coreset", "random"):
        arguments = ["select", str(run.path), "--input", str(file), "--budget", "5", "--strategy", strategy]
        assert main([*arguments, "--output", str(output)]) == 0
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert len({row["text"] for row in rows}) == 5 and all(pool[row["note"]]["text"] == row["text"] for row in rows)
    test = [json.loads(line) for line in Path(small_runs.data["sentiment"]["test"]).read_text().splitlines()]
    write_jsonl(file, [*pool, {"text": test[3]["text"].upper(), "note": 0}])
    capsys.readouterr()
    assert main([*arguments, "--output", str(output)]) == 2
    assert "1 texts of" in (said := capsys.readouterr().err) and "line 21: what is scored on must not be" in said
    assert main([*arguments[:4], "--budget", "99", "--output", str(output)]) == 2


@pytest.mark.slow
def test_a_task_without_one_class_for_each_text_is_refused(
    small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": f"river {i}", "label": ["a", "b"][: i % 3]} for i in range(12)]
    data = {"train": str(write_jsonl(tmp_path / "train.jsonl", rows))}
    run = small_runs.train("multi_label", "optim.max_steps=1", data=data)
    pool = write_jsonl(tmp_path / "pool.jsonl", [{"text": "a new city"}])
    arguments = ["select", str(run.path), "--input", str(pool), "--budget", "1", "--strategy", "entropy"]
    assert main([*arguments, "--output", str(tmp_path / "next.jsonl")]) == 2
    assert "task 'multi_label' gives no probabilities of one class for each text" in capsys.readouterr().err
    assert not (tmp_path / "next.jsonl").exists()
