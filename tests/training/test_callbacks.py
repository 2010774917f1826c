"""What a run records around its steps: evaluations, the best model, early stopping, divergence, what it cost."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

from research.cli import main
from research.cluster.signals import STOPPED
from research.tracking import provenance
from research.tracking.run import Run
from research.training import checkpoint, step
from research.training.callbacks.checkpointing import Checkpointing
from research.training.callbacks.evaluation import Evaluation, is_better
from research.training.module import TaskModule

pytestmark = pytest.mark.slow
STEPS_PER_EPOCH, STEPS = 10, 30
Train = Callable[..., tuple[int, Run]]


@pytest.fixture
def train(tiny_model: Path, task_data: dict[str, dict[str, str]], tmp_path: Path) -> Train:
    """`train(task, *overrides)` runs 30 steps of a small experiment in this process: (exit code, run)."""

    def run(task: str, *overrides: str, **data: str | None) -> tuple[int, Run]:
        content = {
            "task": task,
            "model": {"name": str(tiny_model)},
            "data": {**task_data[task], "max_length": 64, "stride": 16, **data},
            "optim": {"batch_size": 4, "lr": 1e-3},
            "trainer": {"log_every_steps": 1, "precision": "fp32"},
            "wandb": {"mode": "disabled"},
        }
        (tmp_path / "experiment.yaml").write_text(json.dumps(content))
        folder = tmp_path / "run"
        return main(["train", str(tmp_path / "experiment.yaml"), f"run_dir={folder}", *overrides]), Run(folder)

    return run


def evaluated(run: Run) -> list[int]:
    return [row["step"] for row in run.metrics() if "validation/loss" in row]


def trained(run: Run) -> list[int]:
    return [row["step"] for row in run.metrics() if "train/loss" in row]


def signal_at(monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, call: int, number: int) -> None:
    """Send this process a signal just before the call-th call of a method."""
    real = getattr(owner, method)
    calls: list[None] = []

    def wrapped(*arguments: Any, **named: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return real(*arguments, **named)

    monkeypatch.setattr(owner, method, wrapped)


def test_result_has_what_a_table_needs(train: Train) -> None:
    code, run = train("ner")
    result = run.result
    assert code == 0 and result is not None
    assert (result["task"], result["seed"], result["steps"], result["examples"]) == ("ner", 0, STEPS, 3 * 40)
    assert result["tokens"] == 3 * run.provenance["data"]["train"]["tokens"]
    for split in ("validation", "test"):
        scores = result["metrics"][split]
        assert {"precision", "recall", "f1", "accuracy", "loss"} <= scores.keys()
        assert all(0 <= scores[name] <= 1 for name in ("precision", "recall", "f1", "accuracy"))
    assert result["examples_per_second"] == pytest.approx(120 / result["train_seconds"])
    assert result["tokens_per_second"] == pytest.approx(result["tokens"] / result["train_seconds"])
    cost, layers = result["cost"], run.result["parameters"]
    assert (cost["attempts"], cost["devices"], cost["tokens"]) == (1, 1, result["tokens"])
    assert cost["device_hours"] == pytest.approx(cost["wall_seconds"] / 3600)
    assert cost["wall_seconds"] >= result["train_seconds"] and 0 < cost["flops"] < 6 * layers * result["tokens"]
    assert 0 < result["mfu"] < 1 and result["peak_memory_mib"] > 0
    for name, sha256 in result["files"].items():
        assert hashlib.sha256((run.path / name).read_bytes()).hexdigest() == sha256
    recorded = [name for name in result["files"] if name.startswith("predictions/")]
    assert recorded == ["predictions/test.parquet", "predictions/validation.parquet"]
    assert "model/model.safetensors" in result["files"]
    assert trained(run) == list(range(1, 31)) and evaluated(run) == [10, 20, 30]
    assert {path.name for path in run.path.iterdir()} >= {
        "config.yaml", "provenance.json", "metrics.jsonl", "result.json", "model", "checkpoints", "predictions",
    }  # fmt: skip


def test_train_seconds_are_those_of_the_steps(train: Train) -> None:
    _, run = train("sentiment")
    seconds = sum(row["time/step_seconds"] for row in run.metrics() if "train/loss" in row)
    assert run.result is not None
    assert run.result["train_seconds"] == pytest.approx(seconds, rel=0.02, abs=0.02)


@pytest.mark.slow
def test_train_seconds_accumulate_over_attempts(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop in the middle of an epoch counts what that part of the epoch took."""
    for calls in (13, 4):
        with monkeypatch.context() as patched:
            signal_at(patched, Checkpointing, "_agreed", calls, signal.SIGTERM)
            code, run = train("sentiment")
        assert code == STOPPED
        saved = checkpoint.newest(run.checkpoints)
        assert saved is not None
        seconds = sum(row["time/step_seconds"] for row in run.metrics() if "train/loss" in row)
        assert saved.state["progress"]["train_seconds"] == pytest.approx(seconds, rel=0.02, abs=0.02)
    assert saved.step == 17
    code, run = train("sentiment")
    assert code == 0 and run.result is not None and trained(run) == list(range(1, 31))
    seconds = sum(row["time/step_seconds"] for row in run.metrics() if "train/loss" in row)
    assert run.result["train_seconds"] == pytest.approx(seconds, rel=0.02, abs=0.02)
    assert [tried["resumed_from_step"] for tried in run.provenance["attempts"]] == [None, 13, 17]


def test_another_signal_does_not_lose_the_last_checkpoint(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM sends USR1, and TERM while the checkpoint is still being written."""
    signal_at(monkeypatch, Checkpointing, "_agreed", 13, signal.SIGUSR1)
    signal_at(monkeypatch, checkpoint.Writer, "wait", 3, signal.SIGTERM)  # after those of steps 10 and 13
    code, run = train("sentiment")
    assert code == STOPPED
    saved = checkpoint.newest(run.checkpoints)
    assert saved is not None and saved.step == 13
    assert run.provenance["attempts"][0]["ended"] == "stopped by SIGTERM at step 13"


def test_the_best_calibration_error_is_the_smallest(train: Train) -> None:
    code, run = train(
        "sentiment", "trainer.monitor=calibration_error", "trainer.evaluate_every_steps=4", "optim.lr=2e-2",
        "optim.schedule=constant",
    )  # fmt: skip
    errors = {row["step"]: row[key] for row in run.metrics() if (key := "validation/calibration_error") in row}
    best = min(errors, key=errors.__getitem__)
    assert code == 0 and run.result is not None and min(errors.values()) < max(errors.values())
    assert run.result["best_step"] == best
    assert run.result["metrics"]["validation"]["calibration_error"] == errors[best]


def test_best_checkpoint_is_tested_and_exported(train: Train) -> None:
    """An overfitting run whose loss is best before its end; the exported model gives the predictions' probabilities."""
    code, run = train(
        "sentiment", "trainer.monitor=loss", "trainer.evaluate_every_steps=4", "optim.lr=2e-2",
        "optim.schedule=constant", "trainer.keep=1",
    )  # fmt: skip
    assert code == 0 and run.result is not None
    losses = {row["step"]: row["validation/loss"] for row in run.metrics() if "validation/loss" in row}
    assert list(losses) == [4, 8, 12, 16, 20, 24, 28, 30]
    best = min(losses, key=losses.__getitem__)
    assert best < 28 and run.result["best_step"] == best and run.result["steps"] == 30
    assert run.result["metrics"]["validation"]["loss"] == losses[best]
    assert [checkpoint.step_of(path) for path in checkpoint.files(run.checkpoints)] == [best]

    model = AutoModelForSequenceClassification.from_pretrained(run.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    for split in ("validation", "test"):
        rows = pq.read_table(run.predictions / f"{split}.parquet").to_pylist()
        for row in rows:
            inputs = tokenizer(row["text"], truncation=True, max_length=64, return_tensors="pt")
            with torch.no_grad():
                probabilities = model(**inputs).logits.softmax(-1)[0].tolist()
            assert row["probabilities"] == pytest.approx(probabilities, abs=1e-5)
            assert model.config.label2id[row["prediction"]] == max(range(2), key=probabilities.__getitem__)
        correct = sum(row["prediction"] == row["gold"] for row in rows)
        assert run.result["metrics"][split]["accuracy"] == pytest.approx(correct / len(rows))


def test_exported_reader_gives_the_scores_of_its_answers(train: Train) -> None:
    code, run = train("qa", "optim.max_steps=6", "data.max_length=128")
    assert code == 0
    model = AutoModelForQuestionAnswering.from_pretrained(run.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    checked = 0
    for row in pq.read_table(run.predictions / "test.parquet").to_pylist():
        inputs = tokenizer(row["question"], row["context"], return_tensors="pt")
        if inputs["input_ids"].shape[1] > 128:
            continue  # read in several windows
        with torch.no_grad():
            outputs = model(**inputs)
        context = torch.tensor([s == 1 for s in inputs.sequence_ids(0)])
        start, end = (x[0].masked_fill(~context, -torch.inf) for x in (outputs.start_logits, outputs.end_logits))
        spans = (start[:, None] + end[None, :]).triu().tril(29)
        assert row["n_best"][0]["score"] == pytest.approx(float(spans[context][:, context].max()), abs=1e-4)
        checked += 1
    assert checked >= 5


@pytest.mark.parametrize(
    ("overrides", "steps", "evaluations"),
    [
        (["optim.max_steps=7"], 7, [7]),
        (["optim.max_steps=13"], 13, [10, 13]),
        (["trainer.evaluate_every_steps=4", "optim.max_steps=10"], 10, [4, 8, 10]),
        (["trainer.evaluate_every_steps=100", "optim.epochs=0.5"], 5, [5]),
        (["trainer.evaluate_every_steps=15"], 30, [15, 30]),
        (["trainer.evaluate_every_steps=3", "trainer.evaluation_growth=3"], 30, [3, 9, 27, 30]),
        (["trainer.evaluate_every_steps=3", "trainer.evaluation_growth=3", "optim.max_steps=9"], 9, [3, 9]),
    ],
)
def test_when_it_evaluates(train: Train, overrides: list[str], steps: int, evaluations: list[int]) -> None:
    code, run = train("sentiment", *overrides)
    assert code == 0 and run.result is not None
    assert run.result["steps"] == steps and trained(run) == list(range(1, steps + 1))
    assert evaluated(run) == evaluations


def test_without_validation_the_last_model_is_tested(train: Train) -> None:
    code, run = train("sentiment", "optim.epochs=1", validation=None)
    assert code == 0 and run.result is not None
    assert run.result["metrics"]["validation"] == {} and "accuracy" in run.result["metrics"]["test"]
    assert run.result["best_step"] == run.result["steps"] == 10 and evaluated(run) == []
    assert [path.name for path in run.predictions.iterdir()] == ["test.parquet"]


def test_without_test(train: Train) -> None:
    code, run = train("sentiment", "optim.epochs=1", test=None)
    assert code == 0 and run.result is not None
    assert run.result["metrics"]["test"] == {} and "accuracy" in run.result["metrics"]["validation"]
    assert [path.name for path in run.predictions.iterdir()] == ["validation.parquet"]


def test_early_stopping(train: Train) -> None:
    """A learning rate that changes nothing: no evaluation is better than the first."""
    code, run = train("sentiment", "optim.lr=1e-12", "optim.patience=2", "optim.epochs=9")
    result = run.result
    assert code == 0 and result is not None
    assert (result["steps"], result["best_step"], result["stopped_early"]) == (30, 10, True)
    assert evaluated(run) == [10, 20, 30] and trained(run) == list(range(1, 31))

    (run.path / "result.json").unlink()  # as if killed just before the end
    code, run = train("sentiment", "optim.lr=1e-12", "optim.patience=2", "optim.epochs=9")
    assert code == 0 and run.result is not None
    for key in ("steps", "best_step", "stopped_early", "metrics", "examples", "tokens"):
        assert run.result[key] == result[key], key
    assert evaluated(run) == [10, 20, 30] and trained(run) == list(range(1, 31))


def test_a_tie_goes_to_the_lower_loss(train: Train) -> None:
    """Of 21 examples several evaluations get equally many right."""
    code, run = train("sentiment", "optim.lr=3e-3", "optim.epochs=6", "trainer.evaluate_every_steps=6")
    rows = [row for row in run.metrics() if "validation/loss" in row]
    best = min(rows, key=lambda row: (-row["validation/accuracy"], row["validation/loss"]))
    assert code == 0 and run.result is not None and run.result["best_step"] == best["step"]
    assert len({row["validation/accuracy"] for row in rows}) < len(rows) == 10
    assert run.result["metrics"]["validation"]["loss"] == best["validation/loss"]


@pytest.mark.parametrize(
    ("value", "loss", "better"),
    [(0.9, 9.0, True), (0.8, 0.4, True), (0.8, 0.5, False), (0.8, 0.6, False), (0.7, 0.1, False)],
)
def test_what_is_better(value: float, loss: float, better: bool) -> None:
    assert is_better(value, loss, 0.8, 0.5) is better and is_better(value, loss, None, 0.5)


def test_unknown_monitor(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    code, run = train("ner", "trainer.monitor=bleu", "optim.max_steps=2")
    reported = capsys.readouterr().err
    assert code == 2 and run.result is None
    assert "trainer.monitor=bleu is not a score of task ner; it reports f1, precision, recall" in reported


def test_divergence(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ("optim.lr=1e30", "optim.warmup_ratio=0.1", "trainer.checkpoint_every_steps=1")
    code, run = train("sentiment", *overrides)
    reported = capsys.readouterr().err
    assert code == 2 and run.result is None and "Traceback" not in reported
    saved = checkpoint.newest(run.checkpoints)
    assert saved is not None and f"; the last good checkpoint is {saved.path}. Lower optim.lr" in reported
    assert all(bool(t.isfinite().all()) for name, t in saved.tensors().items() if name.startswith("model."))
    sentence = next(line for line in reported.splitlines() if line.startswith("research: "))
    step = trained(run)[-1] + 1
    assert f" at step {step} (examples " in sentence and "nan" in sentence
    named = sentence.split("(examples ")[1].split(")")[0].split(", ")
    assert len(named) == 4 and all(0 <= int(name.removeprefix("train-")) < 40 for name in named)


def test_divergence_without_logging_and_before_any_checkpoint(
    train: Train, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned = shutil.copytree(tiny_model, tmp_path / "poisoned")
    weights = load_file(poisoned / "model.safetensors")
    name = next(name for name in weights if "layer.1.output.dense.weight" in name)
    weights[name][0, 0] = math.nan
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    code, run = train("sentiment", f"model.name={poisoned}", "trainer.log_every_steps=25")
    assert code == 2 and run.metrics() == [] and not checkpoint.files(run.checkpoints)
    assert "at step 1 (examples " in (reported := capsys.readouterr().err) and "there is no checkpoint" in reported


def test_signal_at_the_last_step(train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The final evaluation is still owed: the next attempt runs it, and it alone."""
    _, run = train("ner", "optim.epochs=1")
    expected, weights = run.result or {}, (run.model / "model.safetensors").read_bytes()
    rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics()]
    shutil.rmtree(run.path)
    with monkeypatch.context() as patched:
        signal_at(patched, Checkpointing, "_agreed", 10, signal.SIGTERM)
        code, run = train("ner", "optim.epochs=1")
    assert code == STOPPED and run.result is None
    assert trained(run) == list(range(1, 11)) and evaluated(run) == []
    code, run = train("ner", "optim.epochs=1")
    assert code == 0 and run.result is not None
    assert run.result["metrics"] == expected["metrics"] and run.result["best_step"] == 10
    assert [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics()] == rows
    assert (run.model / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("method", "number"),
    [("validation_step", signal.SIGTERM), ("validation_step", signal.SIGUSR1), ("test_step", signal.SIGINT)],
)
def test_signal_in_an_evaluation_with_nothing_to_save(
    method: str, number: int, train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an owed evaluation and in the final test the run does not see it through; what was saved is all there is."""
    if method == "validation_step":
        with monkeypatch.context() as patched:
            signal_at(patched, Checkpointing, "_agreed", 10, number)
            assert train("sentiment", "optim.max_steps=12")[0] == STOPPED
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with monkeypatch.context() as patched:
        signal_at(patched, TaskModule, method, 1, number)
        code, run = train("sentiment", "optim.max_steps=12")
    assert code == STOPPED and run.result is None
    step = 10 if method == "validation_step" else 12
    assert f"Stopped at step {step} of 12, saved in {run.checkpoints}." in capsys.readouterr().err
    assert run.provenance["attempts"][-1]["ended"] == f"stopped by {signal.Signals(number).name} at step {step}"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == handlers
    code, run = train("sentiment", "optim.max_steps=12")
    assert code == 0 and evaluated(run) == [10, 12] and trained(run) == list(range(1, 13))


def test_second_ctrl_c_does_not_wait_for_the_step(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        signal_at(patched, TaskModule, "cross_entropy", 5, signal.SIGINT)
        signal_at(patched, step, "backward", 5, signal.SIGINT)
        code, run = train("sentiment", "trainer.checkpoint_every_steps=2", "optim.max_steps=8")
    assert code == STOPPED and trained(run) == [1, 2, 3, 4]
    assert "to resume from the last checkpoint" in capsys.readouterr().err
    code, run = train("sentiment", "trainer.checkpoint_every_steps=2", "optim.max_steps=8")
    assert code == 0 and trained(run) == list(range(1, 9)) and evaluated(run) == [8]


def test_owed_evaluation_runs_once(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between a checkpoint and its evaluation, here by an error that nothing catches."""

    def dies(*_: Any) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluation, "on_validation_batch_start", dies)
        with pytest.raises(SystemExit):
            train("sentiment", "optim.max_steps=12")
    ends = []
    real = Evaluation.on_validation_end
    monkeypatch.setattr(Evaluation, "on_validation_end", lambda self, t, m: (ends.append(m.step), real(self, t, m))[1])
    code, run = train("sentiment", "optim.max_steps=12")
    assert code == 0 and ends == [10, 12] == evaluated(run)
    assert trained(run) == list(range(1, 13))


def test_changed_code_is_allowed_and_recorded(train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patched:
        signal_at(patched, Checkpointing, "_agreed", 2, signal.SIGTERM)
        train("sentiment", "optim.max_steps=3")
    source = Path(provenance.__file__).parent.parent
    changed = shutil.copytree(source, tmp_path / "research", ignore=shutil.ignore_patterns("__pycache__", "quickstart"))
    with open(changed / "common" / "errors.py", "a") as file:
        file.write("# changed\n")
    monkeypatch.setattr(provenance, "PACKAGE", changed)
    code, run = train("sentiment", "optim.max_steps=3")
    assert code == 0
    first, second = (tried["code"]["source_sha256"] for tried in run.provenance["attempts"])
    assert len(first) == len(second) == 64 and first != second
