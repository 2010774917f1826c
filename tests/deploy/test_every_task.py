"""Every task is served as it was scored: the answer to a row is that of the predictions file."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from research.common.errors import UserError
from research.config import component
from research.inference.predictor import Predictor, trained_of
from tests.tasks.test_conformance import ONES, run_of


@pytest.mark.slow
@pytest.mark.parametrize("task", ONES)
def test_answers_are_those_of_the_predictions_file(task: str, tmp_path: Path) -> None:
    run, _ = run_of(task, tmp_path)
    if not component.load("task", task).Data.answers_alone:
        with pytest.raises(UserError, match="answers for all rows of a file together: use research predict"):
            Predictor(trained_of(run))
        return
    predictor = Predictor(trained_of(run))
    lines = Path(str(run.config.data.test)).read_text().splitlines()
    questions = []
    for row in map(json.loads, lines):
        fields = {predictor.config.data.columns.get(field, field) for field in predictor.fields}
        columns = {usual for field, usual in predictor.data.fields.items() if field in predictor.fields}
        questions.append(predictor.question({k: v for k, v in row.items() if k in fields | columns}))
    recorded = pq.read_table(run.predictions / "test.parquet").to_pylist()
    together = predictor.answer(questions)
    assert len(together) == len(recorded) == 8
    for question, answer, row in zip(questions, together, recorded, strict=True):
        expected = row["prediction"]
        expected = pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected
        assert answer["prediction"] == expected
        assert predictor.answer([question])[0]["prediction"] == expected  # alone
