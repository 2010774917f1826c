"""Small experiments of four tasks, trained by the real command in this process or on several ranks."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor

from research.cli import main
from research.cluster.signals import STOPPED
from research.tracking.run import Run
from research.training.callbacks.checkpointing import Checkpointing
from tests.attempts import attempt_ranks
from tests.conftest import WORDS, write_jsonl

TASKS = ("sentiment", "ner", "qa", "choice")


@dataclass
class SmallRuns:
    """`train(task, overrides, section=...)` trains 6 steps of 4 examples, fp32, without dropout. Returns the run."""

    folder: Path
    model: Path
    data: dict[str, dict[str, str]]
    request: pytest.FixtureRequest

    def arguments(self, task: str, overrides: Sequence[str], sections: dict[str, Any]) -> tuple[list[str], Path]:
        place = self.folder / f"run-{len(list(self.folder.iterdir()))}"
        place.mkdir()
        files = choices(self.folder.parent) if task == "choice" else self.data.get(task, self.data["sentiment"])
        content = {
            "task": task,
            "model": {"name": str(self.model), "dropout": 0.0},
            "data": {"max_length": 48, **files},
            "optim": {"batch_size": 4, "lr": 5e-3, "max_steps": 6, "weight_decay": 0.1, "eps": 1e-6},
            "trainer": {"log_every_steps": 1, "precision": "fp32", "progress": False},
            "wandb": {"mode": "disabled"},
            **sections,
        }
        if "tasks" in sections:  # several at once, which the files of the tasks describe
            del content["task"], content["data"]
        (place / "experiment.yaml").write_text(json.dumps(content))
        return ["train", str(place / "experiment.yaml"), f"run_dir={place / 'run'}", *overrides], place / "run"

    def train(self, task: str, *overrides: str, **sections: Any) -> Run:
        arguments, folder = self.arguments(task, overrides, sections)
        assert main(arguments) == 0
        return Run(folder)

    def train_ranks(self, task: str, ranks: int, *overrides: str, **sections: Any) -> Run:
        """On several ranks, which talk by gloo."""
        self.request.getfixturevalue("forkserver")
        layout = (f"trainer.devices={ranks}", "trainer.accelerator=cpu", "trainer.strategy=ddp")
        arguments, folder = self.arguments(task, (*layout, *overrides), sections)
        code, output = attempt_ranks(arguments, ranks, folder.parent / "log")
        assert code == 0, output[-4000:]
        assert Run(folder).provenance["attempts"][0]["ranks"] == ranks
        return Run(folder)

    def stopped(self, step: int, task: str, *overrides: str, **sections: Any) -> tuple[list[str], Path]:
        """Training that a signal stopped after so many steps: the arguments that resume it, and the run folder."""
        arguments, folder = self.arguments(task, overrides, sections)
        stop_after(step, arguments)
        return arguments, folder


def stop_after(steps: int, arguments: list[str]) -> None:
    """The command, stopped by a signal after so many steps of all its runs."""
    real, done = Checkpointing._agreed, []

    def stopping(callback: Checkpointing, step_done: int) -> list[bool]:
        done.append(step_done)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(callback, step_done)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpointing, "_agreed", stopping)
        assert main(arguments) == STOPPED and len(done) == steps


def choices(folder: Path) -> dict[str, str]:
    """Files of a multiple-choice task, with 2 to 4 choices an example."""
    for split, count in (("train", 40), ("validation", 21), ("test", 13)):
        rows = []
        for i in range(count):
            words = [WORDS[(i * 7 + k * 3) % len(WORDS)] for k in range(4 + i % 5)]
            several = [f"{word} {i % 3}" for word in words[: 2 + i % 3]]
            rows.append({"text": " ".join(words), "choices": several, "label": i % len(several)})
        write_jsonl(folder / f"choice-{split}.jsonl", rows)
    return {split: str(folder / f"choice-{split}.jsonl") for split in ("train", "validation", "test")}


def losses(run: Run) -> list[float]:
    return [row["train/loss"] for row in run.metrics() if "train/loss" in row]


def weights(run: Run) -> dict[str, Tensor]:
    """Of the exported model; without the keys' biases, which AdamW makes of rounding: their gradient is zero."""
    return {name: w for name, w in load_file(run.model / "model.safetensors").items() if "key.bias" not in name}


def assert_same_bits(got: Run, expected: Run) -> None:
    assert losses(got) == losses(expected)
    mine, theirs = weights(got), weights(expected)
    assert mine.keys() == theirs.keys() and all(bool((mine[name] == w).all()) for name, w in theirs.items())
    assert (got.result or {})["metrics"] == (expected.result or {})["metrics"]


# Their true gradient is zero, for a softmax does not feel a common shift: AdamW makes steps of rounding noise.
WITHOUT_GRADIENT = {
    "extractive_qa": "qa_outputs.bias",
    "multiple_choice": "classifier.bias",
    "rerank": "classifier.bias",
}


def assert_same_up_to_rounding(got: Run, expected: Run) -> None:
    np.testing.assert_allclose(losses(got), losses(expected), rtol=2e-5)
    mine, theirs = weights(got), weights(expected)
    assert mine.keys() == theirs.keys()
    for name, weight in theirs.items():
        if name != WITHOUT_GRADIENT.get((expected.result or {})["task"]):
            difference = float((mine[name] - weight).abs().max())
            assert difference <= 5e-5, f"{name}: {difference:.1e}"  # of the 0.03 that AdamW moves a weight at most
