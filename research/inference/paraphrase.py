"""Back-translation: two translation runs make paraphrases of training texts, once, for `augment.paraphrase`.

Sennrich, Haddow and Birch 2016, Improving Neural Machine Translation Models with Monolingual Data. A text goes through
the forward run, and its translation back through the other. The file has a line for each text, and beside it is
what it was made from: `FILE.provenance.json`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from research.common.errors import UserError
from research.common.files import write_atomically, write_json
from research.data.opening import open_split
from research.data.source import file_sha256
from research.inference.finished_run import finished_result, refuse_changed_model
from research.inference.predict import predict
from research.tracking.run import Run

MAKES_TEXT = ("translation", "generation")


def paraphrase(forward: Run, backward: Run, source: str, column: str, target: Path, trust: bool = False) -> int:
    """Write the paraphrases of the distinct texts of a column; returns their number.

    Raises UserError for runs that are no finished translations, a file that cannot be read, and a target that is there.
    """
    for run in (forward, backward):
        task = finished_result(run)["task"]
        if task not in MAKES_TEXT:
            raise UserError(
                f"{run.path} is a run of task '{task}'; a paraphrase takes two of {' or '.join(MAKES_TEXT)}."
            )
        refuse_changed_model(run)
    if target.exists():
        raise UserError(f"{target} is there already; remove it to make the paraphrases again.")
    fields = {"text": column}
    split = open_split(name="input", value=source, hub_name=None, hub_config=None, hub_revision=None, fields=fields)
    texts = list(dict.fromkeys(text for text in split.rows["text"] if text and text.strip()))
    back = translated(backward, translated(forward, texts, trust), trust)
    with write_atomically(target) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for text, other in zip(texts, back, strict=True):
            file.write(json.dumps({"text": text, "paraphrase": other}, ensure_ascii=False) + "\n")
    write_json(target.with_name(f"{target.name}.provenance.json"), made_from(forward, backward, source, column, target))
    return len(texts)


def translated(run: Run, texts: list[str], trust: bool) -> list[str]:
    """What a run makes of each text."""
    with TemporaryDirectory() as folder:
        source, output = Path(folder) / "input.jsonl", Path(folder) / "output.parquet"
        source.write_text("".join(json.dumps({"source": text}) + "\n" for text in texts), encoding="utf-8")
        predict(run, str(source), str(output), overrides=["data.columns={source: source}"], trust_remote_code=trust)
        found: list[str] = pq.read_table(output).column("prediction").to_pylist()
    return found


def made_from(forward: Run, backward: Run, source: str, column: str, target: Path) -> dict[str, Any]:
    """Where paraphrases come from."""
    runs = {
        name: {"path": str(run.path), "result_sha256": file_sha256(run.path / "result.json")}
        for name, run in (("forward", forward), ("backward", backward))
    }
    return {
        **runs,
        "input": {"path": source, "column": column, "sha256": file_sha256(source)},
        "output_sha256": file_sha256(target),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
