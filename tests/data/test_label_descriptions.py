"""Labels with descriptions: how the file is read, and that the run, its card, its service and the report have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research.cli import main
from research.common.errors import UserError
from research.config.load import load_config
from research.data.label_values import read_descriptions
from research.deploy.card import model_card
from research.report.records import read_records
from research.report.tables.labels import label_tables
from research.training.build import build as build_module
from tests.small_runs import SmallRuns


def test_every_form_of_the_file_and_what_it_lacks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    forms = {
        "a.json": '{"PER": "a person", "LOC": ""}',
        "a.yaml": "PER: a person\nLOC:\n",
        "a.tsv": "PER\ta person\nLOC\t\n",
    }
    for name, content in forms.items():
        (tmp_path / name).write_text(content)
        caplog.clear()
        assert read_descriptions(str(tmp_path / name), ["B-LOC", "B-PER", "I-PER", "O"]) == {"PER": "a person"}
        assert caplog.messages == [f"{tmp_path / name} has no description of 1 labels: B-LOC."]
    caplog.clear()
    (tmp_path / "more.csv").write_text("a,one\nb,two\nc,three\n")
    assert read_descriptions(str(tmp_path / "more.csv"), ["a"]) == {"a": "one", "b": "two", "c": "three"}
    assert caplog.messages == [f"{tmp_path / 'more.csv'} describes what is no label: b, c."]
    assert read_descriptions(None, ["a"]) == {}
    (tmp_path / "twice.csv").write_text("a,one\na,two\n")
    with pytest.raises(UserError, match=r"twice\.csv, line 2: 'a' is there twice"):
        read_descriptions(str(tmp_path / "twice.csv"), ["a"])
    with pytest.raises(UserError, match=r"data\.label_descriptions=.*a\.txt: its suffix must be one of"):
        read_descriptions(str(tmp_path / "a.txt"), ["a"])


@pytest.mark.slow
def test_a_run_tells_what_its_labels_mean(small_runs: SmallRuns, tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"positive": "liked it", "negative": "did not"}))
    plain = small_runs.train("sentiment")
    run = small_runs.train("sentiment", f"data.label_descriptions={file}")
    assert run.result is not None and plain.result is not None
    assert run.result["learned"]["descriptions"] == {"positive": "liked it", "negative": "did not"}
    assert run.result["metrics"] == plain.result["metrics"] and "descriptions" not in plain.result["learned"]
    file.unlink()  # the run has them
    assert main(["evaluate", str(run.path)]) == 0
    assert "- `positive`: liked it" in model_card(run, "a model", "safetensors", "fp32", None)
    assert "negative, positive." in model_card(plain, "a model", "safetensors", "fp32", None)
    [table] = label_tables(read_records([run.path, plain.path]))
    assert [[cell.text for cell in row] for row in table.rows] == [["positive", "liked it"], ["negative", "did not"]]
    assert main(["report", str(run.path), "--output", str(tmp_path / "report")]) == 0
    assert "liked it" in (tmp_path / "report" / "index.html").read_text()


def test_a_task_without_labels_takes_no_descriptions(small_runs: SmallRuns, tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    file.write_text('{"a": "b"}')
    (_, path, *given), _ = small_runs.arguments("qa", (f"data.label_descriptions={file}",), {})
    with pytest.raises(UserError, match=r"task 'qa' has no classes for data\.label_descriptions; remove the key"):
        build_module(load_config(path, given))
