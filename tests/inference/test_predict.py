"""New text from a file read in its own way, from the command line and from standard input."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

from research.cli import main
from tests.conftest import write_experiment, write_jsonl

ROWS = [{"review": f"{word} film", "stars": label} for word, label in [("good", "pos"), ("bad", "neg")] * 6]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    """A run on columns `review` and `stars` of a file in another encoding whose name says nothing."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "mine.train").write_bytes(
        b"review;stars\n" + "".join(f"{r['review']} é;{r['stars']}\n" for r in ROWS).encode("cp1252")
    )
    data = {
        "train": str(folder / "mine.train"), "format": "csv", "encoding": "cp1252", "max_length": 32,
        "columns": {"text": "review", "label": "stars"},
    }  # fmt: skip
    write_experiment(folder / "e.yaml", "sentiment", tiny_model, data, optim={"epochs": 1, "batch_size": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        assert main(["train", str(folder / "e.yaml")]) == 0
        yield folder / "run"


def labelled(capsys: pytest.CaptureFixture[str], *arguments: Any) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["predict", *map(str, arguments)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    assert main(["predict", *map(str, arguments)]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_texts_of_the_command_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = labelled(capsys, run, "--text", "good film é", "--text", "bad, film")
    assert [row["text"] for row in rows] == ["good film é", "bad, film"]
    assert all(row["prediction"] in ("pos", "neg") and "gold" not in row for row in rows)


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    "given",
    [
        "good film\n\nbad film\n",
        '{"review": "good film"}\n{"review": "bad film"}\n',
        '[{"review": "good film"}, {"review": "bad film"}]',
    ],
)
def test_standard_input(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given.encode())))
    assert [row["text"] for row in labelled(capsys, run, "--input", "-")] == ["good film", "bad film"]


@pytest.mark.slow
def test_a_file_of_other_columns_and_format(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"body": "good é"}, {"body": "bad"}])  # UTF-8, unlike the training data
    assert "data.columns.text" in refused(capsys, run, "--input", path)
    rows = labelled(capsys, run, "data.columns.text=body", "--input", path)
    assert [row["text"] for row in rows] == ["good é", "bad"]
    odd = tmp_path / "in.xyz"
    odd.write_bytes("body\tn\ngood é\t1\n".encode("cp1252"))
    how = ["data.columns.text=body", "data.format=tsv", "data.encoding=cp1252"]
    (row,) = labelled(capsys, run, *how, "--input", odd)
    assert (row["text"], row["n"]) == ("good é", "1")
    assert "set `data.encoding: cp1252`" in refused(capsys, run, *how[:2], "--input", odd)


@pytest.mark.slow
def test_rows_may_share_an_id_and_hold_any_gold(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = [{"id": 7, "review": "good", "stars": 5}, {"id": 7, "review": "bad", "stars": None}]
    found = labelled(capsys, run, "--input", write_jsonl(tmp_path / "in.jsonl", rows))
    assert [(row["id"], row["gold"]) for row in found] == [("7", "5"), ("7", None)]
    rows[1]["stars"] = "?"
    found = labelled(capsys, run, "--input", write_jsonl(tmp_path / "in.jsonl", rows))
    assert ["gold" in row or row["data_label"] for row in found] == ["5", '"?"']  # as JSON


def test_gold_labels_that_the_run_has_not_are_named(
    run: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [{"review": "good", "stars": label} for label in ("pos", "mixed", "mixed", None, "neutral")]
    path = write_jsonl(tmp_path / "in.jsonl", rows)
    found = labelled(capsys, run, "--input", path)
    assert [row["gold"] for row in found] == ["pos", "mixed", "mixed", None, "neutral"]
    [said] = [record.message for record in caplog.records if "gold labels" in record.message]
    assert said == (
        f"{path}: 3 of 5 gold labels are none of the run's (neg, pos): 'mixed' (2), 'neutral' (1); no prediction can "
        "be right there."
    )


def test_what_cannot_be_labelled(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "one of them" in refused(capsys, run)
    assert "one of them" in refused(capsys, run, "--text", "a", "--input", "-")
    assert "no such file" in refused(capsys, run, "--input", tmp_path / "nowhere.csv")
    assert "here only data.columns" in refused(capsys, run, "--text", "a", "optim.lr=1")
    assert "must be one of jsonl" in refused(capsys, run, "--text", "a", "data.format=xml")
