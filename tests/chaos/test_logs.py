"""Log files of runs: lines, and no progress bars."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from research.cluster.devices import fast_precision


@pytest.mark.slow
@pytest.mark.process
def test_log_has_lines_alone(experiment: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "research.cli", "train", str(experiment), f"run_dir={tmp_path / 'run'}"]
    done = subprocess.run([*command, "data.max_length=31"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert "%|" not in done.stderr and "\r" not in done.stderr and "it/s" not in done.stderr
    assert any(line.startswith("1 rank on 1 node, on ") and line.endswith(fast_precision("auto")) for line in lines)
    evaluations = [line for line in lines if "  validation  accuracy " in line and line.startswith("step ")]
    assert len(evaluations) == 2 and all(len(line) <= 100 for line in evaluations)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] != []
