"""From Python: train, load, predict, compare; nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

import research
from research.cli import main
from research.common.errors import UserError
from research.config.several_runs import load_several, numbers_of
from research.report.several_runs import summary_of
from research.report.statistics.folds import over_folds
from research.tracking.predictions import read, write
from research.tracking.run import Run
from tests.conftest import write_jsonl


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("api")
    rows = [{"text": f"{word} film", "label": word} for word in ("good", "bad") * 12]
    for split in ("train", "validation", "test"):
        write_jsonl(folder / f"{split}.jsonl", rows)
    content = {
        "task": "classification",
        "model": {"name": str(tiny_model)},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl", "max_length": 16},
        "optim": {"epochs": 8, "batch_size": 8, "lr": 5e-3},
        "trainer": {"devices": 1, "precision": "fp32", "log_every_steps": 1},
        "wandb": {"mode": "disabled"},
    }
    (folder / "mine.yaml").write_text(json.dumps(content))
    return folder / "mine.yaml"


@pytest.mark.slow
def test_train_load_predict_and_compare(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(experiment.parent)
    runs = [research.train("mine.yaml", seed=seed, **{"optim.lr": 6e-3}) for seed in (1, 2)]
    run = runs[0]
    assert run.path == experiment.parent / "runs/mine/seed1" and run.config.optim.lr == 6e-3
    assert run.scores["test"]["accuracy"] == 1.0
    predictions = run.predictions()
    assert list(predictions["prediction"]) == ["good", "bad"] * 12
    assert list(run.predictions("validation")["gold"]) == ["good", "bad"] * 12
    metrics = run.metrics()
    assert metrics["train/loss"].notna().sum() == 24 and metrics["step"].max() == 24
    assert metrics["train/loss"].dropna().iloc[-1] < metrics["train/loss"].dropna().iloc[0]
    loaded = research.load(run.path)
    assert list(loaded.predict(["good film", "bad film"])["prediction"]) == ["good", "bad"]
    rows = loaded.predict([{"text": "bad film", "mine": 3}])
    assert rows["prediction"][0] == "bad" and np.isclose(sum(rows["probabilities"][0]), 1)
    assert loaded.evaluate()["accuracy"] == 1.0
    other = research.train("mine.yaml", seed=1, run_dir="runs/other", **{"optim.max_steps": 1})
    found = research.compare(run, other)
    assert found.comparisons[0].difference == 1.0 - other.scores["test"]["accuracy"]
    assert "Verdict: on " in repr(found) and len(repr(found)) < 5000
    with pytest.raises(UserError, match=r"holds another experiment; it differs in optim\.lr: 0\.006 -> 0\.1"):
        research.train("mine.yaml", seed=1, **{"optim.lr": 0.1})
    with pytest.raises(
        UserError, match=r"'a good film' is no file; give texts as a list: predict\(\['a good film'\]\)"
    ):
        loaded.predict("a good film")
    with pytest.raises(UserError, match="Texts and 3 do not go together"):
        loaded.predict(["good film", 3])
    with pytest.raises(UserError, match="no predictions of 'train'; it has test, validation"):
        run.predictions("train")


class Reviews(torch.utils.data.Dataset[dict[str, object]]):
    """A data set of torch whose examples are dicts."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> dict[str, object]:
        if not 0 <= i < 24:
            raise IndexError(i)
        return {"id": torch.tensor(i), "text": f"{('good', 'bad')[i % 2]} film", "label": ("good", "bad")[i % 2]}


@pytest.mark.slow
def test_rows_in_memory_on_two_ranks(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(experiment.parent)
    given = [{**Reviews()[i], "id": i} for i in range(24)]
    data = {"validation": pd.DataFrame(given), "test": given, "max_overlap": 1.0}
    ranks = {"trainer.devices": 2, "trainer.accelerator": "cpu"}
    run = research.train("mine.yaml", run_dir="memory/run", data=data, **ranks, **{"data.train": Reviews()})
    assert run.provenance["attempts"][0]["ranks"] == 2 and run.scores["test"]["accuracy"] == 1.0
    assert list(run.predictions()["id"]) == [str(i) for i in range(24)]
    assert run.evaluate("validation")["accuracy"] == 1.0
    assert list(run.predict(pd.DataFrame({"text": ["bad film"]}))["prediction"]) == ["bad"]


@pytest.mark.slow
def test_several_seeds_in_one_command(experiment: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = experiment.parent / "several"
    assert main(["train", str(experiment), "seed=3,5", f"run_dir={folder}", "optim.max_steps=2"]) == 0
    runs = [Run.read(folder / f"seed{seed}") for seed in (3, 5)]
    scores = [run.result["metrics"]["test"]["accuracy"] for run in runs if run.result]
    expected = f"test: accuracy {np.mean(scores):.4f} ± {np.std(scores, ddof=1):.4f} over 2 seeds"
    said = capfd.readouterr().err
    assert [run.config.seed for run in runs] == [3, 5] and expected in said
    alike = (
        research.load(runs[0].path)
        .predictions()["prediction"]
        .equals(research.load(runs[1].path).predictions()["prediction"])
    )
    assert ("test: seeds 3 and 5 give the same predictions" in said) == alike
    table = read(runs[0].predictions / "test.parquet")
    write(table, runs[1].predictions / "test.parquet")
    assert summary_of(runs).endswith(
        "test: seeds 3 and 5 give the same predictions: their scores are one, the deviation too small."
    )


@pytest.mark.in_check(1)
@pytest.mark.parametrize(("text", "seeds"), [("0,1,2", [0, 1, 2]), ("0..4", [0, 1, 2, 3, 4]), ("7, 1..2", [7, 1, 2])])
def test_seeds_as_a_list_or_a_range(experiment: Path, text: str, seeds: list[int]) -> None:
    assert numbers_of(text) == seeds
    configs = load_several(experiment, [f"seed={text}"])
    assert [config.seed for config in configs] == seeds
    assert [str(config.run_dir).rpartition("/")[2] for config in configs] == [f"seed{seed}" for seed in seeds]


@pytest.mark.slow
def test_all_folds_and_seeds_in_one_command_have_a_folder_each(experiment: Path, tmp_path: Path) -> None:
    divided = ["data.validation=0.2", "data.test=null", "data.folds=3"]
    configs = load_several(experiment, [*divided, "data.fold=all", "seed=0,4"])
    assert [(c.data.fold, c.seed) for c in configs] == [(0, 0), (0, 4), (1, 0), (1, 4), (2, 0), (2, 4)]
    assert str(configs[3].run_dir).endswith("runs/mine/fold1/seed4")
    given = load_several(experiment, [*divided, "data.fold=0..1", f"run_dir={tmp_path}"])
    assert [config.run_dir for config in given] == [f"{tmp_path}/fold0", f"{tmp_path}/fold1"]
    assert [config.data.fold for config in load_several(experiment, [*divided, "data.fold=2"])] == [2]
    with pytest.raises(UserError, match=r"data\.fold=all needs data\.folds"):
        load_several(experiment, ["data.fold=all"])


@pytest.mark.slow
def test_all_folds_are_trained_and_summed_up(experiment: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = experiment.parent / "folds"
    settings = ["data.validation=0.2", "data.test=null", "data.max_overlap=1", "optim.max_steps=2"]
    command = ["train", str(experiment), *settings, "data.folds=2", "data.fold=all", "seed=0,1", f"run_dir={folder}"]
    assert main(command) == 0
    runs = [[Run.read(folder / f"fold{fold}/seed{seed}") for seed in (0, 1)] for fold in range(2)]
    scores = [np.mean([run.result["metrics"]["test"]["accuracy"] for run in each if run.result]) for each in runs]
    tested = [set(research.load(each[0].path).predictions()["id"]) for each in runs]
    assert len(set.union(*tested)) == 24 == sum(map(len, tested))
    examples = np.mean([run.provenance["data"]["train"]["examples"] for each in runs for run in each])
    limits = over_folds(scores, float(examples), 12, low=0, high=1)
    assert (
        f"test: accuracy {np.mean(scores):.4f} ± {np.std(scores, ddof=1):.4f} over 2 folds of 2 seeds each, "
        f"95 % interval {limits.low:.4f} to {limits.high:.4f} (corrected resampled t)"
    ) in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("text", ["1,1", "0..2,2", "4..0", "0..100000"])
def test_seeds_that_make_no_list_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="must name each number once"):
        numbers_of(text)


@pytest.mark.process
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data.train": "trains.jsonl"}, "did you mean train.jsonl or"),
        ({"data.test": "absent/rows.jsonl"}, "no folder"),
        ({"trainer.monitor": "f2"}, "trainer.monitor=f2 is not a score of task classification; it reports accuracy"),
        ({"run_dir": "begun"}, "holds another experiment; it differs in optim.lr"),
        ({"optim.lrr": 1}, "Did you mean optim.lr?"),
    ],
)
def test_mistakes_are_reported_before_torch_is_imported(experiment: Path, values: dict[str, str], said: str) -> None:
    folder = experiment.parent
    (folder / "begun").mkdir(exist_ok=True)
    text = experiment.read_text().replace("0.005", "0.7")
    text = re.sub(r'"(\w+\.jsonl)"', rf'"{folder}/\1"', text)
    (folder / "begun" / "config.yaml").write_text(text)
    (folder / "begun" / "provenance.json").write_text("{}")
    code = (
        "import sys, research\n"
        "assert 'omegaconf' not in sys.modules\n"
        f"try: research.train('mine.yaml', **{values!r})\n"
        "except Exception as error: print(error)\n"
        "print([m for m in ('torch', 'transformers', 'lightning', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    message, imported = done.stdout.rsplit("\n", 2)[:2]
    assert said in message and imported == "[]"


def test_notebooks_show_the_sentence_of_an_error_alone() -> None:
    shell = InteractiveShell.instance()
    with redirect_stdout(StringIO()) as shown:
        shell.run_cell("import research; research.load('/nowhere')")
    InteractiveShell.clear_instance()
    assert "UserError: /nowhere is not a run folder" in shown.getvalue() and "Traceback" not in shown.getvalue()


def test_the_package_lists_what_it_offers() -> None:
    assert {"train", "load", "compare", "write_report", "search"} <= set(dir(research))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        research.trian  # noqa: B018
    assert (Path(research.__file__).parent / "py.typed").is_file()
