"""Tasks beside classification, NER and QA: stopped and resumed to the bit, and on two ranks what one rank gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from research.cli import main
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.small_runs import SmallRuns, assert_same_bits, assert_same_up_to_rounding
from tests.tasks.test_conformance import TASKS


def data_of(task: str, folder: Path) -> dict[str, Any]:
    row = TASKS[task][0]
    files = {
        split: str(write_jsonl(folder / f"{split}.jsonl", [row(i + 100 * k) for i in range(12)]))
        for k, split in enumerate(("train", "validation", "test"))
    }
    return {**files, "max_length": 24, "max_overlap": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["matching", "rerank", "recommendation", "ordinal", "intent_slots", "nsp"])
def test_stopped_and_resumed_is_bit_equal(task: str, small_runs: SmallRuns, tmp_path: Path) -> None:
    keys, data = ("model.dropout=0.1", "trainer.evaluate_every_steps=3"), data_of(task, tmp_path)
    reference = small_runs.train(task, *keys, data=data)
    arguments, folder = small_runs.stopped(4, task, *keys, data=data)
    assert main(arguments) == 0
    assert_same_bits(Run(folder), reference)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("task", ["ordinal", "intent_slots", "nsp"])  # others: with their own scores, in tests/tasks
def test_two_ranks_give_what_one_gives(task: str, small_runs: SmallRuns, tmp_path: Path) -> None:
    data = data_of(task, tmp_path)
    assert_same_up_to_rounding(small_runs.train_ranks(task, 2, data=data), small_runs.train(task, data=data))
