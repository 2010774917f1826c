"""Vectors of texts by a finished run, as its training scored them.

Shapes: N texts, W width of the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from research.batching.pack import pack
from research.batching.plan import evaluation_share
from research.batching.store import Store
from research.common.errors import UserError
from research.config import component
from research.inference.finished_config import finished_config, task_data
from research.inference.finished_run import finished_result
from research.tracking.run import Run
from research.training.build import build

Vectors = NDArray[np.float32]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AT_ONCE = 8192  # texts that are tokenised at a time
DECIDING = ("pooling", "query_prefix", "document_prefix")  # keys of the task that decide a vector


class TextEncoder:
    """Encodes queries and documents with the model of a run of a task whose module has `vectors`."""

    def __init__(self, run: Run, trust_remote_code: bool = False) -> None:
        """Raises UserError for a run that is not finished, or whose task makes no vectors."""
        self.run = run
        config = finished_config(run, trust_remote_code)
        refuse_task_without_vectors(run, component.canonical("task", config.task.name))
        config.trainer.sparse_embedding = False  # it serves training alone
        if config.trainer.precision == "fp16" and not torch.cuda.is_available():
            config.trainer.precision = "fp32"
        self.data: Any = task_data(run, config)
        self.data.recall(finished_result(run)["learned"])
        self.module: Any = build(config, self.data).eval()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module.to(self.device)
        self.dtype = DTYPES[config.trainer.precision]

    @property
    def width(self) -> int:
        return int(self.module.backbone.model.config.hidden_size)

    def refuse_size(self, size: int | None) -> None:
        """Raise UserError for vectors of so many numbers where the run was not trained for them."""
        sizes = getattr(self.module.config.task, "dimensions", [])
        if size is not None and size not in (*sizes, self.width):
            trained = f"{', '.join(map(str, sizes))} or all {self.width}" if sizes else f"all {self.width} alone"
            raise UserError(
                f"--size {size}: {self.run.path} was trained for {trained} numbers of a vector (task.dimensions)."
            )

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], stream: str) -> Vectors:
        """Vectors of length 1, (N, W), of texts as `query` or as `document`."""
        found = np.empty((len(texts), self.width), np.float32)
        for start in range(0, len(texts), AT_ONCE):
            found[start : start + AT_ONCE] = self._part(texts[start : start + AT_ONCE], stream)
        return found

    def _part(self, texts: Sequence[str], stream: str) -> Vectors:
        columns = self.data.encoded_texts(stream, [[text] for text in texts])
        table = pa.table({**columns, "targets": [1.0] * len(texts)})
        names = [name for name in self.data.token_columns if name in table.column_names]
        store, backbone = Store(table, names, ()), self.module.backbone
        found = np.empty((len(texts), self.width), np.float32)
        budget, padded = self.module.budget_tokens, not backbone.packed
        for rows in evaluation_share(store.stream_tokens, 0, 1, budget, padded):
            micro = pack(store, rows, backbone.packed).to(self.device)
            with torch.autocast(self.device.type, self.dtype) if self.dtype != torch.float32 else nullcontext():
                vectors = self.module.vectors(micro.streams[stream])
            found[rows] = F.normalize(vectors.float(), dim=1).cpu().numpy()
        return found


def refuse_task_without_vectors(run: Run, name: str) -> None:
    """Raise UserError unless the run's task makes vectors of queries and documents."""
    if not hasattr(component.load("task", name).Module, "vectors"):
        raise UserError(
            f"The run {run.path} is of task '{name}', which makes no vectors to search by; 'matching' does."
        )


def fingerprint(run: Run) -> str:
    """What decides a vector: the weights, tokenizer and config of the model, and the task's keys."""
    files = {name: sha for name, sha in finished_result(run)["files"].items() if name.startswith("model/")}
    config = run.config
    keys = {name: value for name, value in asdict(config.task).items() if name in DECIDING}
    content = json.dumps([files, keys, config.data.max_length], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
