"""Paraphrases by two translation runs: there and back, made once, with what they were made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research.cli import main
from research.data.augment.paraphrase import read_paraphrases
from research.data.source import file_sha256
from tests.conftest import write_jsonl
from tests.small_runs import SmallRuns
from tests.tasks.test_translation import experiment, rows


@pytest.mark.slow
def test_texts_are_translated_there_and_back_once(
    small_runs: SmallRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for name, data in (
        ("forward", rows(40)),
        ("backward", [{"source": r["target"], "target": r["source"]} for r in rows(40)]),
    ):
        (tmp_path / name).mkdir()
        path = experiment(tmp_path / name, "bart", data)
        assert main(["train", str(path), "optim.epochs=12"]) == 0
        runs.append(str(tmp_path / name / "run"))
    texts = ["good film", "river", "good film", "", "book city"]
    source = write_jsonl(
        tmp_path / "train.jsonl", [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts)]
    )
    output = tmp_path / "back.jsonl"
    command = ["paraphrase", *runs, "--input", str(source), "--output", str(output)]
    assert main(command) == 0
    made = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in made] == ["good film", "river", "book city"]
    there_and_back = list(made)
    for run, column in ((runs[0], "text"), (runs[1], "paraphrase")):
        given = write_jsonl(tmp_path / "step.jsonl", [{"source": row[column]} for row in there_and_back])
        assert main(["predict", run, "--input", str(given), "--output", str(tmp_path / "out.jsonl")]) == 0
        found = [json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        there_and_back = [{"paraphrase": text} for text in found]
    assert [row["paraphrase"] for row in made] == [row["paraphrase"] for row in there_and_back]
    facts = json.loads((tmp_path / "back.jsonl.provenance.json").read_text())
    assert facts["output_sha256"] == file_sha256(output) and facts["input"]["sha256"] == file_sha256(source)
    assert facts["forward"]["result_sha256"] == file_sha256(Path(runs[0]) / "result.json")

    assert main(command) == 2
    assert "back.jsonl is there already; remove it to make the paraphrases again" in capsys.readouterr().err
    other = small_runs.train("sentiment", "optim.max_steps=1")
    assert main(["paraphrase", str(other.path), runs[1], "--input", str(source), "--output", str(tmp_path / "x")]) == 2
    assert "is a run of task 'classification'; a paraphrase takes two of translation" in capsys.readouterr().err

    augment = {"paraphrase": {"file": str(output), "share": 1.0}}
    if read_paraphrases(output):  # the small models may give back what they were given
        write_jsonl(
            tmp_path / "labelled.jsonl", [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts) if text]
        )
        files = {"train": str(tmp_path / "labelled.jsonl")}
        trained = small_runs.train("sentiment", "optim.max_steps=2", data=files, augment=augment)
        assert (trained.result or {})["steps"] == 2
