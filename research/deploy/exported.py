"""An exported folder as it is served: the task's own encoding and decoding round the exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from research.common.errors import UserError
from research.config.load import from_dict
from research.deploy.formats import load_engine
from research.deploy.served_runs import SETTINGS
from research.inference.predictor import Predictor, Trained


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
    engine = load_engine(folder, settings["format"], settings["precision"], predictor.module.backbone.model.config)
    assert engine is not None
    predictor.use_engine(engine)
    return predictor


def unloaded(config: Any, own: Any, auto_class: Any) -> PreTrainedModel:
    """A model without weights, for an engine that has its own."""
    model: PreTrainedModel = auto_class.from_config(own)
    return model
