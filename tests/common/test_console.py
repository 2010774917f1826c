"""Lines of a log file: one an evaluation, the monitored score first, no wider than 100 columns."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from research.common.console import COLUMNS, StepProgress, class_table, metric_parts, within_columns


def test_evaluation_is_one_line_with_the_monitored_score_first(capsys: pytest.CaptureFixture[str]) -> None:
    progress = StepProgress(200, False, "f1")
    scores = {"validation/accuracy": 0.5, "validation/f1": 1 / 3, "validation/f1/[b]": 0.1, "validation/loss": 0.7}
    progress.log(60, scores)
    assert capsys.readouterr().err == "step 60/200  validation  f1 0.3333*  accuracy 0.5  loss 0.7\n"


def test_training_line_fits(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "train/loss": 1.2345678, "train/grad_norm": 12345.678, "train/lr": 0.000123456, "train/epoch": 2.0,
        "time/examples_per_second": 12345.67, "time/tokens_per_second": 1234567.8, "time/step_seconds": 0.0123456,
    }  # fmt: skip
    StepProgress(100_000, False, "f1").log(99_999, row)
    [line] = capsys.readouterr().err.splitlines()
    assert len(line) <= COLUMNS and line.endswith("examples/s 12346  tokens/s 1234568")


def test_what_does_not_fit_is_left_out() -> None:
    parts = metric_parts({f"validation/score_{i}": 0.123456 for i in range(30)}, "score_17")
    line = within_columns(["step 1/2", *parts])
    assert len(line) <= 100 and line.startswith("step 1/2  validation  score_17 0.1235*  score_0 0.1235")


def test_counts_by_class_are_integers_and_a_missing_score_is_blank() -> None:
    table = class_table({"f1/a": 0.5, "support/a": 12.0, "f1/b": 0.0, "support/b": 0.0, "support/c": 3.0})
    assert table is not None
    assert [list(column.cells) for column in table.columns] == [
        ["a", "b", "c"], ["0.5000", "0.0000", ""], ["12", "0", "3"],
    ]  # fmt: skip


@pytest.mark.process
def test_a_reader_that_goes_away_ends_nothing() -> None:
    """As with `research train ... 2>&1 | head`: rich would raise SystemExit at the next line."""
    program = (
        "import sys; from research.common.console import console; sys.stdin.read()\n"
        "for _ in range(3): console.print('a line')\n"
        "print('done', flush=True)"
    )
    place: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", program], text=True, **place)
    assert process.stdin and process.stdout and process.stderr
    process.stderr.close()
    process.stdin.close()
    assert process.stdout.read() == "done\n" and process.wait() == 0
    process.stdout.close()
