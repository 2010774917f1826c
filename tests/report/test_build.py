"""The whole report: its files, whether its numbers still hold, a thousand runs, and a page that LaTeX sets."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from research.cli import main
from research.report.build import build, check
from research.tracking import predictions
from tests.report.render.test_latex import compile_tex, needs_latex
from tests.report.synthetic import COST, write_json, write_run

pytestmark = pytest.mark.slow  # each builds or checks a whole report
MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def paper_once(grid_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    shutil.copytree(grid_once, folder / "runs")
    build([folder / "runs"], folder / "paper")
    return folder


@pytest.fixture
def paper(paper_once: Path, tmp_path: Path) -> Path:
    """A report in `tmp_path/paper` on the runs in `tmp_path/runs`, both the test's own."""
    shutil.copytree(paper_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "paper"


@pytest.fixture
def runs(paper: Path) -> Path:
    return paper.parent / "runs"


def test_a_report_has_all_its_parts(paper: Path) -> None:
    names = {path.name for path in paper.iterdir()}
    assert {"tables", "figures", "errors", "page.tex", "checklist.md", "index.html", "manifest.json"} <= names
    assert {path.name for path in (paper / "tables").iterdir()} >= {
        "scores.tex", "scores.md", "scores.html", "scores.csv", "intervals.csv", "sources-of-variance.csv",
    }  # fmt: skip
    assert list((paper / "figures").glob("*.pdf")) and list((paper / "figures").glob("*.png"))
    assert (paper / "index.html").stat().st_size > 10_000


def test_the_manifest_names_runs_hashes_and_commands(paper: Path, runs: Path) -> None:
    content = json.loads((paper / "manifest.json").read_text(encoding="utf-8"))
    assert len(content["runs"]) == 30
    run = content["runs"][0]
    assert (paper / run["path"]).resolve() == sorted(runs.iterdir())[0].resolve()
    assert run["command"][:2] == ["research", "train"] and len(run["commit"]) == 40
    assert {"config.yaml", "result.json", "provenance.json", "predictions/test.parquet"} <= set(run["files"])
    mean = next(n for n in content["numbers"] if n["what"] == "lr 3e-5 on news, test f1, mean")
    scores = [json.loads((paper / content["runs"][i]["path"] / "result.json").read_text()) for i in mean["runs"]]
    assert mean["value"] == pytest.approx(sum(s["metrics"]["test"]["f1"] for s in scores) / 5)
    assert len({number["what"] for number in content["numbers"]}) == len(content["numbers"]) > 60
    assert "tables/scores.tex" in content["files"]


def test_an_untouched_report_holds(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--check", str(paper)]) == 0
    assert "numbers of 30 runs checked, 0 faults" in capsys.readouterr().out


def test_a_report_moved_with_its_runs_holds(paper: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere" / "runs")
    shutil.move(paper, tmp_path / "elsewhere" / "paper")
    assert check(tmp_path / "elsewhere" / "paper") == 0


def test_a_changed_result_is_found_with_its_numbers(
    paper: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "news-3e-05-0" / "result.json"
    content = json.loads(path.read_text())
    content["metrics"]["test"]["f1"] += 0.05
    path.write_text(json.dumps(content))
    assert check(paper) == 1
    said = capsys.readouterr().out
    assert "result.json differs from what the report read" in said
    assert "lr 3e-5 on news, test f1, mean = " in said and "rests on runs that were changed" in said
    assert "lr 1e-4 on news, validation f1, mean" not in said


def test_a_run_that_is_gone_is_found(paper: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(runs / "wiki-3e-05-4")
    assert check(paper) == 1
    said = capsys.readouterr().out
    assert "wiki-3e-05-4 is gone" in said
    assert "lr 3e-5 on wiki, test f1, mean = " in said


def test_all_runs_gone_leaves_nothing_to_compute(paper: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(runs)
    assert check(paper) == 1
    assert "can no longer be computed" in capsys.readouterr().out


def test_a_number_edited_in_the_paper_is_found(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = paper / "tables" / "scores.tex"
    path.write_text(path.read_text().replace("lr", "rate"))
    assert check(paper) == 1
    assert "scores.tex was changed or removed after the report was made" in capsys.readouterr().out


def test_a_folder_without_a_manifest_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--check", str(tmp_path)]) == 2
    assert "has no manifest.json; `research report RUNS... --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "Name runs and a folder to write"),
        (["report", "nowhere", "--output", "paper"], "There is no folder nowhere"),
        (["report", "x", "--check", "paper"], "--check takes the folder of a report alone"),
        (["compare", "nowhere", "--against", "there"], "There is no folder nowhere"),
    ],
)
def test_wrong_calls_are_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_an_output_that_cannot_be_written_is_reported(
    grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["report", str(grid), "--output", str(tmp_path / "file" / "paper")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_edited_predictions_are_refused(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        path = make_run(None, seed=seed)
    table = predictions.read(path / "predictions" / "test.parquet")
    predictions.write(table.slice(1), path / "predictions" / "test.parquet")
    assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "paper")]) == 2
    assert "is not the file the run wrote: its sha256 differs" in capsys.readouterr().err
    assert not (tmp_path / "paper").exists()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_edited_score_is_refused(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    path = make_run("a")
    content = json.loads((path / "result.json").read_text())
    content["metrics"][split]["accuracy"] = 0.999
    (path / "result.json").write_text(json.dumps(content))
    assert main(["report", str(path), "--output", str(tmp_path / "paper")]) == 2
    said = capsys.readouterr().err
    assert f"give a {split} accuracy of 0." in said and "its result.json says 0.999" in said


def test_hostile_names_reach_the_page_escaped(make_run: MakeRun, tmp_path: Path) -> None:
    labels = ("<script>alert(1)</script>", "50 % & 消极_{x}")
    for name in ("<img src=x onerror=alert(2)>", "中文_$%"):
        make_run(None, config={"model.name": name}, labels=labels, data_set="新闻 & <b>")
    build([tmp_path / "runs"], tmp_path / "paper")
    page = (tmp_path / "paper" / "index.html").read_text(encoding="utf-8")
    for raw in ("<script>alert(1)", "<img src=x", "& <b>"):
        assert raw not in page
    assert "中文_$%" in page


@pytest.mark.service
def test_the_page_of_a_report_compiles(paper: Path) -> None:
    needs_latex("booktabs.sty", "graphicx.sty")
    compile_tex(paper, "page.tex")


@pytest.mark.slow
def test_a_thousand_runs_take_under_a_gigabyte(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Four data sets, ten systems, twenty-five seeds; some runs failed."""
    for number in range(1000):
        data_set, system, seed = number % 4, number // 4 % 10, number // 40
        task = ("sentiment", "ner", "qa", "sentiment")[data_set]
        folder = tmp_path / "runs" / f"{number:04d}"
        if seed < 3:
            write_run(
                folder, task=task, data_set=f"set{data_set}", seed=seed, quality=0.6 + 0.02 * system, examples=40,
                config={"optim.lr": 1e-5 * (system + 1)},
            )  # fmt: skip
        else:  # written faster: another run's folder under another seed
            shutil.copytree(tmp_path / "runs" / f"{number - 120:04d}", folder)
            config = folder / "config.yaml"
            config.write_text(config.read_text().replace(f"\nseed: {seed - 3}\n", f"\nseed: {seed}\n"))
    for number in range(0, 1000, 97):
        folder = tmp_path / "runs" / f"{number:04d}"
        (folder / "result.json").unlink()
        write_json(folder / "outcome.json", {"state": "failed", "reason": "out of memory", "step": 20, "cost": COST})
    program = (  # the peak of /proc, since that of getrusage begins with the parent's memory
        "import re, resource, sys; from research.cli import main; code = main(sys.argv[1:]); "
        "used = resource.getrusage(resource.RUSAGE_SELF); status = open('/proc/self/status').read(); "
        "print(code, used.ru_utime + used.ru_stime, re.search(r'VmHWM:\\s+(\\d+)', status)[1])"
    )
    command = [sys.executable, "-c", program, "report", str(tmp_path / "runs"), "--output", str(tmp_path / "paper")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1000 runs (989 finished, 11 failed)" in done.stdout
    code, used_seconds, memory_kib = done.stdout.splitlines()[-1].split()
    record_property("a report of a thousand runs", f"{used_seconds} s of processor time, {memory_kib} KiB")
    assert code == "0" and int(memory_kib) < 1024**2
