"""What a finished run is good for: new scores, and labels for new text."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning as L
import pyarrow as pa
import pyarrow.csv as pa_csv

from research import predictions
from research.config import Config
from research.errors import UserError
from research.model.encoder import load_tokenizer
from research.recorder import evaluation_table
from research.run import Run, written_whole
from research.train import build, make_trainer


class _Evaluation(L.Callback):
    """Keeps the table and scores of one evaluation of a finished run."""

    def on_test_end(self, trainer: L.Trainer, module: Any) -> None:
        self.table, loss = evaluation_table(module)
        self.scores = {**predictions.score(self.table), "loss": loss}


def evaluate(run: Run, split: str) -> dict[str, float]:
    """Score a finished run again on one of its splits; rewrites predictions/<split>.parquet."""
    config = finished_config(run)
    value = getattr(config.data, split)
    if value is None:
        named = [name for name in ("train", "validation", "test") if getattr(config.data, name)]
        raise UserError(f"The run {run.path} has no split '{split}'; it has {', '.join(named)}.")
    config.data.train = config.data.validation = config.data.test = None
    config.data.test = value
    module = build(config)
    callback = _Evaluation()
    make_trainer(config, [callback], []).test(module, datamodule=module.data, verbose=False)
    predictions.write(callback.table, run.predictions / f"{split}.parquet")
    return callback.scores


def finished_config(run: Run) -> Config:
    """The config of a finished run, with its own trained model in the place of the pretrained one."""
    if run.result is None:
        raise UserError(f"The run {run.path} is not finished; run its training command again to finish it.")
    config = run.config
    config.model.name, config.model.revision = str(run.model), None
    labels = json.loads((run.model / "config.json").read_text(encoding="utf-8")).get("id2label")
    if config.task != "qa" and labels:
        config.data.labels = [labels[str(i)] for i in range(len(labels))]
    return config


def predict(run: Run, source: str, target: str) -> int:
    """Label new text with a finished run; returns the number of rows. The suffix of `target` is its format."""
    writers = {".jsonl": _write_jsonl, ".parquet": predictions.write, ".csv": _write_csv}
    writer = writers.get(Path(target).suffix)
    if writer is None:
        raise UserError(f"--output {target}: its suffix must be one of {', '.join(writers)}.")
    config = finished_config(run)
    task = import_module(f"research.tasks.{config.task}")
    data = task.Data(config, load_tokenizer(config))
    data.open_input(source, config.data.labels or [])
    module = build(config, data)
    trainer = make_trainer(config, [], [])
    trainer.predict(module, datamodule=data, return_predictions=False)
    split = data.splits["input"]
    columns = data.table(split, module.gathered_predictions()[0])
    if not any(value is not None for value in columns["gold"]):
        del columns["gold"]
    table = predictions.make_table(split, columns, data.scorer, data.score_settings())
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    writer(table, Path(target))
    return table.num_rows


def _write_jsonl(table: pa.Table, path: Path) -> None:
    with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row in table.to_pylist():
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_csv(table: pa.Table, path: Path) -> None:
    flat = {name: _as_json(table.column(name)) for name in table.column_names}
    with written_whole(path) as temporary:
        pa_csv.write_csv(pa.table(flat), temporary)


def _as_json(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Lists and structs as JSON text, which a CSV cell can hold."""
    if not pa.types.is_nested(column.type):
        return column
    return pa.array([json.dumps(value, ensure_ascii=False) for value in column.to_pylist()])
