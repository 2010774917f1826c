"""The command `research train` on small files, and the one line with which it refuses what is bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research.cli import main
from research.tracking.run import Run
from tests.conftest import write_jsonl


class Command:
    """`research train` on a small file, in this process."""

    def __init__(self, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.model, self.capsys = folder, model, capsys
        self.run = folder / "run"

    def file(self, name: str, content: str | bytes | list[dict[str, Any]]) -> Path:
        path = self.folder / name
        if isinstance(content, list):
            return write_jsonl(path, content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def experiment(self, task: str, data: str | Path, model: str | Path | None = None) -> Path:
        content = {
            "task": task,
            "model": {"name": str(model or self.model)},
            "data": {"train": str(data), "max_length": 32},
            "trainer": {"precision": "fp32", "devices": 1},
            "optim": {"epochs": 1, "batch_size": 4},
            "wandb": {"mode": "disabled"},
            "run_dir": str(self.run),
        }
        return self.file("mine.yaml", json.dumps(content))

    def __call__(
        self, task: str, data: str | Path, *overrides: str, model: str | Path | None = None
    ) -> tuple[int, str]:
        """Exit code and standard error."""
        self.capsys.readouterr()
        code = main(["train", str(self.experiment(task, data, model)), *overrides])
        return code, self.capsys.readouterr().err

    def refused(self, task: str, data: str | Path, *overrides: str, model: str | Path | None = None) -> str:
        """The one line of a refusal, after which the run folder holds no more than its config."""
        code, said = self(task, data, *overrides, model=model)
        lines = [line for line in said.splitlines() if line.startswith("research: ")]
        assert (code, len(lines)) == (2, 1), said
        assert said.endswith(lines[0] + "\n") and "Traceback" not in said
        self.holds_nothing_half_written()
        return lines[0].removeprefix("research: ")

    def holds_nothing_half_written(self) -> None:
        written = (
            {p.name for p in self.run.rglob("*") if p.is_file() and p.stat().st_size} if self.run.exists() else set()
        )
        assert written <= {"config.yaml", ".lock"}

    def trains(self, task: str, data: str | Path, *overrides: str, model: str | Path | None = None) -> dict[str, Any]:
        code, said = self(task, data, *overrides, model=model)
        assert code == 0, said
        result = Run.read(self.run).result
        assert result is not None
        return result
