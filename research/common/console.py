"""What a person sees: a progress bar in a terminal, plain lines in a log file, a table at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class LastingConsole(Console):
    """A console whose reader may go away, as with `2>&1 | head`: the work continues without it."""

    def on_broken_pipe(self) -> None:
        self.quiet = True  # rich would end the process


# Labels, paths and messages are shown as they are: `[/b]` and `:smile:` are text.
# In a notebook too they are text: as a display of its own, each line would be a part of the document.
COLUMNS = 100  # of a log file
console = LastingConsole(
    stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True, force_jupyter=False,
    width=None if sys.stderr.isatty() or "COLUMNS" in os.environ else COLUMNS,
)  # fmt: skip

SHORT_NAMES = {
    "time/examples_per_second": "examples/s", "time/tokens_per_second": "tokens/s", "time/step_seconds": "s/step",
}  # fmt: skip


class StepProgress:
    """Progress over optimiser steps, on rank zero."""

    def __init__(self, total_steps: int, show: bool | str, monitor: str = "") -> None:
        self.total_steps, self.monitor = total_steps, monitor
        self.bar: Progress | None = None
        if show is True or (show == "auto" and sys.stderr.isatty()):
            place = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            columns = (TextColumn("training"), *place, TextColumn("{task.description}", markup=False))
            self.bar = Progress(*columns, console=console, refresh_per_second=4)
            self.task = self.bar.add_task("", total=total_steps)

    def start(self, step: int) -> None:
        if self.bar is not None:
            self.bar.start()
            self.bar.update(self.task, completed=step)

    def advance(self, step: int) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=step)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One row of metrics: beside the bar, or as a line; of an evaluation the monitored score first, with a star."""
        parts = metric_parts(scalars, self.monitor)
        if self.bar is not None and any(name.startswith("train/") for name in scalars):
            self.bar.update(self.task, description="  ".join(parts))
        else:
            console.print(within_columns([f"step {step}/{self.total_steps}", *parts]))

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def metric_parts(scalars: Mapping[str, float], monitor: str) -> list[str]:
    """The scalars of a row in few words; those of single classes and the epoch are left out."""
    shown = {name: value for name, value in scalars.items() if name.count("/") == 1 and name != "train/epoch"}
    splits = {name.partition("/")[0] for name in shown} & {"validation", "sample"}
    first = [name for split in splits if (name := f"{split}/{monitor}") in shown]
    parts = sorted(splits)
    for name in dict.fromkeys([*first, *shown]):
        word = SHORT_NAMES.get(name, name.partition("/")[2])
        value = shown[name]
        text = f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
        parts.append(f"{word} {text}{'*' if name in first else ''}")
    return parts


def within_columns(parts: Sequence[str]) -> str:
    """As many parts, in order, as one line of a log file takes."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) > COLUMNS:
            break
        line += f"  {part}"
    return line


def print_scores(
    metrics: Mapping[str, Mapping[str, float]],
    labels: Mapping[str, str] | None = None,
    beside: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """The scores of the splits side by side, and `beside` them others, then the last split's by class.

    `labels`: what a paper calls a score.
    """
    console.print(score_table({**metrics, **(beside or {})}, labels or {}))
    classes = class_table([{}, *filter(None, metrics.values())][-1])
    if classes is not None:
        console.print(classes)


def score_table(metrics: Mapping[str, Mapping[str, float]], labels: Mapping[str, str]) -> Table:
    """Scores of the splits side by side, as `f1 (macro F1)` where a score has a label of another name."""
    splits = [name for name, scores in metrics.items() if scores]
    table = Table(title="Scores", title_justify="left")
    table.add_column("score", overflow="fold")
    for split in splits:
        table.add_column(split, justify="right")
    names = dict.fromkeys(name for split in splits for name in metrics[split] if "/" not in name)
    for name in names:
        label = labels.get(name, name)
        same = label.lower() == name.replace("_", " ")
        table.add_row(name if same else f"{name} ({label})", *(_number(metrics[split].get(name)) for split in splits))
    return table


def class_table(scores: Mapping[str, float]) -> Table | None:
    """The scores of one split by class (`f1/PER`), None for a task without classes. A column above 1 holds counts."""
    by_class = {name: value for name, value in scores.items() if "/" in name}
    if not by_class:
        return None
    parts, classes = (dict.fromkeys(name.split("/", 1)[i] for name in by_class) for i in range(2))
    counted = {name.split("/", 1)[0] for name, value in by_class.items() if value > 1}
    table = Table(title="Per class", title_justify="left")
    table.add_column("class")
    for part in parts:
        table.add_column(part, justify="right")
    for label in classes:
        values = {part: by_class.get(f"{part}/{label}") for part in parts}
        table.add_row(label, *(_number(v, 0 if part in counted else 4) for part, v in values.items()))
    return table


def _number(value: Any, digits: int = 4) -> str:
    return "" if value is None else f"{value:z.{digits}f}"
