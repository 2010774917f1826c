"""A CSV file of the metrics, `csv/metrics.csv` in the run folder: a row a step, a column a metric."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger


class Logger(CSVLogger):
    starts_over = True  # it is given all rows again when the run is resumed

    def __init__(self, keys: Any, folder: Path) -> None:
        shutil.rmtree(folder / "csv", ignore_errors=True)
        super().__init__(folder, name="csv", version="", flush_logs_every_n_steps=1)
