"""An MLflow run, the same one each time the run folder is resumed: parameters, metrics by step, final scores."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

from research.common.errors import UserError
from research.common.files import write_atomically
from research.config.component import key

# A server that does not answer must not hold up a run for long.
LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


@dataclass
class Keys:
    uri: str | None = key(None, "where runs are kept; null: MLFLOW_TRACKING_URI, else the file mlflow.db here")
    experiment: str = key("research", "MLflow experiment")


class Logger(MLFlowLogger):
    def __init__(self, keys: Any, folder: Path) -> None:
        """Raises UserError where MLflow is not installed."""
        for name, value in LIMITS.items():
            os.environ.setdefault(name, value)
        uri = keys.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        noted = folder / "mlflow" / "run_id"
        self.known = noted.read_text(encoding="utf-8").strip() if noted.is_file() else None
        name = "/".join(folder.absolute().parts[-2:])
        try:
            super().__init__(experiment_name=keys.experiment, run_name=name, tracking_uri=uri, run_id=self.known)
        except ModuleNotFoundError:
            raise UserError("loggers.mlflow needs MLflow: pip install 'research[mlflow]'.") from None
        noted.parent.mkdir(exist_ok=True)
        with write_atomically(noted) as temporary:
            temporary.write_text(f"{self.run_id}\n", encoding="utf-8")

    def log_hyperparams(self, params: Any, *_: Any) -> None:
        """Once: MLflow takes no other value for a parameter that it has."""
        if self.known is None:
            super().log_hyperparams(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Names of classes may hold what MLflow allows in no name."""
        super().log_metrics({re.sub(r"[^\w\-./: ]", "_", name): value for name, value in metrics.items()}, step)
