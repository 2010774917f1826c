"""Metrics as torchmetrics: exact over batches and over two real ranks, equal to torchmetrics' own where it is exact."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassCalibrationError, MulticlassF1Score, MulticlassMatthewsCorrCoef
from torchmetrics.text import SQuAD

from research.common.errors import UserError
from research.metrics.torch import metric
from tests.metrics.scores import entity_scores, squad_scores, squad_v2_scores

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
EXAMPLES = 21  # an odd number: of two ranks one has more


def sentences(seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    lengths = np.random.default_rng(99).integers(1, 12, size=EXAMPLES)
    return [[TAGS[i] for i in rng.integers(len(TAGS), size=n)] for n in lengths]


def test_batches_add_up_to_the_scores_of_all() -> None:
    gold, predicted = sentences(0), sentences(1)
    scores = metric("entities", labels=TAGS)
    for start in range(0, EXAMPLES, 4):
        scores.update(predicted[start : start + 4], gold[start : start + 4])
    found = {name: float(value) for name, value in scores.compute().items()}
    assert found == entity_scores(gold, predicted)
    assert 0 < found["f1"] < 1 and found["support/PER"] > 0
    scores.reset()
    scores.update(gold, gold)
    assert dict(scores.compute())["f1"] == 1


def test_a_type_that_is_not_declared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['type/ORG'\] are not among the declared classes"):
        metric("entities", labels=TAGS).update([["B-ORG"]], [["B-PER"]])


def test_unknown_metrics_and_scores_are_refused() -> None:
    with pytest.raises(UserError, match=r"metric=entity must be one of .*entities"):
        metric("entity")
    with pytest.raises(UserError, match="There is no score 'bleu'; there are f1, precision"):
        metric("entities", score="bleu")


@pytest.mark.parametrize("classes", [2, 5])
def test_classification_equals_torchmetrics(classes: int) -> None:
    rng = np.random.default_rng(classes)
    probabilities = torch.from_numpy(rng.dirichlet(np.full(classes, 0.5), size=200))
    gold = torch.from_numpy(rng.integers(classes, size=200))
    ours = metric("classification", labels=[f"c{i}" for i in range(classes)])
    theirs = {
        "f1": MulticlassF1Score(classes, average="macro"),
        "mcc": MulticlassMatthewsCorrCoef(classes),
        "calibration_error": MulticlassCalibrationError(classes, n_bins=15),
    }
    for part in torch.arange(200).split(64):
        ours.update(probabilities[part], gold[part])
        for each in theirs.values():
            each.update(probabilities[part], gold[part])
    for name, each in theirs.items():
        assert float(dict(ours.compute())[name]) == pytest.approx(float(each.compute()), abs=1e-6), name


def test_squad_equals_torchmetrics_and_the_official_scorer() -> None:
    answers = {"1": ["Denver Broncos", "the Broncos"], "2": ["1999"], "3": ["red house"]}
    predicted = {"1": "The Denver Broncos!", "2": "in 1999", "3": "house"}
    ours = metric("squad", rules="squad")
    ours.update(list(predicted.values()), list(answers.values()))
    theirs = SQuAD()
    theirs.update(
        [{"prediction_text": text, "id": key} for key, text in predicted.items()],
        [{"answers": {"answer_start": [0] * len(texts), "text": texts}, "id": key} for key, texts in answers.items()],
    )
    found, expected = dict(ours.compute()), theirs.compute()
    assert {name: float(value) for name, value in found.items()} == squad_scores(predicted, answers)
    for name in ("f1", "exact_match"):
        assert 100 * float(found[name]) == pytest.approx(float(expected[name]), abs=1e-4)


def test_questions_without_an_answer() -> None:
    answers = {"1": ["Oslo"], "2": [], "3": []}
    predicted, doubts = {"1": "Oslo", "2": "Rome", "3": "Rome"}, {"1": 0.1, "2": 0.9, "3": 0.2}
    ours = metric("squad", rules="squad_v2", threshold=0.5)
    ours.update(list(predicted.values()), list(answers.values()), no_answer_score=list(doubts.values()))
    expected = squad_v2_scores(predicted, answers, doubts, 0.5)
    found = {name: float(value) for name, value in ours.compute().items()}
    assert found == {name: value for name, value in expected.items() if not name.startswith("best_")}
    assert found["f1"] == pytest.approx(2 / 3)


def _rank(rank: int, ranks: int, folder: str, name: str, settings: dict[str, Any]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", ranks), rank=rank, world_size=ranks)
    gold: Any = sentences(0)
    predicted: Any = sentences(1)
    if name == "relations":
        gold, predicted = ([row[0] for row in rows] for rows in (gold, predicted))
    scores = metric(name, **settings)
    for start in range(3 * rank, EXAMPLES, 3 * ranks):  # 12 examples here, 9 there
        scores.update(predicted[start : start + 3], gold[start : start + 3])
    found = {key: float(value) for key, value in scores.compute().items()}
    Path(folder, f"{rank}.txt").write_text(repr(found))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("name", "settings"), [("entities", {"labels": TAGS}), ("relations", {"labels": TAGS, "other": "O"})]
)
def test_two_ranks_give_the_scores_of_one(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    mp.start_processes(_rank, args=(2, str(tmp_path), name, settings), nprocs=2, start_method="fork")
    found = [eval((tmp_path / f"{rank}.txt").read_text()) for rank in range(2)]
    gold: Any = sentences(0)
    predicted: Any = sentences(1)
    if name == "relations":
        gold, predicted = ([row[0] for row in rows] for rows in (gold, predicted))
    alone = metric(name, **settings)
    alone.update(predicted, gold)
    expected = {key: float(value) for key, value in alone.compute().items()}
    assert found[0] == found[1] == expected
    assert 0 < expected["f1"] < 1


class Tagger(L.LightningModule):
    """Anyone's module: it logs an entity score with `self.log`."""

    def __init__(self) -> None:
        super().__init__()
        self.f1 = metric("entities", score="f1", labels=TAGS)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        gold, predicted = sentences(0), sentences(1)
        self.f1.update([predicted[i] for i in batch], [gold[i] for i in batch])
        self.log("f1", self.f1, batch_size=len(batch))


def test_any_lightning_module_logs_it(tmp_path: Path) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    loader: DataLoader[Any] = DataLoader(
        list(range(EXAMPLES)),  # type: ignore[arg-type]
        batch_size=4,
        collate_fn=list,
    )
    found = trainer.validate(Tagger(), loader, verbose=False)
    assert found[0]["f1"] == pytest.approx(entity_scores(sentences(0), sentences(1))["f1"], abs=1e-12)
