"""A run that is stopped, killed or damaged, and started again by the same command, ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from research.cluster.signals import STOPPED
from research.tracking.run import Run
from research.training import checkpoint
from tests.attempts import Attempt, attempt

pytestmark = pytest.mark.slow
COSTS = ("train_seconds", "cost", "mfu", "examples_per_second", "tokens_per_second", "peak_memory_mib")
STEPS_PER_EPOCH, STEPS = 10, 30


def content(run: Run) -> dict[str, Any]:
    """All that must not depend on how often a run was interrupted."""
    result = run.result or {}
    return {
        "weights": (run.model / "model.safetensors").read_bytes(),
        "metrics": [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics()],
        "predictions": {path.name: path.read_bytes() for path in sorted(run.predictions.iterdir())},
        "result": {key: value for key, value in result.items() if key not in COSTS},
    }


def assert_same(run: Run, reference: Run, steps: int = STEPS, evaluated: Sequence[int] = (10, 20, 30)) -> None:
    found, expected = content(run), content(reference)
    for part in ("result", "metrics", "predictions", "weights"):
        assert found[part] == expected[part], part
    rows = expected["metrics"]
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, steps + 1))
    assert [row["step"] for row in rows if "validation/loss" in row] == list(evaluated)


def command(experiment: Path, folder: Path, *overrides: str) -> list[str]:
    return ["train", str(experiment), f"run_dir={folder}", *overrides]


def steps_saved(run: Run) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.files(run.checkpoints)]


def last_step(run: Run) -> int:
    return max((row["step"] for row in run.metrics()), default=0)


def has_evaluated(run: Run, step: int) -> bool:
    return any(row["step"] == step and "validation/loss" in row for row in run.metrics())


@pytest.fixture(scope="session")
def references(experiments: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """The run of a task that nothing interrupts, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("references")

    def reference(task: str) -> Run:
        if not (folder / task).exists():
            code, output = attempt(command(experiments[task], folder / task), folder / f"{task}.log")
            assert code == 0, output
        return Run.read(folder / task)

    return reference


@pytest.fixture(scope="session")
def stopped(experiments: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sentiment run stopped after step 11 or later, with its 3 newest checkpoints; copy it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    run = Run(folder)
    started = Attempt(command(experiments["sentiment"], folder, "trainer.keep=3"), folder.parent / "log")
    assert started.until(lambda: has_evaluated(run, STEPS_PER_EPOCH) and last_step(run) > STEPS_PER_EPOCH)
    started.send(signal.SIGTERM)
    assert started.wait() == STOPPED, started.output
    return folder


# Moments at which a run is killed. Each waits for its moment, and returns False when the run ended before.
Moment = Callable[[Attempt, Run, random.Random], bool]


def starting(running: Attempt, run: Run, rng: random.Random) -> bool:
    time.sleep(rng.uniform(0, 0.5))
    return True


def in_step(more: int) -> Moment:
    """After so many steps more than were made before."""

    def moment(running: Attempt, run: Run, rng: random.Random) -> bool:
        before = last_step(run)
        reached = running.until(lambda: last_step(run) >= before + more)
        time.sleep(rng.uniform(0, 0.03))
        return reached

    return moment


def saving(running: Attempt, run: Run, rng: random.Random) -> bool:
    return running.until(lambda: any(run.checkpoints.glob(".step-*.tmp")), poll_seconds=0.0005)


def evaluating(running: Attempt, run: Run, rng: random.Random) -> bool:
    due = (max(steps_saved(run), default=0) // STEPS_PER_EPOCH + 1) * STEPS_PER_EPOCH
    return running.until(lambda: due in steps_saved(run))


def evaluating_again(running: Attempt, run: Run, rng: random.Random) -> bool:
    reached = running.until(lambda: "Resuming" in running.output)
    time.sleep(rng.uniform(0, 0.02))
    return reached


def finishing(running: Attempt, run: Run, rng: random.Random) -> bool:
    reached = running.until(lambda: has_evaluated(run, STEPS))
    time.sleep(rng.uniform(0, 0.03))
    return reached


MOMENTS: list[Moment] = [
    starting, in_step(1), starting, saving, evaluating, evaluating_again, saving, in_step(1), evaluating, finishing,
]  # fmt: skip


@pytest.mark.parametrize("task", ["sentiment", "ner", "qa"])
def test_killed_at_any_moment(
    task: str, experiments: dict[str, Path], references: Callable[[str], Run], tmp_path: Path
) -> None:
    run, rng = Run(tmp_path / "run"), random.Random(task)
    half_written = half_evaluated = resumed = 0
    for number, moment in enumerate(MOMENTS):
        running = Attempt(
            command(experiments[task], run.path, f"data.num_workers={number % 3}"), tmp_path / f"{number}.log"
        )
        assert moment(running, run, rng), running.output
        running.kill()
        assert run.result is None
        half_written += any(run.checkpoints.glob(".step-*.tmp"))
        last = steps_saved(run)[:1]
        half_evaluated += last in ([10], [20], [30]) and not has_evaluated(run, last[0])
        resumed += "Resuming" in running.output
    assert half_written >= 1 and half_evaluated >= 2 and resumed >= 5
    code, output = attempt(command(experiments[task], run.path), tmp_path / "last.log")
    assert code == 0, output
    assert_same(run, references(task))
    assert not [path for path in run.path.rglob(".*") if path.name != ".lock"]


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, in_step(4)), (signal.SIGTERM, evaluating), (signal.SIGUSR1, in_step(17))],
    ids=["SIGINT", "SIGTERM", "SIGUSR1"],
)
def test_signal_stops_between_steps(
    number: int, moment: Moment, experiments: dict[str, Path], references: Callable[[str], Run], tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    running = Attempt(command(experiments["ner"], run.path, "data.num_workers=2"), tmp_path / "log")
    assert moment(running, run, random.Random(0))
    running.send(number)
    assert running.wait() == STOPPED, running.output
    reported = re.search(
        r"Stopped at step (\d+) of 30, saved in (\S+)\. Run the same command to resume", running.output
    )
    assert reported and Path(reported[2]) == run.checkpoints and "Traceback" not in running.output
    assert last_step(run) == int(reported[1]) == steps_saved(run)[0]
    assert run.result is None
    code, output = attempt(command(experiments["ner"], run.path), tmp_path / "log")
    assert code == 0 and f"Resuming {run.path} at step {reported[1]}." in output
    assert_same(run, references("ner"))


def test_ctrl_c_twice_while_starting(
    stopped: Path, experiments: dict[str, Path], references: Callable[[str], Run], tmp_path: Path
) -> None:
    run = Run(shutil.copytree(stopped, tmp_path / "run"))
    for seconds in (0.05, 0.2, 0.5):
        (run.path / ".lock").unlink()  # it comes back when the command has begun
        running = Attempt(command(experiments["sentiment"], run.path), tmp_path / "log")
        assert running.until((run.path / ".lock").exists)
        time.sleep(seconds)
        for _ in range(2):
            running.send(signal.SIGINT)
        assert running.wait() in (STOPPED, 130), running.output
        assert "Traceback" not in running.output and "un the same command to resume" in running.output
    code, output = attempt(command(experiments["sentiment"], run.path), tmp_path / "log")
    assert code == 0, output
    assert_same(run, references("sentiment"))


def flip_bit(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_damaged_checkpoints(
    stopped: Path, experiments: dict[str, Path], references: Callable[[str], Run], tmp_path: Path
) -> None:
    for spared in (1, 0):
        run = Run(shutil.copytree(stopped, tmp_path / str(spared)))
        paths = checkpoint.files(run.checkpoints)
        assert len(paths) == 3
        for path, damage in zip(paths[: 3 - spared], (truncate, flip_bit, empty), strict=False):
            damage(path)
        (run.checkpoints / ".step-00000099.1.tmp").write_bytes(b"half")
        code, output = attempt(command(experiments["sentiment"], run.path, "trainer.keep=1"), tmp_path / "log")
        assert code == 0, output
        for path in paths[: 3 - spared]:
            assert f"The checkpoint {path} is damaged" in output
        if spared:
            assert f"Resuming {run.path} at step {checkpoint.step_of(paths[2])}." in output
        else:
            assert f"No checkpoint in {run.checkpoints} can be resumed: starting over." in output
        assert_same(run, references("sentiment"))
        kept = set(steps_saved(run))
        best = (run.result or {})["best_step"]  # that of the step before stays where the last evaluation is better
        assert {STEPS, best} <= kept and len(kept) <= 2
        assert not list(run.checkpoints.glob(".*"))


def test_full_disk_ends_the_run_and_spares_the_checkpoint_before(
    stopped: Path, experiments: dict[str, Path], references: Callable[[str], Run], tmp_path: Path
) -> None:
    run = Run(shutil.copytree(stopped, tmp_path / "run"))
    before = checkpoint.files(run.checkpoints)
    arguments = command(experiments["sentiment"], run.path, "trainer.keep=3")
    running = Attempt(arguments, tmp_path / "log", largest_file=before[0].stat().st_size // 2)
    assert running.wait() == 2
    sentence = [line for line in running.output.splitlines() if line.startswith("research: ")]
    assert len(sentence) == 1 and "could not be written" in sentence[0] and str(run.checkpoints) in sentence[0]
    assert "Traceback" not in running.output
    assert checkpoint.files(run.checkpoints) == before and not list(run.checkpoints.glob(".*"))
    code, output = attempt(arguments, tmp_path / "log")
    assert code == 0, output
    assert_same(run, references("sentiment"))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_resume_on_other_ranks(strategy: str, experiments: dict[str, Path], tmp_path: Path) -> None:
    """1 -> 2 -> 1 ranks: the steps, and up to rounding the results, of 1 rank."""
    plain = ("model.dropout=0", "trainer.precision=fp32")
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    code, output = attempt(command(experiments["qa"], whole.path, *plain), tmp_path / "log")
    assert code == 0, output

    running = Attempt(command(experiments["qa"], run.path, *plain), tmp_path / "log")
    assert running.until(lambda: last_step(run) >= 4)
    running.send(signal.SIGTERM)
    assert running.wait() == STOPPED

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = command(experiments["qa"], run.path, *plain, "trainer.devices=2", "trainer.accelerator=cpu")
    arguments.append(f"trainer.strategy={strategy}")
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        Attempt(arguments, tmp_path / f"rank{rank}.log", {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert ranks[0].until(lambda: last_step(run) >= 8), ranks[1].output
    ranks[1].send(signal.SIGTERM)  # either rank's signal stops both, at the same step
    assert [rank.wait() for rank in ranks] == [STOPPED, 0]  # rank 0 speaks for all
    assert "It ran on 1 ranks before and on 2 now; the steps stay the same." in ranks[0].output
    assert 8 <= last_step(run) < STEPS

    code, output = attempt(command(experiments["qa"], run.path, *plain), tmp_path / "log")
    assert code == 0 and "It ran on 2 ranks before and on 1 now" in output
    assert [tried["ranks"] for tried in run.provenance["attempts"]] == [1, 2, 1]
    rows, expected = content(run)["metrics"], content(whole)["metrics"]
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for row, same in zip(rows, expected, strict=True):
        assert row.keys() == same.keys()
        for name in {"train/loss", "train/grad_norm", "validation/loss"} & row.keys():
            assert row[name] == pytest.approx(same[name], rel=1e-4), (row["step"], name)
    weights, others = (load_file(r.model / "model.safetensors") for r in (run, whole))
    del weights["qa_outputs.bias"]  # its true gradient is zero: AdamW makes its value of rounding
    for name, tensor in weights.items():
        assert (tensor - others[name]).abs().max() < 1e-4, name


def test_one_process_at_a_time(stopped: Path, experiments: dict[str, Path], tmp_path: Path) -> None:
    run = Run(shutil.copytree(stopped, tmp_path / "run"))
    first = Attempt(command(experiments["sentiment"], run.path), tmp_path / "first.log")
    assert first.until(lambda: "Resuming" in first.output)
    first.send(signal.SIGSTOP)  # or it may end before the second has begun
    code, output = attempt(command(experiments["sentiment"], run.path), tmp_path / "second.log")
    first.send(signal.SIGCONT)
    assert code == 2 and f"is in use by process {first.process.pid} on {socket.gethostname()}" in output
    assert first.wait() == 0, first.output


def test_finished_run_says_so(experiments: dict[str, Path], references: Callable[[str], Run], tmp_path: Path) -> None:
    run = Run(shutil.copytree(references("ner").path, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}
    code, output = attempt(command(experiments["ner"], run.path, "trainer.keep=5"), tmp_path / "log")
    assert code == 0 and f"This run is finished: {run.path}" in output and "Per class" in output
    assert "step" not in output
    after = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_a_run_goes_on_under_the_other_name_of_its_task(
    stopped: Path, experiments: dict[str, Path], references: Callable[[str], Run], tmp_path: Path
) -> None:
    run = Run(shutil.copytree(stopped, tmp_path / "run"))
    code, output = attempt([*command(experiments["sentiment"], run.path), "task=classification"], tmp_path / "log")
    assert code == 0 and f"Resuming {run.path}" in output, output
    assert (run.stored_config["task"]["name"], (run.result or {})["task"]) == ("classification", "classification")
    assert_same(run, references("sentiment"))


def test_other_data_or_weights_are_refused(stopped: Path, experiments: dict[str, Path], tmp_path: Path) -> None:
    """The same names, another content."""
    from tests.conftest import make_tiny_model

    run = Run(shutil.copytree(stopped, tmp_path / "run"))
    settings = json.loads(experiments["sentiment"].read_text())
    model, train = Path(settings["model"]["name"]), Path(settings["data"]["train"])
    old = run.provenance["data"]["train"]["sha256"]
    before = run.metrics()
    kept = train.read_text()
    try:
        train.write_text(kept + '{"text": "not bad", "label": "positive"}\n')
        code, output = attempt(command(experiments["sentiment"], run.path), tmp_path / "log")
    finally:
        train.write_text(kept)
    assert code == 2 and "Traceback" not in output, output
    reported = re.search(r"data: .*?'train': '(\w+)'.*? -> .*?'train': '(\w+)'", output)
    assert reported and reported[1] == old and reported[2] != old, output
    try:
        model.rename(model.with_name("kept"))
        make_tiny_model(model, hidden_size=64)
        code, output = attempt(command(experiments["sentiment"], run.path), tmp_path / "log")
    finally:
        shutil.rmtree(model)
        model.with_name("kept").rename(model)
    assert code == 2 and "it is of another experiment: pretrained: " in output and "Traceback" not in output
    assert run.metrics() == before
