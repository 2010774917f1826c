"""Label new text with a finished run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from research.common.errors import UserError
from research.common.files import written_whole
from research.inference.evaluate import finished_config, finished_result, task_data
from research.tracking import predictions
from research.tracking.run import Run
from research.training.build import build
from research.training.trainer import make_trainer


def predict(run: Run, source: str, target: str, trust_remote_code: bool = False) -> int:
    """Label new text with a finished run; returns the number of rows. The suffix of `target` is its format."""
    writers = {".jsonl": _write_jsonl, ".parquet": predictions.write, ".csv": _write_csv}
    writer = writers.get(Path(target).suffix)
    if writer is None:
        raise UserError(f"--output {target}: its suffix must be one of {', '.join(writers)}.")
    try:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {target} could not be written: {error.strerror or error}.") from None
    config = finished_config(run, trust_remote_code)
    data = task_data(run, config)
    data.open_input(source, finished_result(run)["learned"])
    module = build(config, data)
    trainer = make_trainer(config, [], [])
    trainer.predict(module, datamodule=data, return_predictions=False)
    split = data.splits["input"]
    columns = data.table(split, module.gathered_predictions()[0])
    if not any(value is not None for value in columns["gold"]):
        del columns["gold"]
    table = predictions.make_table(split, columns, data.metric_name, data.score_settings())
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
