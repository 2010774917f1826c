"""What a service imports before its first answer: nothing of training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from research.tracking.run import Run

CODE = """
import json, sys
from research.common.process import prepare_process
prepare_process(trains=False)
from research.deploy.server import serve
from research.deploy.service import predictor_at
from pathlib import Path
predictor = predictor_at(Path(sys.argv[1]), None)
(answer,) = predictor.answer([predictor.question({"text": "good"})])
heavy = {"lightning", "pytorch_lightning", "torchmetrics", "datasets", "wandb", "optuna", "fastapi", "rich.console"}
heavy |= {"scipy.stats", "matplotlib"}
print(json.dumps([answer["prediction"], sorted(heavy & sys.modules.keys())]))
"""


@pytest.mark.slow
@pytest.mark.process
def test_a_service_answers_without_lightning_and_datasets(served_runs: dict[str, Run], tmp_path: Path) -> None:
    run = served_runs["sentiment"].path
    done = subprocess.run([sys.executable, "-c", CODE, str(run)], capture_output=True, text=True, check=True)
    prediction, imported = json.loads(done.stdout.splitlines()[-1])
    assert imported == [] and prediction in ("positive", "negative")
