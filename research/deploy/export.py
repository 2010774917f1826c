"""Export a finished run as a folder to deploy, and refuse one that does not give the run's answers.

The folder holds the model in one format, tokenizer, labels and settings (`research.json`), the labels and
confidences it predicted (`reference.json`, for drift), a model card, how far it differs from the run
(`comparison.json`), and the sha256 of every file (`manifest.json`). `research serve` takes it as it takes a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from research.common.errors import UserError
from research.common.files import replace_folder, write_json
from research.config.tree import to_dict
from research.deploy.calibration import calibration_inputs
from research.deploy.card import model_card
from research.deploy.comparison import Difference, compared, refuse_difference
from research.deploy.drift import reference_of
from research.deploy.exported import load_exported
from research.deploy.formats import FORMATS, write_model
from research.deploy.manifest import sign, write_manifest
from research.deploy.served_runs import REFERENCE, SETTINGS
from research.deploy.vocabulary import Vocabulary, keep_rows, smaller_vocabulary, used_tokens
from research.inference.predictor import Predictor, Trained, trained_of
from research.models.load import ENCODER
from research.tracking.run import Run
from research.training.build import heads_of


def export(
    run: Run,
    output: Path,
    format: str = "safetensors",
    precision: str = "fp32",
    tolerance: float = 0.01,
    key: Path | None = None,
    licence: str | None = None,
    vocabulary: Sequence[Path] = (),
) -> Difference:
    """Write a folder to deploy; int8 and a smaller vocabulary may lose at most `tolerance` of the score that chose the
    checkpoint.

    `vocabulary`: files of texts; the model keeps their tokens alone. Nothing is written unless the folder gives the
    run's answers. Raises UserError where it does not, for a format that does not go with the precision or the task,
    and for a folder that holds something else.
    """
    if precision not in FORMATS[format]:
        raise UserError(f"--format {format} has no precision {precision}; it has {', '.join(FORMATS[format])}.")
    if output.exists() and not (output / SETTINGS).is_file() and any(output.iterdir()):
        raise UserError(f"{output} holds other files; name a new folder.")
    found: list[Difference] = []

    def fill(folder: Path) -> None:
        trained = trained_of(run)
        predictor = Predictor(trained, "fp32")
        refuse_task(predictor, format)
        model, tokenizer = plain_model(predictor), predictor.data.tokenizer
        smaller: Vocabulary | None = None
        if vocabulary:
            smaller = smaller_vocabulary(tokenizer, used_tokens(run, vocabulary), model.config.pad_token_id)
            keep_rows(model, smaller)
            tokenizer = smaller.tokenizer

        def calibration() -> list[dict[str, Tensor]]:
            inputs = calibration_inputs(trained, run.config.data)
            return [smaller.renumbered(each) for each in inputs] if smaller else inputs

        write_model(model, tokenizer, folder, format, precision, calibration)
        write_json(folder / SETTINGS, settings_of(trained, format, precision))
        if reference := reference_of(run, bool(predictor.data.labels)):
            write_json(folder / REFERENCE, vars(reference))
        found.append(compared(run, predictor, load_exported(folder), precision != "fp32" or bool(vocabulary)))
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


def refuse_task(predictor: Predictor, format: str) -> None:
    """Raise UserError for a model that cannot be written in a format as one program."""
    task = predictor.config.task.name
    if not predictor.module.adapter.merges:
        raise UserError(
            f"The weights of adapter '{predictor.config.adapter.name}' cannot be merged into a plain model, which an "
            "export needs; use research predict, or train with lora."
        )
    if format != "safetensors" and not predictor.module.exports_programs:
        raise UserError(
            f"task '{task}' scores words at some tokens alone, which --format {format} does not write; use safetensors."
        )
    if format != "safetensors" and predictor.module.backbone.family != ENCODER:
        raise UserError(
            f"task '{task}' generates text: --format {format} is two programs, of the prompt and of the next token, "
            "which the search of a run cannot drive; use safetensors."
        )
