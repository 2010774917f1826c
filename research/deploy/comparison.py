"""How far an exported folder differs from its run, and what is too far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from research.common.errors import UserError
from research.inference.predictor import Predictor, Question
from research.report.records import read_record
from research.tracking import predictions
from research.tracking.run import Run

CLOSE = {"fp32": 1e-4, "bf16": 0.5}  # largest difference of a logit from the run's own
TEXTS = 32  # that are compared, in four shapes


@dataclass(frozen=True)
class Difference:
    """How an export differs from its run."""

    logits: float  # the largest difference of one
    examples: int = 0  # validation or test examples that were labelled again
    labels_changed: int = 0
    run_scores: dict[str, float] | None = None
    scores: dict[str, float] | None = None
    not_covered: int = 0  # of the examples: those that a smaller vocabulary splits otherwise


def compared(run: Run, predictor: Predictor, exported: Predictor, all_labels: bool) -> Difference:
    """Compare an export with its run: logits on real texts of four shapes, `all_labels` where some may differ."""
    split = "validation" if (run.predictions / "validation.parquet").is_file() else "test"
    path = run.predictions / f"{split}.parquet"
    if not path.is_file():
        raise UserError(f"The run {run.path} has no predictions to compare an export with; train it with validation.")
    table = predictions.read(path)
    rows = table.to_pylist()
    fields = [field for field in predictor.fields if field in table.column_names]
    given = [{field: row[field] for field in fields if row[field] is not None} for row in rows]
    pairs = [(predictor.question(row), exported.question(row)) for row in given]
    covered = [pair for pair in pairs if pieces_of(predictor, pair[0]) == pieces_of(exported, pair[1])]
    if not covered:
        raise UserError(f"the tokenizer of the export splits every text of {path} otherwise; nothing was written.")
    for each in (predictor, exported):
        each.module.backbone.reads_alone = False  # an engine gives the logits of every token
    largest = 0.0
    for shape in shapes_of(covered):
        mine, theirs = (
            numbers_of(each.outputs(questions)[1])
            for each, questions in zip((predictor, exported), zip(*shape, strict=True), strict=True)
        )
        largest = max(largest, *(largest_difference(x, y) for x, y in zip(mine, theirs, strict=True)))
    if not all_labels:
        return Difference(largest, not_covered=len(pairs) - len(covered))
    again = relabelled(table, exported, [pair[1] for pair in pairs])
    changed = sum(a != b for a, b in zip(table["prediction"].to_pylist(), again["prediction"].to_pylist(), strict=True))
    scores = predictions.score(table), predictions.score(again)
    return Difference(largest, len(table), changed, *scores, len(pairs) - len(covered))


def pieces_of(predictor: Predictor, question: Question) -> list[str]:
    """The tokens of a question by name."""
    columns = [name for name in question.encoded if name.split(".")[-1] == "input_ids"]
    numbers = [number for name in columns for number in question.encoded[name][0]]
    return list(predictor.data.tokenizer.convert_ids_to_tokens(numbers))


def shapes_of(pairs: Sequence[tuple[Question, Question]]) -> Iterator[list[tuple[Question, Question]]]:
    """The longest alone, the shortest alone, the eight longest, and others of all lengths."""
    by_length = sorted(pairs, key=lambda pair: pair[0].tokens)
    yield by_length[-1:]
    yield by_length[:1]
    yield by_length[-8:]
    yield by_length[:: max(1, len(by_length) // (TEXTS - 10))][: TEXTS - 10]


def numbers_of(outputs: Any) -> list[Tensor]:
    """The tensors of a head's outputs."""
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


def largest_difference(x: Tensor, y: Tensor) -> float:
    """Of two outputs, where they are finite; infinite where one of them alone is. Padding may differ in length."""
    x, y = x.float().cpu(), y.float().cpu()
    if x.shape != y.shape:
        return torch.inf
    real = torch.isfinite(x)
    if not torch.equal(real, torch.isfinite(y)):
        return torch.inf
    return float((x - y)[real].abs().max()) if real.any() else 0.0


def relabelled(table: pa.Table, exported: Predictor, questions: Sequence[Question]) -> pa.Table:
    """A predictions table with the answers of the export."""
    columns: dict[str, list[Any]] = {}
    for start in range(0, len(questions), TEXTS):
        for name, values in exported.columns(questions[start : start + TEXTS]).items():
            columns.setdefault(name, []).extend(values)
    for name, values in columns.items():
        if name in table.column_names:
            kind = table.schema.field(name).type
            table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
    return table


def refuse_difference(found: Difference, run: Run, precision: str, tolerance: float) -> None:
    """Raise UserError where an export differs from its run by more than its precision explains."""
    if precision in CLOSE and not found.logits <= CLOSE[precision]:
        raise UserError(
            f"the export differs from the run by {found.logits:.2g} in a logit, more than {CLOSE[precision]:g}; "
            "nothing was written."
        )
    if found.not_covered and found.scores is None:
        raise UserError(f"the tokenizer of the export splits {found.not_covered} texts otherwise; nothing was written.")
    if found.scores is not None and precision != "bf16":
        name = str((run.result or {})["monitor"])
        before, after = (found.run_scores or {})[name], found.scores[name]
        smaller_is_better = read_record(run.path).score_named(name).smaller_is_better
        lost = after - before if smaller_is_better else before - after
        if lost > tolerance:
            raise UserError(
                f"the export changes {found.labels_changed} of {found.examples} predictions and takes {name} from "
                f"{before:.4f} to {after:.4f}, more than --tolerance {tolerance:g}; nothing was written."
            )
