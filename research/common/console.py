"""What a person sees: a progress bar in a terminal, plain lines in a log file, a table at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

# Labels, paths and messages are shown as they are: `[/b]` and `:smile:` are text.
console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


class StepProgress:
    """Progress over optimiser steps, on rank zero."""

    def __init__(self, total_steps: int, show: bool | str) -> None:
        self.total_steps = total_steps
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
        """One row of metrics: beside the bar, or as a line."""
        shown = {
            name.removeprefix("train/").removeprefix("time/"): f"{value:.4g}"
            for name, value in scalars.items()
            if name.count("/") == 1 and name != "train/epoch"
        }
        text = "  ".join(f"{name} {value}" for name, value in shown.items())
        if self.bar is not None and any(name.startswith("train/") for name in scalars):
            self.bar.update(self.task, description=text)
        else:
            console.print(f"step {step}/{self.total_steps}  {text}")

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def print_scores(metrics: Mapping[str, Mapping[str, float]]) -> None:
    """The scores of the splits side by side, then the last split's by class."""
    console.print(score_table(metrics))
    classes = class_table([{}, *filter(None, metrics.values())][-1])
    if classes is not None:
        console.print(classes)


def score_table(metrics: Mapping[str, Mapping[str, float]]) -> Table:
    """Scores of the splits side by side."""
    splits = [name for name, scores in metrics.items() if scores]
    table = Table(title="Scores", title_justify="left")
    table.add_column("score")
    for split in splits:
        table.add_column(split, justify="right")
    names = dict.fromkeys(name for split in splits for name in metrics[split] if "/" not in name)
    for name in names:
        table.add_row(name, *(_number(metrics[split].get(name)) for split in splits))
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
        table.add_row(label, *(f"{v:.0f}" if part in counted else _number(v) for part, v in values.items()))
    return table


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"
