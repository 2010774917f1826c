"""A run in memory answers what training has recorded, alone and among others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from research.inference.predictor import BadInput, Predictor, trained_of
from research.tracking.run import Run
from tests.conftest import make_tiny_model
from tests.small_runs import SmallRuns

TASKS = ("sentiment", "ner", "qa", "choice")


def rows_of(run: Run, predictor: Predictor) -> list[dict[str, Any]]:
    """The test rows with the fields that new text has."""
    lines = Path(str(run.config.data.test)).read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name in predictor.fields} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_answers_are_those_of_the_predictions_file(task: str, served_runs: dict[str, Run]) -> None:
    predictor = Predictor(trained_of(served_runs[task]))
    questions = [predictor.question(row) for row in rows_of(served_runs[task], predictor)]
    recorded = pq.read_table(served_runs[task].predictions / "test.parquet").to_pylist()
    together = predictor.answer(questions)
    assert [answer["prediction"] for answer in together] == [row["prediction"] for row in recorded]
    alone = [predictor.answer([question])[0] for question in questions]
    for answer, other, row in zip(together, alone, recorded, strict=True):
        assert answer["prediction"] == other["prediction"]
        for name in ("probabilities", "confidence", "no_answer_score"):
            if name in answer:
                mine, others, kept = numbers(answer[name]), numbers(other[name]), numbers(row[name])
                torch.testing.assert_close(mine, others, atol=1e-5, rtol=0)
                torch.testing.assert_close(mine, kept, atol=1e-5, rtol=0)


def numbers(value: Any) -> torch.Tensor:
    return torch.tensor(list(value.values()) if isinstance(value, dict) else value, dtype=torch.float64)


@pytest.mark.slow
def test_text_is_split_into_words_with_their_places(served_runs: dict[str, Run]) -> None:
    predictor = Predictor(trained_of(served_runs["ner"]))
    text = " Anna  saw\nOslo."
    (of_text,) = predictor.answer([predictor.question({"text": text})])
    (of_words,) = predictor.answer([predictor.question({"tokens": ["Anna", "saw", "Oslo", "."]})])
    assert [text[start:end] for start, end in of_text["offsets"]] == ["Anna", "saw", "Oslo", "."]
    assert of_text["prediction"] == of_words["prediction"] and "offsets" not in of_words


@pytest.mark.slow
def test_rows_that_cannot_be_labelled(served_runs: dict[str, Run]) -> None:
    predictor = Predictor(trained_of(served_runs["sentiment"]))
    for row, reason in (
        ({}, "the field 'text' is missing; a row needs text"),
        ({"txt": "a"}, "unknown field 'txt'; the fields are text, text_pair"),
        ({"text": 3}, "'text' must be text"),
        ({"text": None}, "the field 'text' is missing"),
        ({"text": "  \n"}, "'text' is empty"),
        ({"text": "a" * 900_000}, "'text' has 900000 characters; at most 20000 are read"),
    ):
        with pytest.raises(BadInput, match="^" + reason.replace("(", r"\(")):
            predictor.question(row)
    assert predictor.answer([predictor.question({"text": "good " * 500})])[0]["truncated"] is True


@pytest.mark.slow
def test_a_number_that_is_none_is_an_error(served_runs: dict[str, Run]) -> None:
    predictor = Predictor(trained_of(served_runs["sentiment"]))
    with torch.no_grad():
        next(predictor.module.backbone.model.classifier.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="a number that is none"):
        predictor.answer([predictor.question({"text": "good"})])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "modernbert"])
def test_other_tokenizers_and_padding_give_the_scored_answers(
    kind: str, tmp_path: Path, task_data: dict[str, dict[str, str]], request: pytest.FixtureRequest
) -> None:
    """Alone, together and padded: the tokenizer's prefix space and the padding's side and number are the run's."""
    run = SmallRuns(tmp_path, make_tiny_model(tmp_path / kind, kind), task_data, request).train("ner")
    predictor = Predictor(trained_of(run))
    padded = trained_of(run)
    padded.config.trainer.packing = False
    recorded = pq.read_table(run.predictions / "test.parquet").to_pylist()
    for each in (predictor, Predictor(padded)):
        questions = [each.question(row) for row in rows_of(run, each)]
        for answers in (each.answer(questions), [each.answer([question])[0] for question in questions]):
            assert [answer["prediction"] for answer in answers] == [row["prediction"] for row in recorded]
            for answer, row in zip(answers, recorded, strict=True):
                assert answer["confidence"] == pytest.approx(row["confidence"], abs=1e-5)


@pytest.mark.slow
def test_long_texts_lose_no_word_and_are_answered_in_windows(served_runs: dict[str, Run]) -> None:
    predictor = Predictor(trained_of(served_runs["ner"]))
    words = ["Anna", "saw", "Oslo"] * 160  # ten times max_length
    (of_words, other) = predictor.answer([predictor.question({"tokens": words}), predictor.question({"tokens": ["a"]})])
    assert len(of_words["prediction"]) == len(of_words["confidence"]) == 480 and "truncated" not in of_words
    assert len(other["prediction"]) == 1
    predictor = Predictor(trained_of(served_runs["qa"]))
    context = "Anna saw Oslo. " * 120
    (answer,) = predictor.answer([predictor.question({"question": "who saw Oslo", "context": context})])
    assert "truncated" not in answer and len(answer["n_best"]) > 1
    if answer["prediction"]:
        assert context[answer["start"] : answer["end"]] == answer["prediction"]
