"""The run folder by itself: what is intact, whose it is, who may write in it."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from research.common.errors import UserError
from research.common.files import replace_folder, write_atomically, write_json
from research.config.component import choose
from research.config.schema import Config
from research.tracking import lock
from research.tracking.run import Run


def config_of(folder: Path, **optim: float) -> Config:
    config = Config(task=choose("task", "sentiment"), run_dir=str(folder))
    config.model.name, config.data.train = "tiny", "train.jsonl"
    for name, value in optim.items():
        setattr(config.optim, name, value)
    return config


def begun(folder: Path) -> Config:
    """The folder of a run that has trained for 3 steps."""
    config = config_of(folder)
    run = Run.open(config)
    write_json(run.path / "provenance.json", {"attempts": [{}]})
    for step in (1, 2, 3):
        run.log(step, {"train/loss": 1 / step})
    run.close()
    return config


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_opens_and_reads_back(tmp_path: Path) -> None:
    config = begun(tmp_path / "a" / "run")
    run = Run.read(config.run_dir or "")
    assert run.config == config
    assert run.metrics() == [{"step": s, "train/loss": 1 / s} for s in (1, 2, 3)]
    assert run.result is None and run.provenance == {"attempts": [{}]}
    with pytest.raises(UserError, match=r"is not a run folder: it has no config\.yaml"):
        Run.read(tmp_path)


def test_another_experiment_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "checkpoints" / ".step-00000003.1.tmp").write_bytes(b"half")
    before = snapshot(tmp_path)
    other = config_of(tmp_path, lr=3e-5, epochs=5.0)
    other.data.max_length = 64
    with pytest.raises(UserError) as refused:
        Run.open(other)
    reported = "data.max_length: 128 -> 64; optim.lr: 5e-05 -> 3e-05; optim.epochs: 3.0 -> 5.0 (there -> here)"
    assert reported in str(refused.value)
    assert snapshot(tmp_path) == before
    Run.open(config_of(tmp_path)).close()  # the refusal has let go of the folder


@pytest.mark.parametrize("key", ["precision", "evaluate_every_steps", "monitor", "sparse_embedding"])
def test_trainer_keys_that_change_numbers_are_refused(key: str, tmp_path: Path) -> None:
    config = begun(tmp_path)
    setattr(config.trainer, key, {"precision": "fp32", "evaluate_every_steps": 7, "monitor": "f1"}.get(key, False))
    with pytest.raises(UserError, match=rf"trainer\.{key}: "):
        Run.open(config)


def test_layout_and_logging_may_change(tmp_path: Path) -> None:
    config = begun(tmp_path)
    t = config.trainer
    t.tokens_per_microbatch, t.devices, t.strategy, t.keep, t.checkpoint_every_steps = 512, 2, "ddp", 7, 11
    t.checkpoint_every_minutes, t.log_every_steps, config.data.num_workers = 1.0, 5, 4
    config.wandb.mode, config.wandb.tags = "disabled", ["again"]
    Run.open(config).close()
    assert Run.read(tmp_path).config == config


def test_a_start_that_never_trained_gives_its_folder_up(tmp_path: Path) -> None:
    """A mistake in the data, say, that the next YAML fixes."""
    Run.open(config_of(tmp_path)).close()
    Run.open(config_of(tmp_path, lr=1e-3)).close()
    assert Run.read(tmp_path).config.optim.lr == 1e-3


def test_finished_run_keeps_its_record(tmp_path: Path) -> None:
    config = begun(tmp_path)
    write_json(tmp_path / "result.json", {"steps": 3})
    before = snapshot(tmp_path)
    config.trainer.keep = 9
    run = Run.open(config)
    assert run.result == {"steps": 3}
    run.close()
    assert snapshot(tmp_path) == before


def test_second_process_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    config = begun(tmp_path)
    first = Run.open(config)
    with pytest.raises(UserError, match=rf"is in use by process {os.getpid()} on .+, since \d{{4}}-.+; wait for it"):
        Run.open(config)
    first.close()
    Run.open(config).close()


def test_a_requeued_job_takes_over_from_its_orphan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a node that SLURM has lost an earlier attempt may live on: it holds the folder, and may not write any more."""
    config = begun(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "node1")
    orphan = Run.open(config)
    orphan.log(4, {"train/loss": 0.1})
    for other in ({"SLURM_JOB_ID": "18"}, {"SLURM_RESTART_COUNT": "0"}):  # another job; the same attempt
        with monkeypatch.context() as patched:
            for name, value in {"SLURM_RESTART_COUNT": "3", **other}.items():
                patched.setenv(name, value)
            with pytest.raises(UserError, match=rf"by process {os.getpid()} on node1, SLURM job 17 attempt 1, since"):
                Run.open(config)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURMD_NODENAME", "node2")
    later = Run.open(config)
    later.rewind(3)
    later.log(4, {"train/loss": 0.2})
    with pytest.raises(UserError, match=r"no longer this process's own but held by .* on node2, .* attempt 2, "):
        orphan.log(5, {"train/loss": 0.1})
    later.log(5, {"train/loss": 0.2})
    orphan.close()
    with pytest.raises(UserError, match="in use by"):  # the orphan's end changes nothing
        Run.open(config)
    assert [row["train/loss"] for row in later.metrics()] == [1, 1 / 2, 1 / 3, 0.2, 0.2]
    later.close()


def test_a_folder_that_was_removed_is_noticed(tmp_path: Path) -> None:
    run = Run.open(config_of(tmp_path / "run"))
    (run.path / ".lock").unlink()
    with pytest.raises(UserError, match="held by no process: its lock file is missing"):
        run.log(1, {"train/loss": 1.0})
    run.close()


@pytest.mark.slow
def test_all_ranks_see_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is local to each node would lose the checkpoints at the next requeue."""
    monkeypatch.setattr(lock, "LOOKS", 2)
    first = Run.open(config_of(tmp_path / "shared"))
    Run(tmp_path / "shared").lock.refuse_another_folder(first.lock.holder)
    with pytest.raises(UserError, match="is not the one that rank 0 sees; set run_dir to a folder on a file system"):
        Run(tmp_path / "local").lock.refuse_another_folder(first.lock.holder)
    first.close()


def test_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    config = begun(tmp_path)
    leftovers = [tmp_path / ".result.json.1.tmp", tmp_path / "checkpoints" / ".step-00000003.1.tmp"]
    for path in leftovers:
        path.write_text("{")
    Run.open(config).close()
    assert not any(path.exists() for path in leftovers)


def test_torn_last_row_is_no_row(tmp_path: Path) -> None:
    begun(tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "train/lo')
    run = Run(tmp_path)
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]
    run.rewind(3)
    run.log(4, {"train/loss": 0.25})
    run.close()
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4]


def test_disk_that_fills_up_under_the_rows(tmp_path: Path) -> None:
    run, limits = Run(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(UserError, match=r"metrics\.jsonl could not be written: File too large\."):
            for step in range(100):
                run.log(step, {"train/loss": 0.5})
        run.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [row["step"] for row in run.metrics()] == list(range(200 // len('{"step": 1, "train/loss": 0.5}\n')))


def test_rewind_drops_what_will_be_written_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in range(1, 6):
        run.log(step, {"train/loss": 1.0})
        if step % 2 == 0:
            run.log(step, {"validation/loss": 2.0})
    run.close()

    def rows() -> list[str]:
        return [f"{row['step']}{'v' if 'validation/loss' in row else 't'}" for row in run.metrics()]

    assert rows() == ["1t", "2t", "2v", "3t", "4t", "4v", "5t"]
    run.rewind(5)
    assert rows() == ["1t", "2t", "2v", "3t", "4t", "4v", "5t"]
    run.rewind(4)  # the evaluation of the checkpoint's own step runs again
    assert rows() == ["1t", "2t", "2v", "3t", "4t"]
    run.rewind(3)
    assert rows() == ["1t", "2t", "2v", "3t"]
    run.rewind(0)
    assert rows() == []


def test_files_are_written_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"steps": 1})
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_text("half")
        assert json.loads(path.read_text()) == {"steps": 1}
        raise RuntimeError
    assert json.loads(path.read_text()) == {"steps": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    with pytest.raises(UserError, match="could not be written"):
        write_json(tmp_path / "missing" / "result.json", {})


def test_folder_is_replaced_completely_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (tmp_path / ".model.17.new").mkdir()
    (tmp_path / ".model.17.new" / "leftover").write_text("")
    for word in ("first", "second"):
        replace_folder(folder, lambda new, word=word: (new / "weights").write_text(word) and None)  # type: ignore[misc]
        assert (folder / "weights").read_text() == word

    def fails(new: Path) -> None:
        (new / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"model could not be written: No space left on device\."):
        replace_folder(folder, fails)
    assert (folder / "weights").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["model"] and [p.name for p in folder.iterdir()] == ["weights"]


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"The run folder .+ cannot be written: Not a directory\."):
        Run.open(config_of(tmp_path / "file" / "run"))
