"""Export a finished run as a folder to deploy, and refuse one that does not give the run's answers.

The folder holds the model in one format, tokenizer, labels and settings (`research.json`), the labels and
confidences it predicted (`reference.json`, for drift), a model card, how far it
differs from the run (`comparison.json`), and the sha256 of every file (`manifest.json`). `research serve` takes it as
it takes a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from transformers import PreTrainedModel

from research.common.errors import UserError
from research.common.files import replace_folder, write_json
from research.config.load import from_dict
from research.config.tree import to_dict
from research.deploy.calibration import calibration_inputs
from research.deploy.card import model_card
from research.deploy.drift import reference_of
from research.deploy.formats import FORMATS, load_engine, write_model
from research.deploy.manifest import sign, write_manifest
from research.deploy.served_runs import SETTINGS
from research.inference.predictor import Predictor, Question, Trained, trained_of
from research.models.load import ENCODER
from research.report.records import read_record
from research.tracking import predictions
from research.tracking.run import Run
from research.training.build import heads_of

REFERENCE = "reference.json"
CLOSE = {"fp32": 1e-4, "bf16": 0.5}  # largest difference of a logit from the run's own
TEXTS = 32  # that are compared, in four shapes


@dataclass(frozen=True)
class Difference:
    """How an export differs from its run."""

    logits: float  # the largest difference of one
    examples: int = 0  # validation or test examples that were labelled again
    labels_changed: int = 0
    run_scores: dict[str, float] | None = None
    scores: dict[str, float] | None = None


def export(
    run: Run,
    output: Path,
    format: str = "safetensors",
    precision: str = "fp32",
    tolerance: float = 0.01,
    key: Path | None = None,
    licence: str | None = None,
) -> Difference:
    """Write a folder to deploy; an int8 model may lose at most `tolerance` of the score that chose the checkpoint.

    Nothing is written unless the folder gives the run's answers. Raises UserError where it does not, for a format that
    does not go with the precision or the task, and for a folder that holds something else.
    """
    if precision not in FORMATS[format]:
        raise UserError(f"--format {format} has no precision {precision}; it has {', '.join(FORMATS[format])}.")
    if output.exists() and not (output / SETTINGS).is_file() and any(output.iterdir()):
        raise UserError(f"{output} holds other files; name a new folder.")
    found: list[Difference] = []

    def fill(folder: Path) -> None:
        trained = trained_of(run)
        predictor = Predictor(trained, "fp32")
        if not predictor.module.adapter.merges:
            raise UserError(
                f"The weights of adapter '{trained.config.adapter.name}' cannot be merged into a plain model, which an "
                "export needs; use research predict, or train with lora."
            )
        if format != "safetensors" and not predictor.module.exports_programs:
            raise UserError(
                f"task '{trained.config.task.name}' scores words at some tokens alone, which --format {format} does "
                "not write; use safetensors."
            )
        if format != "safetensors" and predictor.module.backbone.family != ENCODER:
            task = trained.config.task.name
            raise UserError(f"task '{task}' generates text, which --format {format} cannot; use safetensors.")
        calibration = partial(calibration_inputs, trained, run.config.data)
        write_model(plain_model(predictor), predictor.data.tokenizer, folder, format, precision, calibration)
        write_json(folder / SETTINGS, settings_of(trained, format, precision))
        if reference := reference_of(run, bool(predictor.data.labels)):
            write_json(folder / REFERENCE, vars(reference))
        found.append(compared(run, predictor, load_exported(folder), precision))
        refuse_difference(found[0], run, precision, tolerance)
        write_json(folder / "comparison.json", {"format": format, "precision": precision, **vars(found[0])})
        (folder / "README.md").write_text(model_card(run, trained.base_model, format, precision, licence), "utf-8")
        write_manifest(folder)
        if key is not None:
            sign(folder, key)

    output.parent.mkdir(parents=True, exist_ok=True)
    replace_folder(output, fill)
    return found[0]


def plain_model(predictor: Predictor) -> PreTrainedModel:
    """The trained model as `transformers` loads it: the packed one has its attention replaced."""
    auto_class = heads_of(predictor.config)[predictor.module.backbone.family]
    model: PreTrainedModel = auto_class.from_pretrained(predictor.config.model.name, dtype=torch.float32)
    return model


def settings_of(trained: Trained, format: str, precision: str) -> dict[str, Any]:
    """What labelling needs beside the model."""
    return {
        "format": format,
        "precision": precision,
        "base_model": trained.base_model,
        "config": to_dict(trained.config),
        "learned": trained.learned,
        "validation": {name: score for name, score in trained.validation.items() if isinstance(score, int | float)},
    }


def load_exported(folder: Path, precision: str | None = None) -> Predictor:
    """The predictor of an exported folder. Raises UserError for a folder that is none."""
    try:
        settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{folder} is no exported folder: it has no {SETTINGS}.") from None
    config = from_dict(settings["config"], str(folder / SETTINGS))
    config.model.name, config.model.revision = str(folder), None
    trained = Trained(config, settings["learned"], settings["validation"], settings["base_model"])
    if settings["format"] == "safetensors":
        return Predictor(trained, precision or settings["precision"])
    config.trainer.packing = False
    predictor = Predictor(trained, "fp32", load=unloaded)
    engine = load_engine(folder, settings["format"], predictor.module.backbone.model.config)
    assert engine is not None
    predictor.use_engine(engine)
    return predictor


def unloaded(config: Any, own: Any, auto_class: Any) -> PreTrainedModel:
    """A model without weights, for an engine that has its own."""
    model: PreTrainedModel = auto_class.from_config(own)
    return model


def compared(run: Run, predictor: Predictor, exported: Predictor, precision: str) -> Difference:
    """Compare an export with its run: logits on real texts of four shapes, and all labels where it is quantised."""
    split = "validation" if (run.predictions / "validation.parquet").is_file() else "test"
    path = run.predictions / f"{split}.parquet"
    if not path.is_file():
        raise UserError(f"The run {run.path} has no predictions to compare an export with; train it with validation.")
    table = predictions.read(path)
    rows = table.to_pylist()
    fields = [field for field in predictor.fields if field in table.column_names]
    questions = [predictor.question({field: row[field] for field in fields if row[field] is not None}) for row in rows]
    largest = 0.0
    for shape in shapes_of(questions):
        mine, theirs = (numbers_of(each.outputs(shape)[1]) for each in (predictor, exported))
        largest = max(largest, *(largest_difference(x, y) for x, y in zip(mine, theirs, strict=True)))
    if precision == "fp32":
        return Difference(largest)
    again = relabelled(table, exported, questions)
    changed = sum(a != b for a, b in zip(table["prediction"].to_pylist(), again["prediction"].to_pylist(), strict=True))
    return Difference(largest, len(table), changed, predictions.score(table), predictions.score(again))


def shapes_of(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """The longest alone, the shortest alone, the eight longest, and others of all lengths."""
    by_length = sorted(questions, key=lambda question: question.tokens)
    yield by_length[-1:]
    yield by_length[:1]
    yield by_length[-8:]
    yield by_length[:: max(1, len(by_length) // (TEXTS - 10))][: TEXTS - 10]


def numbers_of(outputs: Any) -> list[Tensor]:
    """The tensors of a head's outputs."""
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


def largest_difference(x: Tensor, y: Tensor) -> float:
    """Of two outputs, where they are finite; infinite where one of them alone is. Padding may differ in length."""
    x, y = x.float().cpu(), y.float().cpu()
    if x.shape != y.shape:
        return torch.inf
    real = torch.isfinite(x)
    if not torch.equal(real, torch.isfinite(y)):
        return torch.inf
    return float((x - y)[real].abs().max()) if real.any() else 0.0


def relabelled(table: pa.Table, exported: Predictor, questions: Sequence[Question]) -> pa.Table:
    """A predictions table with the answers of the export."""
    columns: dict[str, list[Any]] = {}
    for start in range(0, len(questions), TEXTS):
        for name, values in exported.columns(questions[start : start + TEXTS]).items():
            columns.setdefault(name, []).extend(values)
    for name, values in columns.items():
        if name in table.column_names:
            kind = table.schema.field(name).type
            table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
    return table


def refuse_difference(found: Difference, run: Run, precision: str, tolerance: float) -> None:
    """Raise UserError where an export differs from its run by more than its precision explains."""
    if precision in CLOSE and not found.logits <= CLOSE[precision]:
        raise UserError(
            f"the export differs from the run by {found.logits:.2g} in a logit, more than {CLOSE[precision]:g}; "
            "nothing was written."
        )
    if precision.startswith("int8"):
        name = str((run.result or {})["monitor"])
        before, after = (found.run_scores or {})[name], (found.scores or {})[name]
        smaller_is_better = read_record(run.path).score_named(name).smaller_is_better
        lost = after - before if smaller_is_better else before - after
        if lost > tolerance:
            raise UserError(
                f"{precision} changes {found.labels_changed} of {found.examples} predictions and takes {name} from "
                f"{before:.4f} to {after:.4f}, more than --tolerance {tolerance:g}; nothing was written."
            )
