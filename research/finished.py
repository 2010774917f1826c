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
from research.data.task_data import TaskData
from research.errors import UserError
from research.model.encoder import load_tokenizer
from research.run import Run, written_whole
from research.train import build, make_trainer


class _Evaluation(L.Callback):
    """Keeps the table and scores of one evaluation of a finished run."""

    def on_test_end(self, trainer: L.Trainer, module: Any) -> None:
        self.table, self.scores = module.scored()


def evaluate(run: Run, split: str) -> dict[str, float]:
    """Score a finished run again on one of its splits; rewrites predictions/<split>.parquet."""
    config = finished_config(run)
    value = getattr(config.data, split)
    if value is None:
        named = [name for name in ("train", "validation", "test") if getattr(config.data, name)]
        raise UserError(f"The run {run.path} has no split '{split}'; it has {', '.join(named)}.")
    for name in {"train", "validation", "test"} - {split}:
        setattr(config.data, name, None)
    data = task_data(run, config)
    data.tested = split
    data.open(finished_result(run)["learned"])
    if data.splits[split].fingerprint != run.provenance["data"][split]["sha256"]:
        raise UserError(
            f"{data.splits[split].origin} has changed since the run {run.path} was trained; restore it, or label it "
            "with `research predict`."
        )
    if split == "validation":
        data.settle({})  # its own scores, as training reported them, come before what they settle
    module = build(config, data)
    callback = _Evaluation()
    make_trainer(config, [callback], []).test(module, datamodule=module.data, verbose=False)
    predictions.write(callback.table, run.predictions / f"{split}.parquet")
    return callback.scores


def predict(run: Run, source: str, target: str) -> int:
    """Label new text with a finished run; returns the number of rows. The suffix of `target` is its format."""
    writers = {".jsonl": _write_jsonl, ".parquet": predictions.write, ".csv": _write_csv}
    writer = writers.get(Path(target).suffix)
    if writer is None:
        raise UserError(f"--output {target}: its suffix must be one of {', '.join(writers)}.")
    try:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {target} could not be written: {error.strerror or error}.") from None
    config = finished_config(run)
    data = task_data(run, config)
    data.open_input(source, finished_result(run)["learned"])
    module = build(config, data)
    trainer = make_trainer(config, [], [])
    trainer.predict(module, datamodule=data, return_predictions=False)
    split = data.splits["input"]
    columns = data.table(split, module.gathered_predictions()[0])
    if not any(value is not None for value in columns["gold"]):
        del columns["gold"]
    table = predictions.make_table(split, columns, data.scorer, data.score_settings())
    writer(table, Path(target))
    return table.num_rows


def finished_config(run: Run) -> Config:
    """The config of a finished run, with its own trained model in the place of the pretrained one."""
    finished_result(run)
    config = run.config
    config.model.name, config.model.revision = str(run.model), None
    config.optim.class_weights, config.optim.balance_classes = {}, False  # of the training loss alone
    trainer = config.trainer
    trainer.devices, trainer.num_nodes, trainer.strategy = 1, 1, "auto"  # one process, whatever it was trained on
    return config


def finished_result(run: Run) -> dict[str, Any]:
    """The result of a finished run. Raises UserError for one that is not finished."""
    if run.result is None:
        raise UserError(f"The run {run.path} is not finished; run its training command again to finish it.")
    return run.result


def task_data(run: Run, config: Config) -> TaskData:
    """The task's data, not opened yet, with what the run's validation settled."""
    task = import_module(f"research.tasks.{config.task}")
    data: TaskData = task.Data(config, load_tokenizer(config))
    data.settle(finished_result(run)["metrics"]["validation"])
    return data


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
