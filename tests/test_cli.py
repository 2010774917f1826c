"""The command itself: quick to answer, and train, show, evaluate and predict for each task."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from research.cli import arguments, main
from research.metrics import metric_class
from research.sweep.space import read_sweep
from research.sweep.study import open_search
from research.sweep.sweepfile import searched_config
from research.tracking import predictions
from research.tracking.run import Run
from tests.conftest import write_jsonl
from tests.report.synthetic import write_run

TASKS = ("sentiment", "ner", "qa")
TEXTS = ("good", "", "Sehr gut!", "很好")
SENTENCES = ("Anna|in|Oslo", "", "Acme", "\u0007|東京")
UNLABELLED: dict[str, list[dict[str, Any]]] = {
    "sentiment": [{"id": f"new-{i}", "text": text, "source": "mail"} for i, text in enumerate(TEXTS)],
    "ner": [{"id": f"new-{i}", "tokens": words.split("|")} for i, words in enumerate(SENTENCES)],
    "qa": [
        {"id": f"new-{i}", "question": "where is Anna?", "context": context}
        for i, context in enumerate(("Anna is in Oslo. " * 30, "", "Acme", "Anna ist in München."))
    ],
}  # fmt: skip


# --- quick to answer: one process tries every command line, and notes after each whether torch has been imported

COMMAND_LINES = [
    (["--help"], 0, ""),
    (["train", "{yaml}", "optim.lrr=1"], 2, "Did you mean optim.lr?"),
    (["train", "{yaml}", "optim.lr=0"], 2, "must be a number above 0"),
    (["train", "{yaml}s"], 2, "There is no experiment file"),
    (["trian", "{yaml}"], 2, "invalid choice: 'trian'"),
    (["train"], 2, "required: experiment"),
    (["train", "{yaml}", "--sead=3"], 2, "unrecognized arguments: --sead=3"),
    (["evaluate", "{folder}/nowhere"], 2, "is not a run folder"),
    (["evaluate", "{folder}", "--split", "dev"], 2, "invalid choice: 'dev'"),
    (["predict", "{folder}"], 2, "give new text by --input FILE"),
    (["train", "{yaml}"], 2, "a.jsonl: no such file"),
    (["show", "{yaml}"], 2, "a.jsonl: no such file"),
    (["prepare", "{yaml}"], 2, "a.jsonl: no such file"),
    (["submit", "{yaml}"], 2, "a.jsonl: no such file"),
    (["sweep", "{sweep}"], 2, "a.jsonl: no such file"),
    (["show", "{sweep}"], 2, "a.jsonl: no such file"),
    (["sweep", "{folder}/absent.yaml"], 2, "There is no sweep file"),
    (["sweep", "status", "{folder}/absent"], 2, "There is no sweep file"),
    (["train", "{yaml}", "data.train={rows}", "trainer.monitor=f2"], 2, "trainer.monitor=f2 is not a score"),
    (["show", "{yaml}", "data.train={rows}", "trainer.monitor=f2"], 2, "trainer.monitor=f2 is not a score"),
    (["prepare", "{yaml}", "data.train={rows}", "trainer.monitor=f2"], 2, "trainer.monitor=f2 is not a score"),
    (["submit", "{yaml}", "data.train={rows}", "trainer.monitor=f2"], 2, "trainer.monitor=f2 is not a score"),
    (["sweep", "{sweep}", "settings.data.train={rows}", "metric=f2"], 2, "trainer.monitor=f2 is not a score"),
    (["train", "{yaml}", "data.train={rows}", "run_dir={run}"], 2, "holds another experiment"),
    (["sweep", "{sweep}", "settings.data.train={rows}"], 2, "searches something else"),
    (["evaluate", "{run}", "--split", "test"], 2, "is not finished"),
    (["evaluate", "{done}", "--split", "test"], 2, "has no split 'test'; it has train, validation"),
    (["evaluate", "{done}", "--split", "validation"], 2, "gone.jsonl: no such file"),
    (["predict", "{run}", "--text", "a"], 2, "is not finished"),
    (["predict", "{done}", "--input", "{folder}/absent.jsonl"], 2, "absent.jsonl: no such file"),
    (["prune", "{folder}/absent"], 2, "holds no run folder"),
    (["prune", "{run}"], 0, ""),
    (["serve"], 2, "name the runs to serve"),
    (["serve", "a+b={done}"], 2, "cannot be part of a URL"),
    (["serve", "{folder}/absent"], 2, "is not a run folder"),
    (["serve", "{run}"], 2, "is not finished"),
    (["serve", "{done}", "--keys", "{yaml}"], 2, "holds no keys"),
    (["report", "{folder}/absent", "--output", "{folder}/paper"], 2, "There is no folder"),
    (["report", "{run}", "--output", "{folder}/paper"], 2, "None of the runs is finished"),
    (["report", "{done}", "--output", "{folder}/paper", "--by", "optim.rate"], 2, "cannot be grouped by 'optim.rate'"),
    (["report", "{done}", "--output", "{folder}/paper", "--metric", "f9"], 2, "has no validation score 'f9'"),
    (["compare", "{done}", "--against", "{folder}/absent"], 2, "There is no folder"),
    (["compare", "{done}", "--against", "{done}", "--metric", "f9"], 2, "has no validation score 'f9'"),
    (["--version"], 0, ""),
    ([], 2, "required: COMMAND"),
]

TRY_ALL = """
import contextlib, io, json, sys
from research.cli import main
for arguments in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, said.getvalue(), "torch" in sys.modules, "omegaconf" in sys.modules]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, bool, bool]]:
    """For each command line its exit code, what it said, and whether torch and OmegaConf were imported."""
    folder = tmp_path_factory.mktemp("quick")
    path, sweep = folder / "mine.yaml", folder / "sweep.yaml"
    path.write_text("task: sentiment\nmodel: {name: tiny}\ndata: {train: a.jsonl, validation: 0.1}\n")
    space = {"optim.lr": {"low": 1e-5, "high": 1e-4}}
    content = {"experiment": str(path), "folder": str(folder / "begun"), "name": "begun", "budget": {"trials": 1}}
    sweep.write_text(json.dumps({**content, "space": space}))
    rows = write_jsonl(folder / "rows.jsonl", [{"text": "good", "label": "a"}])
    places = {
        "yaml": path, "folder": folder, "sweep": sweep, "rows": rows,
        "run": write_run(folder / "run", status="unfinished"),
        "done": write_run(folder / "done", splits=("validation",), config={"data.validation": f"{folder}/gone.jsonl"}),
    }  # fmt: skip
    (folder / "other.yaml").write_text(json.dumps({**content, "space": {"optim.lr": {"low": 0.1, "high": 0.2}}}))
    begun = read_sweep(folder / "other.yaml", [f"settings.data.train={rows}"])
    open_search(begun, searched_config(begun), metric_class("classification").scores[0], resume_anyway=False)
    lines = [[part.format(**places) for part in line] for line, _, _ in COMMAND_LINES]
    done = subprocess.run(
        [sys.executable, "-c", TRY_ALL], input=json.dumps(lines), capture_output=True, text=True, timeout=120
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.process
def test_each_file_of_the_commands_is_one_or_holds_none() -> None:
    folder = Path(arguments.__file__).parent
    with_run = {path.stem for path in folder.glob("*.py") if "\ndef run(" in path.read_text(encoding="utf-8")}
    assert with_run == {command.replace("-", "_") for command in arguments.COMMANDS}


@pytest.mark.slow
def test_help_imports_next_to_nothing(answers: list[tuple[int, str, bool, bool]]) -> None:
    code, said, *imported = answers[0]
    assert (code, said, imported) == (0, "", [False, False])


@pytest.mark.parametrize("case", range(1, len(COMMAND_LINES)), ids=lambda i: " ".join(COMMAND_LINES[i][0]) or "none")
def test_a_mistake_is_reported_before_torch_is_imported(case: int, answers: list[tuple[int, str, bool, bool]]) -> None:
    (_, code, fragment), (found, said, has_torch, _) = COMMAND_LINES[case], answers[case]
    assert (found, has_torch) == (code, False)
    assert fragment in said and "Traceback" not in said


# --- train, show, evaluate, predict


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module", autouse=True)
def cache(folder: Path) -> Any:
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="module")
def experiment(folder: Path, tiny_model: Path, task_data: dict[str, dict[str, str]]) -> Any:
    def written(task: str) -> str:
        content = {
            "task": task,
            "model": {"name": str(tiny_model)},
            "data": {**task_data[task], "max_length": 32, "stride": 8},
            "optim": {"epochs": 2, "batch_size": 8, "lr": 1e-3},
            "trainer": {"devices": 1, "tokens_per_microbatch": 200},
            "wandb": {"mode": "disabled"},
            "run_dir": str(folder / "runs" / task),
        }
        path = folder / f"{task}.yaml"
        path.write_text(json.dumps(content))
        return str(path)

    return written


@pytest.fixture(scope="module")
def runs(experiment: Any) -> dict[str, Run]:
    """A finished run of each task."""
    done = {}
    for task in TASKS:
        path = experiment(task)
        assert main(["train", path]) == 0
        done[task] = Run.read(Path(json.loads(Path(path).read_text())["run_dir"]))
    return done


@pytest.mark.in_check(1)
@pytest.mark.parametrize("task", TASKS)
def test_train_leaves_a_complete_run_folder(runs: dict[str, Run], task: str) -> None:
    run = runs[task]
    names = {p.name for p in run.path.iterdir()}
    assert {
        "config.yaml",
        "provenance.json",
        "metrics.jsonl",
        "result.json",
        "model",
        "checkpoints",
        "predictions",
    } <= names
    assert not list(run.path.rglob(".*.tmp"))
    result = run.result
    assert result is not None and result["steps"] == 10 and result["examples"] == 80
    for split, count in {"validation": 21, "test": 13}.items():
        table = predictions.read(run.predictions / f"{split}.parquet")
        assert table.num_rows == count and table.column_names[:3] == ["id", "gold", "prediction"]
        stored = {name: value for name, value in result["metrics"][split].items() if name != "loss"}
        assert predictions.score(table) == stored


def test_the_same_command_on_a_finished_run_says_so(
    runs: dict[str, Run], experiment: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in runs["ner"].path.rglob("*") if p.is_file() and p.name != ".lock"}
    assert main(["train", experiment("ner")]) == 0
    assert "This run is finished" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert main(["train", experiment("ner"), "optim.lr=2e-3"]) == 2
    assert "optim.lr: 0.001 -> 0.002" in capsys.readouterr().err


@pytest.mark.in_check(1)
@pytest.mark.parametrize("task", TASKS)
def test_evaluate_gives_the_runs_scores_to_the_last_digit(
    runs: dict[str, Run], task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, result = runs[task], runs[task].result
    assert result is not None
    for split in ("test", "validation"):
        file = run.predictions / f"{split}.parquet"
        before = pq.read_table(file)
        file.unlink()
        assert main(["evaluate", str(run.path), "--split", split]) == 0
        assert pq.read_table(file).equals(before)
        from research.inference.evaluate import evaluate

        assert evaluate(run, split) == result["metrics"][split]
    assert f"{result['metrics']['test'][result['monitor']]:.4f}" in capsys.readouterr().err
    assert main(["evaluate", str(run.path), "--split", "train"]) == 0
    assert predictions.read(run.predictions / "train.parquet").column("id").to_pylist() == [
        f"train-{i}" for i in range(40)
    ]


@pytest.mark.in_check(3)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_predict_writes_a_row_for_each_in_order(
    runs: dict[str, Run], task: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = UNLABELLED[task]
    if task == "ner":
        rows = [{**row, "tokens": [word for word in row["tokens"] if word]} for row in rows]
    source, target = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out" / f"labelled{suffix}"
    assert main(["predict", str(runs[task].path), "--input", str(source), "--output", str(target)]) == 0
    assert f"4 rows written to {target}\n" in capsys.readouterr().out
    written = read(target)
    assert [row["id"] for row in written] == [row["id"] for row in rows]
    assert "gold" not in written[0] and "prediction" in written[0]
    for given, row in zip(rows, written, strict=True):
        if task == "sentiment":
            assert row["prediction"] in ("negative", "positive") and row["source"] == "mail"
        elif task == "ner":
            tags = json.loads(row["prediction"]) if suffix == ".csv" else row["prediction"]
            assert len(tags) == len(given["tokens"])
        else:
            assert row["prediction"] in given["context"]


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]


def test_predict_takes_conll_without_tags(runs: dict[str, Run], tmp_path: Path) -> None:
    source, target = tmp_path / "in.conll", tmp_path / "out.jsonl"
    source.write_text("-DOCSTART-\n\nAnna\nin\nOslo\n\nAcme\n")
    assert main(["predict", str(runs["ner"].path), "--input", str(source), "--output", str(target)]) == 0
    assert [(row["tokens"], len(row["prediction"])) for row in read(target)] == [
        (["Anna", "in", "Oslo"], 3),
        (["Acme"], 1),
    ]


@pytest.mark.in_check(1)
@pytest.mark.parametrize("task", TASKS)
def test_predict_on_the_test_file_gives_the_tests_predictions(
    runs: dict[str, Run], task: str, task_data: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    target = tmp_path / "out.jsonl"
    assert main(["predict", str(runs[task].path), "--input", task_data[task]["test"], "--output", str(target)]) == 0
    tested = predictions.read(runs[task].predictions / "test.parquet").to_pylist()
    assert [(row["prediction"], row["gold"]) for row in read(target)] == [(r["prediction"], r["gold"]) for r in tested]


def test_predict_refuses_what_it_cannot_do(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", UNLABELLED["sentiment"])
    other = write_jsonl(tmp_path / "other.jsonl", [{"body": "good"}])

    def refused(source: Path, target: Path) -> str:
        assert main(["predict", str(runs["sentiment"].path), "--input", str(source), "--output", str(target)]) == 2
        assert not target.is_file() or target == source
        return capsys.readouterr().err.splitlines()[-1]

    assert "its suffix must be one of .jsonl, .parquet, .csv" in refused(source, tmp_path / "out.txt")
    assert "no such file" in refused(tmp_path / "absent.jsonl", tmp_path / "out.jsonl")
    assert "no column 'text'" in refused(other, tmp_path / "out.jsonl")
    assert "could not be written" in refused(source, source / "out.jsonl")


@pytest.mark.parametrize("arguments", [["evaluate"], ["predict", "--input", "a.jsonl", "--output", "b.jsonl"]])
def test_an_unfinished_run_or_none(
    runs: dict[str, Run], tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = (str(write_jsonl(tmp_path / x, [{"tokens": ["a"]}])) if x == "a.jsonl" else x for x in arguments)
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text((runs["ner"].path / "config.yaml").read_text())
    assert main([name, str(unfinished), *rest]) == 2
    assert "is not finished; run its training command again" in capsys.readouterr().err
    assert main([name, str(tmp_path / "none"), *rest]) == 2
    assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_refuses_a_split_it_has_not_and_data_that_changed(
    folder: Path,
    experiment: Any,
    task_data: dict[str, dict[str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(Path(task_data["sentiment"]["test"]).read_text())
    overrides = ["optim.max_steps=1", "data.validation=null", f"data.test={test}", f"run_dir={tmp_path / 'run'}"]
    assert main(["train", experiment("sentiment"), *overrides]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--split", "validation"]) == 2
    assert "has no split 'validation'; it has train, test" in capsys.readouterr().err
    test.write_text(test.read_text().replace("negative", "neutral"))
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert f"{test} has changed since the run" in capsys.readouterr().err


def test_show_trains_nothing(experiment: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", experiment("sentiment"), f"run_dir={tmp_path / 'run'}"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "lr: 0.001",
        "train: 40 examples",
        "test: 13 examples",
        "labels: negative, positive",
        "steps: 10 (5 per epoch",
    ):
        assert line in shown
    assert not (tmp_path / "run").exists()
