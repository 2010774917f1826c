"""The tables on where numbers come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from research.report.records import read_records
from research.report.tables.provenance import models


def test_models_table_says_what_each_adapter_trains_and_stores(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for seed, adapter, trained in ((0, "full", 22_000_000), (0, "lora", 250_000), (1, "lora", 250_000)):
        path = make_run(seed=seed, config={"adapter": {"name": adapter}})
        reported = json.loads((path / "provenance.json").read_text())
        (path / "provenance.json").write_text(json.dumps({**reported, "trained_parameters": trained}))
    table = models(read_records([tmp_path / "runs"]))
    places = [table.columns.index(name) for name in ("adapter", "trained parameters", "MB a task", "finished runs")]
    shown = [[row[place].text for place in places] for row in table.rows]
    assert shown == [["full", "22,000,000", "88.0", "1"], ["lora", "250,000", "1.0", "2"]]  # 4 bytes a weight
