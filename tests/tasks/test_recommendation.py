"""Next items: the full ranking by `transformers` alone, cold items, popularity, any layout, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from research.cli import main
from research.metrics.recommendation import Metric
from tests.conftest import write_jsonl
from tests.small_runs import SmallRuns, losses
from tests.tasks.test_matching import embedded

WORDS = ["good", "bad", "film", "Anna", "Oslo", "river", "city", "book"]


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    items = [f"{word} {i}" for i, word in enumerate(WORDS)]
    return [
        {"history": [items[(i + k) % 8] for k in range(1 + i % 3)], "item": items[(i * 3 + 4) % 8]}
        for i in range(first, first + count)
    ]


@pytest.mark.slow
@pytest.mark.process
def test_the_whole_catalogue_is_ranked_on_any_layout(small_runs: SmallRuns, tmp_path: Path) -> None:
    more = write_jsonl(tmp_path / "items.jsonl", [{"item": "nobody had it"}])
    test = [*rows(5, 20), {"history": ["good 0", "who"], "item": "a new one"}]
    parts = {"train": rows(16), "validation": rows(5, 16), "test": test}
    files = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", part)) for name, part in parts.items()}
    data = {**files, "max_length": 24, "max_overlap": 1.0}
    keys = (f"task.items={more}", "task.last=2")
    run = small_runs.train("recommendation", *keys, data=data)
    for other in (
        small_runs.train_ranks("recommendation", 2, *keys, data=data),
        small_runs.train("recommendation", *keys, "trainer.tokens_per_microbatch=60", data=data),
        small_runs.train("recommendation", *keys, "trainer.packing=false", data=data),
    ):
        assert losses(other) == pytest.approx(losses(run), abs=5e-5)
    catalogue = sorted({*(f"{w} {i}" for i, w in enumerate(WORDS)), "who", "a new one", "nobody had it"})
    assert run.result["learned"]["catalogue"] == catalogue
    counts = [sum([row["item"], *row["history"]].count(item) for row in rows(16)) for item in catalogue]
    vectors = embedded(run.model, catalogue)
    table = pq.read_table(run.predictions / "test.parquet")
    for row, found in zip(test, table.to_pylist(), strict=True):
        scores = vectors @ embedded(run.model, ["; ".join(row["history"][::-1][:2])])[0]
        left = [i for i, item in enumerate(catalogue) if item not in row["history"] or item == row["item"]]
        order = sorted(left, key=lambda i: -float(scores[i]))
        assert found["prediction"] == [catalogue[i] for i in order if catalogue[i] not in row["history"]][:10]
        own = catalogue.index(row["item"])
        assert found["rank"] == 1 + order.index(own) and found["cold"] == (counts[own] == 0)
        by_count = sorted(left, key=lambda i: -counts[i])
        assert found["popularity_rank"] == 1 + by_count.index(own)
    metric = Metric({})
    slices = {value: table.filter(pa.array(mask)) for by, value, mask in metric.own_cuts(table)
              if by == "item in training"}  # fmt: skip
    ranks = table["rank"].to_pylist()
    places = {"known": ranks[:5], "cold": ranks[5:]}  # the last item does not occur in training
    assert {value: len(part) for value, part in slices.items()} == {"known": 5, "cold": 1}
    for value, part in slices.items():
        for k in (1, 5, 10):
            assert metric.score(part)[f"hit_{k}"] == sum(rank <= k for rank in places[value]) / len(places[value])
    sizes = {part.value: (part.size, part.score(part.values.sum(axis=1))[0]) for part in metric.parts([table])
             if part.by == "item in training"}  # fmt: skip
    gains = {value: [1 / math.log2(1 + r) if r <= 10 else 0.0 for r in several] for value, several in places.items()}
    assert sizes == {value: (len(x), pytest.approx(sum(x) / len(x), abs=1e-12)) for value, x in gains.items()}
    hit = sum(rank <= 5 for rank in table["popularity_rank"].to_pylist()) / len(test)
    assert metric.baselines(table)["popularity"]["hit_5"] == hit
    assert run.result["metrics"]["test"]["mrr"] == pytest.approx(
        float(torch.tensor([1 / rank for rank in table["rank"].to_pylist()]).mean()), abs=1e-6
    )


def test_bad_rows_are_refused(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = tmp_path / "e.yaml"
    file = tmp_path / "rows.jsonl"
    experiment.write_text(f"task: recommendation\nmodel: {{name: {tiny_model}}}\ndata: {{train: {file}}}\n")
    for row, reason in (
        ({"history": [], "item": "a"}, "line 2: the history is empty"),
        ({"history": ["a", " "], "item": "a"}, "line 2: the history is empty, or an item in it is"),
        ({"history": ["a"], "item": ""}, "line 2: the item is empty"),
    ):
        write_jsonl(file, [rows(1)[0], row])
        assert main(["show", str(experiment)]) == 2
        assert reason in capsys.readouterr().err
