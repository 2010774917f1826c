"""A user's own task and callback, by path: trained with, kept in the run, and noticed where they change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from research.common.errors import UserError
from research.report.compare import compare_runs
from research.report.grouping import group_runs
from research.report.records import read_records
from research.tracking.run import Run
from tests.attempts import attempt
from tests.conftest import copied, write_experiment, write_jsonl

pytestmark = pytest.mark.slow
TASK = """
from research.tasks.classification import Data as Classification
from research.tasks.classification import Module

class Data(Classification):
    def encode(self, rows):
        return super().encode({**rows, "text": [text.lower() for text in rows["text"]]})
"""
CALLBACK = """
from dataclasses import dataclass
from pathlib import Path

import lightning as L

from research.config.component import key

@dataclass
class Keys:
    file: str = key("steps.txt", "where the steps are written")

class Callback(L.Callback):
    def __init__(self, keys):
        self.path = Path(keys.file)

    def on_train_batch_end(self, trainer, module, *batch):
        with open(self.path, "a") as file:
            print(module.step, file=file)
"""
BROKEN = CALLBACK + "        if module.step == 4:\n            raise RuntimeError('no space for another step')\n"


@pytest.fixture
def experiment(tmp_path: Path, tiny_model: Path, forkserver: None) -> Path:
    """Eight steps of a user's task, saved each, with a user's callback."""
    (tmp_path / "my_task.py").write_text(TASK)
    (tmp_path / "count_steps.py").write_text(CALLBACK)
    rows = [{"text": text, "label": label} for text, label in (("Good film", "a"), ("Bad book", "b")) * 8]
    data = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    return write_experiment(
        tmp_path / "mine.yaml",
        "./my_task.py",
        tiny_model,
        {"train": data, "validation": copied(data), "test": copied(data, "test"), "max_overlap": 1.0},
        callbacks={"./count_steps.py": {"file": str(tmp_path / "steps.txt")}},
        optim={"max_steps": 8, "batch_size": 4, "lr": 1e-3},
        trainer={"checkpoint_every_steps": 1, "log_every_steps": 1},
    )


def train(experiment: Path, name: str, *overrides: str) -> tuple[int, str, Run]:
    run = Run(experiment.parent / "runs" / name)
    command = ["train", str(experiment), f"run_dir={run.path}", *overrides]
    return *attempt(command, experiment.parent / "log"), run


def scores(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics()]


def test_own_files_are_kept_and_a_change_is_reported_or_refused(experiment: Path) -> None:
    task, callback = experiment.parent / "my_task.py", experiment.parent / "count_steps.py"
    steps = experiment.parent / "steps.txt"
    code, output, reference = train(experiment, "reference")
    assert code == 0, output
    assert steps.read_text().split() == list(map(str, range(1, 9)))
    reported = reference.provenance["attempts"][0]["components"]
    assert {name: (reference.path / each["copy"]).read_text() for name, each in reported.items()} == {
        "task my_task": TASK, "callback count_steps": CALLBACK,
    }  # fmt: skip

    steps.unlink()
    callback.write_text(BROKEN)
    code, output, run = train(experiment, "failed", "seed=0")
    assert code == 1 and "no space for another step" in output
    callback.write_text(CALLBACK)
    task.write_text(TASK.replace("text.lower()", "text.split()[0]"))
    code, output, run = train(experiment, "failed")
    assert code == 2 and "cannot be resumed here" in output and "encoded examples: {'train': '" in output, output
    assert "Restore the data, model or code it was made with" in output and "Traceback" not in output

    task.write_text("# reads lower case\n" + TASK)
    code, output, run = train(experiment, "failed")
    assert code == 0 and "The file of callback count_steps was changed since the last attempt (sha256 " in output
    assert "The file of task my_task was changed" in output, output
    assert scores(run) == scores(reference) and len(list((run.path / "code").iterdir())) == 4
    assert steps.read_text().split() == list(map(str, range(1, 9)))  # step 4 was saved before the callback failed
    with pytest.raises(UserError, match=r"the file of task my_task: \w{12}…(, then \w{12}…)? \| \w{12}…"):
        group_runs(read_records([reference.path, run.path]))
    code, output, other = train(experiment, "other", "seed=1", "optim.lr=2e-3")
    said = compare_runs(read_records([reference.path]), read_records([other.path]), resamples=50).notes
    of_files = [note for note in said if " files of " in note]
    assert len(of_files) == 1, said
    assert re.search(r"different files of task my_task \(sha256 \w{12} and \w{12}\)", of_files[0]), output
