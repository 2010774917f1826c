"""A run that writes text, killed in a step and in the middle of an evaluation, ends as one that nothing interrupts."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from research.tracking.run import Run
from tests.attempts import Attempt, attempt
from tests.conftest import copied, write_jsonl
from tests.tasks.test_translation import make_model, rows
from tests.tasks.text_experiments import CHAT
from tests.training.test_resume import command, content, has_evaluated, last_step, steps_saved

pytestmark = pytest.mark.slow
STEPS_PER_EPOCH, STEPS = 6, 12
# Kills its own process at the second micro-batch of an evaluation, once, where the file `armed` is beside it.
KILLS = """
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import lightning as L


@dataclass
class Keys:
    pass


class Callback(L.Callback):
    def __init__(self, keys):
        self.armed = Path(__file__).with_name("armed")

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 1 and self.armed.exists():
            self.armed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def chats(count: int) -> list[dict[str, Any]]:
    pairs = rows(count)
    return [
        {"conversations": [{"from": "human", "value": pair["source"]}, {"from": "gpt", "value": pair["target"]}] * 2}
        for pair in pairs
    ]


def experiment(folder: Path, kind: str) -> Path:
    """Translation by an encoder-decoder, dialogue by a decoder, with dropout."""
    model = make_model(folder / kind, kind)
    (folder / "chat.jinja").write_text(CHAT)
    of_decoder = kind == "gpt2"
    task: dict[str, Any] = {"name": "dialogue", "chat_template": str(folder / "chat.jinja")} if of_decoder else {}
    content = {
        "task": {"name": "translation", "max_new_tokens": 24, "max_target_tokens": 12, **task},
        "model": {"name": str(model)},
        "data": {"max_length": 80, "max_overlap": 1.0},
        "optim": {"epochs": 2, "batch_size": 4, "lr": 1e-3},
        "trainer": {"devices": 1, "log_every_steps": 1, "checkpoint_every_steps": 2, "tokens_per_microbatch": 128},
        "wandb": {"mode": "disabled"},
        "callbacks": {str(folder / "kills.py"): {}},
    }
    (folder / "kills.py").write_text(KILLS)
    file = str(write_jsonl(folder / "rows.jsonl", chats(24) if of_decoder else rows(24)))
    content["data"] |= {"train": file, "validation": copied(file), "test": copied(file, "test")}
    path = folder / "e.yaml"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("kind", ["bart", "gpt2"])
def test_killed_in_a_step_and_in_an_evaluation(kind: str, tmp_path: Path, forkserver: None) -> None:
    path, log = experiment(tmp_path, kind), tmp_path / "log"
    code, said = attempt(command(path, tmp_path / "whole"), tmp_path / "whole.log")
    assert code == 0, said
    run = Run(tmp_path / "cut")
    started = Attempt(command(path, run.path), log)
    assert started.until(lambda: last_step(run) >= 3)
    started.kill()
    (tmp_path / "armed").touch()
    code, said = attempt(command(path, run.path), log)
    assert code == -signal.SIGKILL, said
    assert STEPS_PER_EPOCH in steps_saved(run)  # saved before its evaluation, which generates
    assert last_step(run) == STEPS_PER_EPOCH and not has_evaluated(run, STEPS_PER_EPOCH)
    code, said = attempt(command(path, run.path), log)
    assert code == 0, said
    found, expected = content(Run.read(run.path)), content(Run.read(tmp_path / "whole"))
    for part in ("metrics", "result", "predictions", "weights"):
        assert found[part] == expected[part], part
    assert len([row for row in expected["metrics"] if "train/loss" in row]) == STEPS
