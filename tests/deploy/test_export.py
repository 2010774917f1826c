"""Exported folders give the run's answers, by every format; those that do not are not written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from research.cli import main
from research.common.errors import UserError
from research.deploy.comparison import Difference, largest_difference, refuse_difference
from research.deploy.export import export
from research.deploy.exported import load_exported
from research.deploy.manifest import verify
from research.deploy.service import predictor_at
from research.inference.predictor import Predictor, trained_of
from research.tracking.run import Run

pytestmark = pytest.mark.slow
TEXTS = ["good", "Anna saw a bad film in Oslo " * 4, "bad"]


@pytest.fixture(scope="module")
def folder(served_runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "sentiment"
    assert main(["export", str(served_runs["sentiment"].path), "--output", str(path), "--licence", "cc0-1.0"]) == 0
    return path


@pytest.mark.parametrize(("task", "format"), [("ner", "openvino"), ("qa", "torch")])
def test_an_engine_answers_as_the_run(task: str, format: str, served_runs: dict[str, Run], tmp_path: Path) -> None:
    run = served_runs[task]
    found = export(run, tmp_path / "out", format)
    assert found.logits < 1e-5
    both = (Predictor(trained_of(run)), predictor_at(tmp_path / "out", None))
    inputs: dict[str, list[dict[str, Any]]] = {
        "ner": [{"tokens": text.split()} for text in TEXTS],
        "qa": [{"question": "what is Anna", "context": text} for text in TEXTS],
    }
    rows = inputs[task]
    answers = [[row["prediction"] for row in each.answer([each.question(row) for row in rows])] for each in both]
    assert answers[0] == answers[1]
    questions = [both[1].question(row) for row in rows]
    for question, together in zip(questions, both[1].answer(questions), strict=True):  # alone as among others
        (alone,) = both[1].answer([question])
        assert alone["prediction"] == together["prediction"]
        for name in {"probabilities", "confidence", "no_answer_score"} & alone.keys():
            assert alone[name] == pytest.approx(together[name], abs=1e-5)
    labels = json.loads((tmp_path / "out" / "reference.json").read_text())["labels"]
    assert bool(labels) is (task != "qa")  # answers are free text, which is not kept


def test_transformers_opens_the_folder(folder: Path, served_runs: dict[str, Run]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    predictor = Predictor(trained_of(served_runs["sentiment"]))
    answers = predictor.answer([predictor.question({"text": text}) for text in TEXTS])
    tokens = AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, truncation=True, max_length=48, return_tensors="pt"
    )
    with torch.inference_mode():
        probabilities = model(**tokens).logits.softmax(-1)
    expected = torch.tensor([list(answer["probabilities"].values()) for answer in answers])
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=0)
    card = (folder / "README.md").read_text()
    data: Any = ModelCard(card).data  # as the hub reads it
    assert (data.license, data.pipeline_tag, data.library_name) == ("cc0-1.0", "text-classification", "transformers")
    scores = (served_runs["sentiment"].result or {})["metrics"]
    found = {each.dataset_split: each.metric_value for each in data.eval_results if each.metric_type == "accuracy"}
    assert found == {split: scores[split]["accuracy"] for split in ("validation", "test")}
    assert "95 % interval [" in card and "| test | 13 |" in card


def test_a_changed_file_is_noticed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", folder, copy], check=True)
    assert main(["verify", str(copy)]) == 0
    config = json.loads((copy / "config.json").read_text())
    config["id2label"] = {"0": "positive", "1": "negative"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "code.py").write_text("")
    (copy / "tokenizer_config.json").unlink()
    assert main(["verify", str(copy)]) == 1
    said = capsys.readouterr().out
    assert "config.json was changed" in said
    assert verify(copy) == [
        "tokenizer_config.json is missing", "code.py is not in the manifest", "config.json was changed"
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"tokenizer_config\.json is missing; export it again"):
        predictor_at(copy, None)
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        verify(tmp_path)
    with pytest.raises(UserError, match=r"is no exported folder: it has no research\.json"):
        load_exported(tmp_path)


def test_a_signature(served_runs: dict[str, Run], tmp_path: Path) -> None:
    private, public, other = tmp_path / "key.pem", tmp_path / "public.pem", tmp_path / "other.pem"
    for path in (private, other):
        subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-out", path], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    export(served_runs["sentiment"], tmp_path / "out", key=private)
    assert verify(tmp_path / "out", public) == []
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    assert len(verify(tmp_path / "out", public)) == 1
    with pytest.raises(UserError, match="openssl could not sign"):
        export(served_runs["sentiment"], tmp_path / "none", key=public)
    assert not (tmp_path / "none").exists()


def test_what_is_refused(served_runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = served_runs["sentiment"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        export(run, tmp_path / "full")
    with pytest.raises(UserError, match="has no precision int8; it has fp32, bf16"):
        export(run, tmp_path / "out", precision="int8")
    with pytest.raises(UserError, match=r"differs from the run by 0\.01 in a logit, more than 0\.0001"):
        refuse_difference(Difference(0.01), run, "fp32", 0)
    with pytest.raises(UserError, match="differs"):
        refuse_difference(Difference(torch.nan), run, "fp32", 0)
    worse = Difference(1.0, 10, 3, {"accuracy": 0.9}, {"accuracy": 0.8})
    reason = r"changes 3 of 10 predictions and takes accuracy from 0\.9000 to 0\.8000, more than --tolerance 0\.05"
    with pytest.raises(UserError, match=reason):
        refuse_difference(worse, run, "int8", 0.05)
    refuse_difference(worse, run, "int8", 0.2)
    refuse_difference(Difference(1.0, 10, 3, {"accuracy": 0.8}, {"accuracy": 0.9}), run, "int8", 0.05)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["int8", "int8_static"])
def test_int8_is_scored_again(precision: str, served_runs: dict[str, Run], tmp_path: Path) -> None:
    found = export(served_runs["sentiment"], tmp_path / "out", "onnx", precision, tolerance=1.0)
    assert found.examples == 21 and found.scores is not None and 0 < found.logits < 1
    assert found.run_scores is not None and abs(found.scores["accuracy"] - found.run_scores["accuracy"]) <= (
        found.labels_changed / 21
    )
    if precision == "int8_static":  # fixed scales: a text is answered the same alone and among others
        predictor = predictor_at(tmp_path / "out", None)
        questions = [predictor.question({"text": text}) for text in TEXTS]
        for question, answer in zip(questions, predictor.answer(questions), strict=True):
            (alone,) = predictor.answer([question])
            assert alone["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


def test_another_model_differs(folder: Path, served_runs: dict[str, Run], tmp_path: Path) -> None:
    predictor = Predictor(trained_of(served_runs["sentiment"]))
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", folder, copy], check=True)
    weights = load_file(copy / "model.safetensors")
    weights["classifier.bias"] += 0.25
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    question = predictor.question({"text": "good"})
    outputs = [each.outputs([question])[1] for each in (predictor, load_exported(copy))]
    assert largest_difference(*outputs) == pytest.approx(0.25, abs=1e-6)
    infinite = torch.tensor([1.0, torch.inf])
    assert largest_difference(infinite, torch.tensor([1.0, 2.0])) == torch.inf


def test_a_run_of_fewer_layers_is_served_and_chains(served_runs: dict[str, Run], tmp_path: Path) -> None:
    whole = served_runs["sentiment"]
    experiment = {**yaml.safe_load((whole.path / "config.yaml").read_text())}
    experiment["model"] = {"name": str(whole.path), "keep_layers": [1], "dropout": 0.0}
    experiment["run_dir"] = str(tmp_path / "run")
    (tmp_path / "fewer.yaml").write_text(json.dumps(experiment))
    assert main(["train", str(tmp_path / "fewer.yaml")]) == 0
    fewer = Run(tmp_path / "run")
    assert json.loads((fewer.model / "config.json").read_text())["num_hidden_layers"] == 1
    assert main(["evaluate", str(fewer.path)]) == 0
    assert export(fewer, tmp_path / "out").logits < 1e-6
