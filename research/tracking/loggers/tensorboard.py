"""TensorBoard events, in `tensorboard/` of the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger


class Logger(TensorBoardLogger):
    def __init__(self, keys: Any, folder: Path) -> None:
        super().__init__(folder, name="tensorboard", version="")
