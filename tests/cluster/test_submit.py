"""What `research submit` hands to sbatch, and what it refuses; the jobs themselves are in test_slurm_refusals.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.cluster.submit import HELP, clean, parse, submit
from research.common.errors import UserError


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with scripts in it, to be submitted from."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SLURM").mkdir()
    for name in ("train.sbatch", "seeds.sbatch"):
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
        (["--script", "seeds.sbatch", "-a0-9", "b.yml"], ["sbatch", "-a0-9", "SLURM/seeds.sbatch", "b.yml"]),
        (["-N2", "--script=SLURM/seeds.sbatch", "b.yml"], ["sbatch", "-N2", "SLURM/seeds.sbatch", "b.yml"]),
    ],
)  # fmt: skip
def test_command(repository: Path, arguments: list[str], command: list[str]) -> None:
    assert parse(arguments).command == command


def test_refusals(repository: Path) -> None:
    with pytest.raises(UserError, match=r"needs an experiment, a \.yaml file"):
        submit(["--nodes", "2"])
    with pytest.raises(UserError, match=r"no script sweeps\.sbatch; in SLURM/ there are: seeds\.sbatch, train\.sbatch"):
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
