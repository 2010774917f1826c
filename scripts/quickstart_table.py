"""One table over the quickstart's run folders."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

table = Table(title="Quickstart: all-MiniLM-L6-v2 on the shipped data", title_justify="left")
for name in ("task", "score", "validation", "test", "seconds"):
    table.add_column(name, justify="left" if name in ("task", "score") else "right")
for path in sorted(Path(sys.argv[1]).glob("*/seed0/result.json")):
    result = json.loads(path.read_text(encoding="utf-8"))
    score = result["monitor"]
    values = [f"{result['metrics'][split][score]:.3f}" for split in ("validation", "test")]
    table.add_row(result["task"], score, *values, f"{result['train_seconds']:.0f}")
Console().print(table)
