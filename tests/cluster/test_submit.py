"""What `research submit` hands to sbatch, and what it refuses; the jobs themselves are in test_slurm_refusals.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.cli import main
from research.cluster.submit import HELP, as_array, check, clean, parse, submit, task_lines
from research.common.errors import UserError


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with scripts in it, to be submitted from."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SLURM").mkdir()
    for name in ("train.sbatch", "array.sbatch", "sweep.sbatch"):
        (tmp_path / "SLURM" / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["a.yaml"], ["sbatch", "SLURM/train.sbatch", "a.yaml"]),
        (
            ["--nodes", "2", "-t", "1:00", "a.yaml", "optim.lr=3e-5", "wandb.tags=[a b]"],
            ["sbatch", "--nodes", "2", "-t", "1:00", "SLURM/train.sbatch",
             "a.yaml", "optim.lr=3e-5", "wandb.tags=[a b]"],
        ),
        (["--script", "sweep.sbatch", "-a0-9", "b.yml"], ["sbatch", "-a0-9", "SLURM/sweep.sbatch", "b.yml"]),
        (["-N2", "--script=SLURM/sweep.sbatch", "b.yml"], ["sbatch", "-N2", "SLURM/sweep.sbatch", "b.yml"]),
    ],
)  # fmt: skip
def test_command(repository: Path, arguments: list[str], command: list[str]) -> None:
    assert parse(arguments).command == command


@pytest.mark.in_check(1)
@pytest.mark.parametrize(
    ("arguments", "tasks", "command"),
    [
        (["a.yaml", "seed=0..4"], 5, "--array=0-4 --job-name=a SLURM/array.sbatch a.yaml seed=0..4"),
        (["-N1", "a.yaml", "b.yaml"], 2, "--array=0-1 --job-name=a+b -N1 SLURM/array.sbatch a.yaml b.yaml"),
        (["--array=%2", "-J", "mine", "a.yaml", "b.yaml", "seed=1,2"], 4,
         "--array=0-3%2 -J mine SLURM/array.sbatch a.yaml b.yaml seed=1,2"),
        (["--array", "%2", "a.yaml", "data.folds=3", "data.fold=all", "seed=0..1"], 6,
         "--array=0-5%2 --job-name=a SLURM/array.sbatch a.yaml data.folds=3 data.fold=all seed=0..1"),
        (["a.yaml", "seed=3"], 1, "SLURM/train.sbatch a.yaml seed=3"),
        (["--script=array.sbatch", "--array=0-9", "a.yaml"], 1, "--array=0-9 SLURM/array.sbatch a.yaml"),
    ],
)  # fmt: skip
def test_experiments_folds_and_seeds_are_one_array(
    repository: Path, arguments: list[str], tasks: int, command: str
) -> None:
    for name in ("a", "b"):
        (repository / f"{name}.yaml").write_text("task: ner\nmodel: {name: m}\ndata: {train: t.conll}\n")
    submission = parse(arguments)
    configs = check(submission)
    assert len({config.run_dir for config in configs}) == len(configs) == tasks
    assert " ".join(as_array(submission, tasks).command) == f"sbatch {command}"


def test_tasks_are_distinguished_by_their_folders(repository: Path) -> None:
    folders = [str(repository / "a" / f"seed{i}") for i in range(100)]
    assert task_lines(folders[:2]) == "  task 0: a/seed0\n  task 1: a/seed1"
    many = task_lines(folders).splitlines()
    assert len(many) == 20 and many[17:] == ["  task 17: a/seed17", "  ...", "  task 99: a/seed99"]


def test_arrays_that_are_refused(repository: Path) -> None:
    (repository / "a.yaml").write_text("task: ner\nmodel: {name: m}\ndata: {train: t.conll}\n")
    with pytest.raises(UserError, match=r"--array=0-9: these are 3 tasks, 0-2; --array=%4 runs four at a time"):
        submit(["--array=0-9", "a.yaml", "seed=0..2"])
    with pytest.raises(UserError, match=r"Two of these experiments would be trained in .*/runs/a/seed0"):
        submit(["a.yaml", "./a.yaml"])
    assert main(["train", "a.yaml", "seed=0..2", "--task", "3"]) == 2


def test_refusals(repository: Path) -> None:
    with pytest.raises(UserError, match=r"needs an experiment, a \.yaml file"):
        submit(["--nodes", "2"])
    with pytest.raises(
        UserError, match=r"no script sweeps\.sbatch; in SLURM/ there are: array\.sbatch, sweep\.sbatch, t"
    ):
        submit(["--script", "sweeps.sbatch", "a.yaml"])
    with pytest.raises(UserError, match=r"There is no experiment file a\.yaml"):
        submit(["a.yaml"])
    (repository / "a.yaml").write_text("task: ner\nmodel: {name: m}\ndata: {train: t.conll}\n")
    with pytest.raises(UserError, match=r"unknown key 'optim\.lrr'\. Did you mean optim\.lr\?"):
        submit(["a.yaml", "optim.lrr=1"])


def test_the_environment_of_another_job_is_not_passed_on() -> None:
    kept = {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "a", "RANKING": "b", "HF_HOME": "c"}
    dropped = dict.fromkeys(
        ["SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_CONF_SERVER", "RANK", "WORLD_SIZE",
         "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"],
        "1",
    )  # fmt: skip
    assert clean({**kept, **dropped}) == kept


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(["--help"]) == submit([]) == 0
    assert capsys.readouterr().out == f"{HELP}\n" * 2
