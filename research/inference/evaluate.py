"""Evaluate a finished run again; what evaluating and predicting share."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import pyarrow as pa

from research.common.errors import UserError
from research.inference.finished_config import finished_config, task_data
from research.inference.finished_run import finished_result, is_intact, refuse_unknown_split
from research.inference.inputs import read_as_asked
from research.inference.logits import KeptLogits, refuse_logits
from research.tracking import predictions
from research.tracking.run import Run
from research.training.build import build
from research.training.module import TaskModule
from research.training.trainer import make_trainer

log = logging.getLogger("research")

OF_OTHER_DATA: dict[str, Any] = {  # keys of `data` that choose rows, without a choice
    "name": None, "train": None, "validation": None, "unlabelled": None, "folds": None, "fold": None, "shots": None,
    "ids": None, "max_train_examples": None, "max_eval_examples": None,
}  # fmt: skip


class _Evaluation(L.Callback):
    """Keeps the table and scores of one evaluation of a finished run."""

    def on_test_end(self, trainer: L.Trainer, module: Any) -> None:
        self.table, self.scores = module.scored()


def evaluate(run: Run, split: str, trust_remote_code: bool = False, keeps_logits: bool = False) -> dict[str, float]:
    """Score a finished run again on one of its splits, and note that in `evaluations.jsonl`.

    `predictions/<split>.parquet` is written where it is missing or not the file that training recorded, and only
    with rows whose scores are the recorded ones. `keeps_logits` writes those of the training data, for distillation.
    Raises UserError for a split the run lacks, or that has changed, and for logits that are there already.
    """
    if keeps_logits:
        refuse_logits(run, split)
    config = finished_config(run, trust_remote_code)
    refuse_unknown_split(run, config, split)
    data = task_data(run, config)
    data.tested = split
    data.open(finished_result(run)["learned"], only=split)
    trained_on = ((run.provenance.get("data") or {}).get(split) or {}).get("sha256")
    if data.splits[split].fingerprint != trained_on:
        raise UserError(
            f"{data.splits[split].origin} has changed since the run {run.path} was trained; restore it, or label it "
            "with `research predict`."
        )
    if split == "validation":
        data.use_validation_scores({})  # its own scores, as training reported them, come before what they decide
    module = build(config, data)
    kept = KeptLogits(module) if keeps_logits else None
    table, scores = scored(module)
    if kept is not None:
        kept.write(run)
    keep_predictions(run, split, table, scores)
    note_evaluation(run, split, scores)
    return scores


def evaluate_file(
    run: Run, source: str, overrides: Sequence[str] = (), trust_remote_code: bool = False
) -> tuple[pa.Table, dict[str, float]]:
    """Predictions and scores of a finished run on the labelled rows of a file, by its own metric; nothing is written.

    `overrides` say how the file is read. Raises UserError for rows without gold answers, and for labels that the run
    has not.
    """
    config, learned = finished_config(run, trust_remote_code), finished_result(run)["learned"]
    read_as_asked(config, source, overrides)
    config.data = replace(config.data, **OF_OTHER_DATA, test=source)
    data = task_data(run, config)
    data.open(learned, only="test")
    data.refuse_other_labels(data.splits["test"])
    return scored(build(config, data))


def scored(module: TaskModule) -> tuple[pa.Table, dict[str, float]]:
    """The predictions of a module on the split that its data name as `tested`, and their scores."""
    callback = _Evaluation()
    make_trainer(module.config, [callback], []).test(module, datamodule=module.data, verbose=False)
    return callback.table, callback.scores


def keep_predictions(run: Run, split: str, table: pa.Table, scores: Mapping[str, float]) -> None:
    """Write the predictions unless the recorded file is intact, or the scores are not those of the record."""
    result = finished_result(run)
    name = f"predictions/{split}.parquet"
    recorded = result["metrics"].get(split) or {}
    changed = [
        f"{key} {recorded[key]:.4f} -> {value:.4f}"
        for key, value in scores.items()
        if "/" not in key and key != "loss" and key in recorded and not math.isclose(recorded[key], value, rel_tol=1e-6)
    ]
    if changed:
        log.warning("The scores differ from those that training recorded (%s); %s stays as it is.",
                    ", ".join(changed), run.path / name)  # fmt: skip
    elif not is_intact(run, name):
        predictions.write(table, run.path / name)


def note_evaluation(run: Run, split: str, scores: Mapping[str, float]) -> None:
    """Append this evaluation to `evaluations.jsonl`: how often test data were looked at is part of a result."""
    row = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "split": split, "scores": dict(scores)}
    try:
        with open(run.path / "evaluations.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        log.warning("This evaluation could not be noted in %s (%s).", run.path, error.strerror)
