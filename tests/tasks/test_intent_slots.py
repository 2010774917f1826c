"""Intent and slots: folders as published, both heads of the loss, and scores against seqeval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from seqeval.metrics import f1_score

from research.batching.plan import Layout
from research.cli import main
from research.common.errors import UserError
from research.data.slot_files import read_slots
from research.metrics.intent_slots import Metric
from tests.small_runs import SmallRuns, losses
from tests.tasks.conftest import Build

TAGS = ["O", "B-CITY", "I-CITY", "B-DAY"]
CITIES, DAYS = ["Oslo", "Acme city", "river"], ["when", "where"]


def rows(count: int) -> list[dict[str, Any]]:
    """`to Oslo when`: travel; `what in Oslo`: ask."""
    found = []
    for i in range(count):
        city = CITIES[i % 3].split()
        tags = ["B-CITY", "I-CITY"][: len(city)]
        travel = ["to", *city, DAYS[i % 2]], ["O", *tags, "B-DAY"], "travel"
        tokens, tags, label = travel if i % 4 < 2 else (["what", "in", *city], ["O", "O", *tags], "ask")
        found.append({"tokens": tokens, "tags": tags, "label": label})
    return found


def write_folder(folder: Path, rows: list[dict[str, Any]], names: tuple[str, ...] = ("tokens", "tags", "label")) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        lines = [row[name] if name == "label" else " ".join(row[name]) for row in rows]
        file = {"tokens": "seq.in", "tags": "seq.out", "label": "label"}[name]
        (folder / file).write_text("".join(f"{line}\n" for line in lines))
    return str(folder)


def test_scores_are_those_of_seqeval_and_of_counting() -> None:
    rng = np.random.default_rng(0)
    gold, found = (
        [{"intent": "ab"[rng.integers(2)], "tags": [TAGS[k] for k in rng.integers(0, 4, n)]} for n in range(1, 40)]
        for _ in range(2)
    )
    found[:10] = gold[:10]
    metric = Metric({"labels": ["a", "b"], "tags": TAGS})
    scores = metric.score(metric.table(found, gold))
    assert scores["f1"] == pytest.approx(f1_score([x["tags"] for x in gold], [x["tags"] for x in found]), abs=1e-12)
    assert scores["intent_accuracy"] == np.mean([x["intent"] == y["intent"] for x, y in zip(gold, found, strict=True)])
    assert scores["accuracy"] == np.mean([x == y for x, y in zip(gold, found, strict=True)]) < scores["intent_accuracy"]
    assert {"f1/CITY", "support/DAY"} <= set(scores)


def test_folders_are_read_as_published(tmp_path: Path) -> None:
    folder = Path(write_folder(tmp_path / "train", rows(5)))
    assert [row for _, row in read_slots(str(folder))] == rows(5)
    (folder / "seq.out").write_text("O\n")
    with pytest.raises(UserError, match=r"seq.out, line 1: 1 tags for 3 words of .*seq.in, line 1"):
        list(read_slots(str(folder)))
    (folder / "seq.out").write_text("O B-CITY B-DAY\n")
    with pytest.raises(UserError, match=r"seq.out ends before line 2"):
        list(read_slots(str(folder)))
    (folder / "label").unlink()
    with pytest.raises(UserError, match=r"has no file label; give seq.in, seq.out, label, or seq.in alone"):
        list(read_slots(str(folder)))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["intent_slots"])
def test_the_loss_counts_an_intent_as_several_words(build: Build) -> None:
    """Against the two cross entropies written out, also for an utterance in several windows, packed and padded."""
    examples = [*rows(4), {"tokens": ["Oslo"] * 50, "tags": ["B-CITY"] * 50, "label": "ask"}]
    found = []
    for packing in ("true", "false"):
        module = build(examples, "task.intent_weight=3.0", "task.stride=4", f"trainer.packing={packing}").eval()
        data = module.data
        assert data.labels == ["ask", "travel"] and sorted(data.tags) == sorted(TAGS)
        assert module.backbone.model.config.id2label[0] == "intent ask"
        assert data.stores["train"].targets.tolist() == [len(row["tokens"]) + 3.0 for row in examples]
        data.layout = lambda module=module: Layout(0, 1, 4096, module.backbone.packed)
        with torch.no_grad():
            [micro] = data.evaluation_batches("train")
            loss, (intents, tags) = module.loss(micro)
        wanted = [data.labels.index(examples[i]["label"]) for i in dict.fromkeys(micro.examples.tolist())]
        expected = 3.0 * F.cross_entropy(intents, torch.tensor(wanted), reduction="sum")
        words = micro.tokens["label"] >= 0
        assert int(words.sum()) == sum(len(row["tokens"]) for row in examples) and len(intents) == 5
        expected += F.cross_entropy(tags[words], micro.tokens["label"][words], reduction="sum")
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)
        [both] = module.target_logits(micro, (intents, tags))
        assert both.shape == (5 + int(words.sum()), 4) and bool(both[:5, 2:].isinf().all())
        found.append(float(loss))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.slow
def test_a_run_on_folders_learns_and_labels_new_text(small_runs: SmallRuns, tmp_path: Path) -> None:
    files = {split: write_folder(tmp_path / split, rows(n)) for split, n in (("train", 64), ("validation", 16))}
    data = {**files, "max_length": 32, "max_overlap": 1.0}
    optim = {"batch_size": 16, "lr": 1e-2, "max_steps": 40}
    run = small_runs.train("intent_slots", data=data, optim=optim)
    result = run.result
    assert result is not None and result["metrics"]["validation"]["accuracy"] > 0.9
    assert {"intent_accuracy", "f1", "f1/CITY"} <= set(result["metrics"]["validation"])
    assert losses(run)[-1] < losses(run)[0] / 2
    bare = write_folder(tmp_path / "new", rows(16), ("tokens",))
    assert main(["predict", str(run.path), "--input", bare, "--output", str(tmp_path / "out.parquet")]) == 0
    again = pq.read_table(tmp_path / "out.parquet").to_pylist()
    scored = pq.read_table(run.predictions / "validation.parquet").to_pylist()
    assert [row["prediction"] for row in again] == [row["prediction"] for row in scored]
    assert "gold" not in again[0] and scored[0]["gold"] == {"intent": "travel", "tags": ["O", "B-CITY", "B-DAY"]}
