"""Tables over the quickstart's run folders: scores, and summaries before and after training."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

SHOWN = 3  # dialogues


def scores(runs: Path) -> Table:
    table = Table(title="Quickstart: MiniLM and SmolLM2 on the shipped data", title_justify="left")
    for name in ("task", "score", "validation", "test", "seconds"):
        table.add_column(name, justify="left" if name in ("task", "score") else "right")
    for path in sorted(runs.glob("*/seed0/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        score = result["monitor"]
        values = [f"{result['metrics'][split][score]:.3f}" for split in ("validation", "test")]
        table.add_row(result["task"], score, *values, f"{result['train_seconds']:.0f}")
    return table


def summaries(untrained: Path, trained: Path) -> Table:
    """The first test dialogues with what the decoder wrote of them."""
    table = Table(title="Summaries of test dialogues, before and after training", title_justify="left", show_lines=True)
    for name in ("dialogue", "before", "after", "by a person"):
        table.add_column(name, ratio=3 if name == "dialogue" else 2)
    before, after = (pq.read_table(run / "predictions" / "test.parquet").to_pylist() for run in (untrained, trained))
    for old, new in list(zip(before, after, strict=True))[:SHOWN]:
        gold = new["gold"] if isinstance(new["gold"], str) else new["gold"][0]
        table.add_row(new["source"], old["prediction"], new["prediction"], gold)
    return table


runs = Path(sys.argv[1])
console = Console()
console.print(scores(runs))
console.print(summaries(runs / "untrained" / "dialogue", runs / "dialogue" / "seed0"))
