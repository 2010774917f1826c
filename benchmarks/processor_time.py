"""A callback that notes the processor seconds of a run's training steps, without evaluations and the start."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

FILE = "processor_time.json"


@dataclass
class Keys:
    pass


class Callback(L.Callback):
    def __init__(self, keys: Keys) -> None:
        self.seconds = self.since = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, module: Any) -> None:
        self.since = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.process_time()
        self.seconds += now - self.since
        self.since = now

    def on_fit_end(self, trainer: L.Trainer, module: Any) -> None:
        path = Path(module.config.run_dir) / FILE
        path.write_text(json.dumps({"seconds": self.seconds}), encoding="utf-8")
