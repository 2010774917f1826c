"""ACC, BWT, FWT and forgetting by hand, and what a sequence file may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.common.errors import UserError
from research.continual.learn import Learned
from research.continual.matrix import figures_of
from research.continual.report import with_interval, write_report
from research.continual.sequence import cell_content, read_sequence


def test_figures_of_a_matrix_by_hand() -> None:
    R = np.array([[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.7, 0.5, 0.6]])
    found = figures_of(R, np.array([0.5, 0.1, 0.2]))
    assert found["ACC"] == pytest.approx((0.7 + 0.5 + 0.6) / 3)
    assert found["BWT"] == pytest.approx(((0.7 - 0.9) + (0.5 - 0.8)) / 2)
    assert found["FWT"] == pytest.approx(((0.2 - 0.1) + (0.3 - 0.2)) / 2)
    assert found["forgetting"] == pytest.approx(((0.9 - 0.7) + (0.8 - 0.5)) / 2)


def test_interval_is_students() -> None:
    """Of 0.80, 0.82, 0.84: 2 points are the deviation, t(0.975, 2) is 4.3027."""
    assert with_interval(np.array([0.80, 0.82, 0.84])) == "82.0 (77.0 to 87.0)" and with_interval(np.ones(1)) == "100.0"


@pytest.mark.slow
def test_the_report_says_what_it_shows(tmp_path: Path) -> None:
    R, b = np.array([[0.9, 0.2], [0.6, 0.8]]), np.array([0.5, 0.1])
    orders = (("a", "b"), ("b", "a"))
    naive = [Learned("naive", order, seed, R + 0.02 * seed, b, ()) for order in orders for seed in (0, 1)]
    together = [Learned("joint", orders[0], seed, np.repeat(R[1:], 2, axis=0), b, ()) for seed in (0, 1)]
    table = write_report([*naive, *together], tmp_path)
    assert "| naive | 4 | 71.0 (69.2 to 72.8) | -30.0 (-30.0 to -30.0) |" in table
    assert "| joint | 2 | 70.0 (70.0 to 70.0) | – | – | – |" in table
    page = (tmp_path / "continual.md").read_text()
    assert "](continual.png)" in page and (tmp_path / "continual.png").is_file()
    assert "| mean of 2 seeds | b | a |\n|---|---|---|\n| untrained | 50.0 | 10.0 |\n| after b | 91.0 | 21.0 |" in page
    assert page.count("| together | 60.0 | 80.0 |") == 1


def sequence(folder: Path, **content: Any) -> Path:
    for name in "abc":
        experiment = {"task": "sentiment", "model": {"name": "m"}, "data": {"train": f"{name}.jsonl"}}
        (folder / f"{name}.yaml").write_text(json.dumps(experiment))
    path = folder / "s.yaml"
    path.write_text(json.dumps({"tasks": ["a.yaml", "b.yaml", "c.yaml"], **content}))
    return path


def test_cells_say_what_each_strategy_does(tmp_path: Path) -> None:
    given: list[Any] = ["naive", {"replay": {"per_class": 5}}, {"ewc": {"strength": 10}}, "online_ewc", "joint", "lwf"]
    read = read_sequence(sequence(tmp_path, strategies=given, orders=2, seeds=[1]))
    assert len(read.orders) == 2 and read.orders[0] == ("a", "b", "c") and read.mains["a"] == "accuracy"
    assert [each.label for each in read.strategies[:3]] == ["naive", "replay, per class 5", "ewc, strength 10"]
    before = [Path("/0"), Path("/1")]
    cells = [cell_content(read, each, read.orders[0], 2, before) for each in read.strategies]
    assert [each["task"]["train"] for each in cells] == [["c"]] * 4 + [["a", "b", "c"], ["c"]]
    assert cells[0]["trainer"]["monitor"] == "c.accuracy" and cells[0]["model"]["name"] == "/1"
    assert cells[1]["task"]["memory"] == {"a": 5, "b": 5}
    assert cells[2]["methods"]["ewc"] == {"strength": 10, "runs": ["/0", "/1"]}
    assert cells[3]["methods"]["ewc"] == {"strength": 1000.0, "runs": ["/1"]}
    assert "model" not in cells[4] and cells[4]["trainer"]["monitor"] == "mean"
    assert cells[5]["task"]["temperature"] == 2.0


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"tasks": ["a.yaml"]}, "tasks must be a list of two experiments or more"),
        ({"strategies": ["packnet"]}, "strategy 'packnet' must be one of naive, joint"),
        ({"strategies": [{"ewc": {"k": 1}}]}, "strategy 'ewc' has no key 'k'; its keys are strength"),
        ({"orders": [["a", "b"]]}, "must name each of a, b, c once"),
        ({"orders": 7}, "7 are more than 3 tasks have"),
        ({"seed": 1}, "unknown key 'seed'; the keys are tasks"),
        ({"seeds": 3}, "seeds must be a list of integers"),
    ],
)
def test_a_mistake_in_a_sequence_is_one_line(content: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_sequence(sequence(tmp_path, **content))
